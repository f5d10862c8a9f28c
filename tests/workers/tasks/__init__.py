"""Tests of `workers/tasks`."""
