"""Tests of `projections/self_audit`."""
