"""Tests of the log and what is derived from it, on a real PostgreSQL."""
