"""Which manager gets which task, and why a record waits."""
