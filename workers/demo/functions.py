"""stub."""


def noop():
    pass
