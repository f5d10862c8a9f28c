"""The rules of the ledger, pure: no input or output, no clock, no SQL."""
