"""Tests of `workers/demo`."""
