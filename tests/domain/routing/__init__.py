"""Tests of `domain/routing`."""
