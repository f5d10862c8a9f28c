"""Tests of `projections/archives`."""
