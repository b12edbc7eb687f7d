"""PyYAML by libyaml where it is built in: trees for tests, read and printed ten times as fast."""

from __future__ import annotations

from typing import Any, Final

import yaml

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Final[Any] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def load(text: str) -> Any:
    """What ``text`` says."""
    return yaml.load(text, Loader=_LOADER)


def dump(tree: Any) -> str:
    """``tree`` as text."""
    return str(yaml.dump(tree, Dumper=_DUMPER, allow_unicode=True))
