"""What `kubectl kustomize FOLDER` makes of deploy/kubernetes, as far as those files use it.

Resources (files and folders), configMapGenerator from files, and JSON 6902 patches by kind and name. Whatever else
stands in a kustomization is an error here: then this file has to learn it first.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

Document = dict[str, Any]

KUBERNETES: Final = Path(__file__).parents[3] / "deploy" / "kubernetes"
APPLIED: Final = ("sidecar", "gateway", "envoy-gateway", "istio")  # base is none of them
_KEYS: Final = {"apiVersion", "kind", "resources", "configMapGenerator", "patches"}


def build(folder: Path) -> list[Document]:
    """The objects of a kustomization, each with all that it is given."""
    here: Document = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(here) <= _KEYS, folder
    objects: list[Document] = []
    for name in here["resources"]:
        place = folder / name
        if place.is_dir():
            objects += build(place)
        else:
            objects += yaml.safe_load_all(place.read_text())
    objects += [_config_map(folder, generator) for generator in here.get("configMapGenerator", [])]
    for patch in here.get("patches", []):
        assert set(patch) == {"target", "patch"}
        _patch(objects, **patch)
    names = [(o["kind"], o["metadata"]["name"]) for o in objects]
    assert len(set(names)) == len(names), folder
    return objects


def one(objects: list[Document], kind: str, name: str | None = None) -> Document:
    """The object of this kind, and name where there are several."""
    found = [o for o in objects if o["kind"] == kind and name in {None, o["metadata"]["name"]}]
    assert len(found) == 1, (kind, name)
    return found[0]


def _config_map(folder: Path, generator: Document) -> Document:
    """Without what kustomize adds to its name, a hash of the content, unless told not to."""
    assert set(generator) <= {"name", "namespace", "files", "options"}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": generator["name"], "namespace": generator["namespace"]},
        "data": {file: (folder / file).read_text() for file in generator["files"]},
    }


def _patch(objects: list[Document], target: Document, patch: str) -> None:
    assert set(target) <= {"kind", "name"}
    jsonpatch: Any = pytest.importorskip("jsonpatch")
    meant = [
        (at, o)
        for at, o in enumerate(objects)
        if re.fullmatch(target["kind"], o["kind"])
        and re.fullmatch(target.get("name", ".*"), o["metadata"]["name"])
    ]
    assert meant, target
    for at, o in meant:
        objects[at] = jsonpatch.apply_patch(copy.deepcopy(o), yaml.safe_load(patch))
