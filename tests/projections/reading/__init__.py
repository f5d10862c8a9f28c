"""Tests of `projections/reading`."""
