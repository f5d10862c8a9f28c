"""What changes the ledger: each function decides and appends in one operation."""
