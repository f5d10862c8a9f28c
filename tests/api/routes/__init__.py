"""Tests of `api/routes`."""
