"""The operations of both clients, without input or output, by noun.

The first parameter of each is what it is a method of: the `session` of a client, or `within`, the
dataset of a client. It is the method's `self`, and no docstring describes it.
"""
