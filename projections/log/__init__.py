"""The event log: rows, their encoding, and the order of positions."""
