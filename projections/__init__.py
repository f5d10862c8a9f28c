"""The event log and the tables derived from it: the only place with SQL.

Whatever reaches the database raises `StoreUnavailable` when the database does not answer. No
docstring of this layer repeats it.
"""
