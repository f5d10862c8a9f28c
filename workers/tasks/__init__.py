"""One task in a process of its own: what may run, what it prints, what it answers."""
