"""Tests of `workers/engines`."""
