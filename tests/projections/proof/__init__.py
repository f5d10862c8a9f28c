"""Tests of `projections/proof`."""
