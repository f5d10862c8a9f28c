"""Acceptance tests: real processes, started, used and killed."""
