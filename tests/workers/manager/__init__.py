"""Tests of `workers/manager`."""
