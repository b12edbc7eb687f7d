# ruff: noqa: INP001  a script, no package
"""Print what an image has, as CycloneDX 1.6: the Python packages of this interpreter, Python, and Debian's packages.

Run in the image that is being built, by the Python whose packages are meant: `python sbom.py [ROOT]`. It reads what is
installed, not what was asked for, and says the same of the same image: there is no time in it.
"""

from __future__ import annotations

import json
import platform
import re
import sys
import uuid
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

OURS = "vaultauthz"
SHORT = 100  # characters: a longer License is the text of one
Component = dict[str, Any]


def main(root: Path) -> dict[str, Any]:
    """The bill of materials of the image whose root this is; of ours it is about, and of what it rests on."""
    found = {_normal(d.metadata["Name"]): d for d in distributions()}
    components = {name: python_package(name, found[name]) for name in sorted(found)}
    subject = components.pop(OURS) | {"type": "application"}
    others = [*components.values(), _python(), *debian_packages(root)]
    links = [
        {
            "ref": reference(name, d),
            "dependsOn": sorted(reference(n, found[n]) for n in _needs(d) if n in found),
        }
        for name, d in sorted(found.items())
    ]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": others,
        "dependencies": links,
    }
    name = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bill, sort_keys=True))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "serialNumber": f"urn:uuid:{name}",
        **bill,
    }


def reference(name: str, distribution: Distribution) -> str:
    """Its package URL, by which the others name it."""
    return f"pkg:pypi/{name}@{distribution.version}"


def python_package(name: str, distribution: Distribution) -> Component:
    """An installed distribution, with the licence that it says it has."""
    url = reference(name, distribution)
    component = {
        "type": "library",
        "bom-ref": url,
        "name": name,
        "version": distribution.version,
        "purl": url,
    }
    metadata = distribution.metadata
    if metadata["License-Expression"]:
        return component | {"licenses": [{"expression": metadata["License-Expression"]}]}
    classifiers = [c for c in metadata.get_all("Classifier", []) if c.startswith("License :: ")]
    names = [c.rpartition(" :: ")[2] for c in classifiers]
    said = metadata["License"] or ""
    if not names and 0 < len(said) <= SHORT and "\n" not in said:
        names = [said]
    return component | (
        {"licenses": [{"license": {"name": name}} for name in names]} if names else {}
    )


def debian_packages(root: Path) -> Iterator[Component]:
    """What dpkg has installed below this root; nothing where there is no dpkg."""
    status, release = root / "var/lib/dpkg/status", root / "etc/os-release"
    if not status.is_file():
        return
    system = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', release.read_text(), re.MULTILINE))
    distribution = f"{system['ID']}-{system['VERSION_ID']}"
    for paragraph in status.read_text().split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            name, version, arch = (fields[key] for key in ("Package", "Version", "Architecture"))
            escaped = version.replace(":", "%3A").replace("+", "%2B")
            url = f"pkg:deb/{system['ID']}/{name.replace('+', '%2B')}@{escaped}?arch={arch}&distro={distribution}"
            yield {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url}


def _python() -> Component:
    url = f"pkg:generic/python@{platform.python_version()}"
    return {
        "type": "platform",
        "bom-ref": url,
        "name": "python",
        "version": platform.python_version(),
        "purl": url,
    }


def _needs(distribution: Distribution) -> set[str]:
    """The names that it depends on, whatever for: those that are not installed are left out by who asks."""
    wanted = [line for line in distribution.requires or [] if not re.search(r"\bextra *==", line)]
    return {_normal(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in wanted}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    json.dump(main(Path(sys.argv[1] if len(sys.argv) > 1 else "/")), sys.stdout, indent=1)
    sys.stdout.write("\n")
