"""Tests of `domain/proof`."""
