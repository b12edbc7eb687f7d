"""How the package's modules import each other; the layers are import-linter's (pyproject.toml)."""

from __future__ import annotations

import graphlib

import grimp


def test_no_import_circle_in_the_package() -> None:
    """Also none that is only there for types: two files that name each other are one subject."""
    graph = grimp.build_graph("vaultauthz", exclude_type_checking_imports=False, cache_dir=None)
    assert len(graph.modules) > 100
    found = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    graphlib.TopologicalSorter(found).prepare()  # raises CycleError, which names the circle
