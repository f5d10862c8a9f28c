"""Proof that nobody rewrote the past: Merkle trees, signed notes, seals."""
