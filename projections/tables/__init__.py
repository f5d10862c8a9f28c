"""The tables derived from the events, one module and one file of SQL for each."""
