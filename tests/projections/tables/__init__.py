"""Tests of `projections/tables`."""
