"""The manager: it claims tasks over HTTP, runs them, and returns results."""
