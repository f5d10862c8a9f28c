"""The invariants of the ledger, checked from the events alone."""
