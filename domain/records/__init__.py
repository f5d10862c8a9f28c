"""What may happen to a record: its statuses, events, commands, decisions and their propagation."""
