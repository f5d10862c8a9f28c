"""Tests of `workers/jobs`."""
