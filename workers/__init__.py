"""What runs: the command line, the supervisor, managers and the server's own jobs."""
