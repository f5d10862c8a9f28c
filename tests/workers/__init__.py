"""What runs on the side of the workers, in real processes and against a real server."""
