"""Benchmarks: rates of the whole stack over HTTP, with the raw-SQL limit beside them."""
