"""The routes, by noun: each parses, asks and answers."""
