"""Tests of `workers/commands`."""
