"""deploy/sbom.py: what it says of what is installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "deploy" / "sbom.py"
SCHEMA = yaml.safe_load((ROOT / "tests" / "data" / "cyclonedx.yaml").read_text())
STATUS = """\
Package: libstdc++6
Status: install ok installed
Architecture: amd64
Version: 1:12.2.0-14+deb12u1
Description: GNU Standard C++ Library v3
 Package: a line of the description

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image's root, with what dpkg and the system say of themselves."""
    folder = tmp_path_factory.mktemp("image")
    for name, text in (
        ("var/lib/dpkg/status", STATUS),
        ("etc/os-release", 'PRETTY_NAME="Debian"\nVERSION_ID="12"\nID=debian\n'),
    ):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
    return folder


def bill(root: Path) -> dict[str, Any]:
    """What the script prints, run by itself as in the image."""
    argv = [sys.executable, "-I", str(SCRIPT), str(root)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def printed(root: Path) -> dict[str, Any]:
    """Of this interpreter and that root."""
    return bill(root)


def test_it_is_cyclonedx(printed: dict[str, Any]) -> None:
    """By the schema; and each reference leads to a component."""
    jsonschema: Any = pytest.importorskip("jsonschema")
    jsonschema.validate(printed, SCHEMA)
    components = [*printed["components"], printed["metadata"]["component"]]
    references = [component["bom-ref"] for component in components]
    assert len(set(references)) == len(references)
    for link in printed["dependencies"]:
        assert {link["ref"], *link["dependsOn"]} <= set(references)


def test_it_is_the_same_again(printed: dict[str, Any], root: Path) -> None:
    """No time and no random number are in it."""
    assert bill(root) == printed


def test_it_has_what_the_lock_installs(printed: dict[str, Any]) -> None:
    """Each package of requirements/runtime.txt, in its version; vaultauthz is what it is about."""
    versions = {component["name"]: component["version"] for component in printed["components"]}
    lock = (ROOT / "requirements" / "runtime.txt").read_text()
    locked = dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock, re.MULTILINE))
    assert len(locked) >= 8
    assert {name: versions[name] for name in locked} == locked
    assert printed["metadata"]["component"]["version"] == version("vaultauthz")
    needed = {link["ref"]: link["dependsOn"] for link in printed["dependencies"]}
    ours = needed[printed["metadata"]["component"]["bom-ref"]]
    assert {url.partition("@")[0] for url in ours} >= {
        f"pkg:pypi/{name}" for name in ("grpcio", "hvac", "pyyaml")
    }


def test_it_has_what_dpkg_has_installed(printed: dict[str, Any]) -> None:
    """And not what was removed; by a package URL that scanners find advisories for."""
    found = [c for c in printed["components"] if c["purl"].startswith("pkg:deb/")]
    assert [(c["name"], c["version"]) for c in found] == [("libstdc++6", "1:12.2.0-14+deb12u1")]
    purl = "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12"
    assert found[0]["purl"] == purl


def test_without_dpkg(tmp_path: Path) -> None:
    """Of another system only what Python knows is in it."""
    assert not [c for c in bill(tmp_path)["components"] if c["purl"].startswith("pkg:deb/")]


def test_the_image_has_it() -> None:
    """Printed by the Python whose packages go into the image, when the last of them is there."""
    lines = (ROOT / "deploy" / "Dockerfile").read_text().splitlines()
    (made,) = [at for at, line in enumerate(lines) if "sbom.py >" in line]
    assert lines[made] == "RUN /opt/vaultauthz/bin/python sbom.py > /opt/vaultauthz/sbom.cdx.json"
    assert (
        max(at for at, line in enumerate(lines) if "/opt/vaultauthz/bin/pip install" in line) < made
    )
    assert lines.index("COPY --from=inventory /opt/vaultauthz /opt/vaultauthz") > made
