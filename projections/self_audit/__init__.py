"""Rows that are not what the log says, found and repaired while the ledger runs."""
