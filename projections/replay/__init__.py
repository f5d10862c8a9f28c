"""Tables made anew from the log: filled, compared, and put in place."""
