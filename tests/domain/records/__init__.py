"""Tests of `domain/records`."""
