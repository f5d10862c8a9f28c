"""The event log and the tables derived from it: the only place with SQL."""
