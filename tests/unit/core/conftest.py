"""``--hypothesis-profile thorough --timeout 0``: many more examples, after a change to the core."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("thorough", max_examples=5000, deadline=None)
