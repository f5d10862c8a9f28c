"""PostgreSQL: connections, the embedded server, named statements, election."""
