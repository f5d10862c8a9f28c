"""How Hypothesis runs in this folder; `--hypothesis-profile=quick` is for a first impression."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("domain", deadline=None, max_examples=300, print_blob=True)
settings.register_profile("quick", deadline=None, max_examples=10)
settings.load_profile("domain")
