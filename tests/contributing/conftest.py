"""Fixtures of the proofs: those of the projections' tests."""

from tests.projections.conftest import reused_database_url, stage

__all__ = ["reused_database_url", "stage"]
