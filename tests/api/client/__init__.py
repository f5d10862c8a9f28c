"""Tests of `api/client`."""
