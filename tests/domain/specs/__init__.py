"""Tests of `domain/specs`."""
