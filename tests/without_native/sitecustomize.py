"""In $PYTHONPATH: a Python that has no pygrpc-native, as where there is no wheel of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class WithoutNative(PathFinder):
    """Finds what is installed, but for this one package."""

    @classmethod
    def find_spec(
        cls,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname == "pygrpc_native":
            return None
        return super().find_spec(fullname, path, target)


if PathFinder in sys.meta_path:  # once: a worker of pytest-xdist comes by here twice
    sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutNative
