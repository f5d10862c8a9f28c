"""Tests of the HTTP API and its client, through real sockets and a real database."""
