"""What people try the ledger with: functions that every manager can run, and the demo."""
