"""Audit, seals, receipts and their verification."""
