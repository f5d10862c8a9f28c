"""What the diffs of CONTRIBUTING.md must do: `tests/test_contributing.py` runs it in copies."""
