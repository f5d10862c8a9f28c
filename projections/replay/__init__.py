"""Tables made again from the log: filled, compared, and put in place."""
