"""A record's rules: its statuses, events, commands, decisions and their propagation."""
