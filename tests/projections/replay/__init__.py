"""Tests of `projections/replay`."""
