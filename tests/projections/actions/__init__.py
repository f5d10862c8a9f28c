"""Tests of `projections/actions`."""
