"""Which process is Kong, and whether it is still there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vaultauthz.kong.processes import WatchedProcess, began_at, master_of, parent_of

MASTER = b"nginx: master process /usr/local/openresty/nginx/sbin/nginx -p /usr/local/kong\0"
WORKER = b"nginx: worker process\0"


def proc(folder: Path, **named: tuple[int, bytes]) -> Path:
    """A /proc of processes ``pN``: the parent and the arguments of each."""
    for name, (parent, arguments) in named.items():
        place = folder / name[1:]
        place.mkdir()
        rest = " ".join(["0"] * 17)
        place.joinpath("stat").write_text(f"{name[1:]} (a) (b) S {parent} {rest} 77{name[1:]} 0 0")
        place.joinpath("cmdline").write_bytes(arguments)
    return folder


@pytest.mark.parametrize(
    ("tree", "master"),
    [
        ({"p9": (5, WORKER), "p5": (1, MASTER), "p1": (0, b"init\0")}, 5),
        ({"p9": (1, WORKER), "p1": (0, MASTER)}, 1),  # a container's first process
        ({"p9": (8, b"sudo\0"), "p8": (7, WORKER), "p7": (1, MASTER)}, 7),
        ({"p9": (5, b"python\0"), "p5": (1, b"pytest\0")}, 0),  # nobody says that it is Kong
        ({"p9": (1, WORKER), "p1": (0, b"init\0")}, 0),  # its master was killed
        ({"p9": (5, WORKER)}, 0),  # another user's is hidden
        ({}, 0),
    ],
)
def test_kongs_master(tmp_path: Path, tree: dict[str, tuple[int, bytes]], master: int) -> None:
    """By what nginx says that it is, and by nothing else."""
    assert master_of(9, proc(tmp_path, **tree)) == master


def test_a_stat_line(tmp_path: Path) -> None:
    """A name may hold brackets and spaces; what has ended has begun at no time."""
    place = proc(tmp_path, p9=(5, b""))
    assert (parent_of(9, place), began_at(9, place)) == (5, "779")
    assert (parent_of(4, place), began_at(4, place)) == (0, "")
    stat = place / "9" / "stat"
    stat.write_text(stat.read_text().replace(") S ", ") Z "))
    assert began_at(9, place) == ""


@pytest.fixture(params=["pidfd", "without"])
def _held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a descriptor of the process, and where the system has none."""
    if request.param == "without":

        def refused(_pid: int) -> int:
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(os, "pidfd_open", refused, raising=False)


@pytest.mark.usefixtures("_held")
class TestProcess:
    def test_it_ends(self) -> None:
        """Also before anybody has waited for it."""
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            process = WatchedProcess(child.pid)
            before = process.gone
            child.kill()
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            assert (before, process.gone) == (False, True)
            process.close()

    def test_another_of_its_number(self) -> None:
        """Is not it."""
        assert WatchedProcess(os.getpid(), "12345").gone
        assert not WatchedProcess(os.getpid(), began_at(os.getpid())).gone
        assert not WatchedProcess(os.getpid(), "").gone

    def test_one_that_was_gone_before(self) -> None:
        """Is gone."""
        with subprocess.Popen([sys.executable, "-c", ""]) as child:
            child.wait()
        assert WatchedProcess(child.pid).gone
