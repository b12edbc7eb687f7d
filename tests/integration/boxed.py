"""Makes a root file system as a container's, in a mount namespace that is ours, and becomes a program in it.

Run as root, first in new namespaces for mounts and processes: `python -I -S boxed.py SPEC`, a file of JSON
with the fields of `boxes.Spec`. What a container engine does is done as one does it: the places that are
declared are writable, the rest is not, if the root is read-only; a new volume gets owner and mode of
the folder of the image that it is mounted over; then the user changes, without capabilities.
"""

import ctypes
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
DEVICES = ("null", "zero", "full", "random", "urandom")
C = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, kind: str = "none", flags: int = 0, options: str = "") -> None:
    """The system call. Raises OSError."""
    done = C.mount(source.encode(), bytes(target), kind.encode(), flags, options.encode())
    if done != 0:
        raise OSError(ctypes.get_errno(), f"mount {source} at {target}")


def bind(source: str, target: Path, *, read_only: bool) -> None:
    """The file or folder there as well."""
    mount(source, target, flags=MS_BIND | MS_REC)
    if read_only:
        mount(source, target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def within(root: Path, place: str) -> Path:
    """Where a place of the box is now, with the folders above it."""
    found = root / place.lstrip("/")
    found.parent.mkdir(parents=True, exist_ok=True)
    return found


def system(root: Path, spec: dict[str, Any]) -> None:
    """What is in every image here: this machine's programs and libraries, read-only, and a few files of /etc."""
    for place in spec["shared"]:
        here = Path(place)
        found = within(root, place)
        if here.is_symlink():
            found.symlink_to(here.readlink())
        elif here.exists():
            found.mkdir(exist_ok=True)
            bind(place, found, read_only=True)
    for place, target in spec["links"].items():
        within(root, place).symlink_to(target)
    for place, text in spec["files"].items():
        within(root, place).write_text(text)
    for place, (uid, gid, mode) in spec["folders"].items():
        found = within(root, place)
        found.mkdir(exist_ok=True)
        os.chown(found, uid, gid)
        found.chmod(mode)


def kernel(root: Path) -> None:
    """/proc, /dev and /dev/shm, as engines make them."""
    within(root, "/proc").mkdir()
    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    within(root, "/dev").mkdir()
    for name in DEVICES:
        (root / "dev" / name).touch()
        bind(f"/dev/{name}", root / "dev" / name, read_only=False)
    for name, number in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        (root / "dev" / name).symlink_to(f"/proc/self/fd{number}")
    (root / "dev" / "shm").mkdir()
    tmpfs(root / "dev" / "shm", "size=64m")


def tmpfs(place: Path, options: str) -> None:
    """With what an engine adds: everybody's, unless the options say otherwise, and no programs in it."""
    mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, f"mode=1777,{options}")


def declared(root: Path, spec: dict[str, Any]) -> None:
    """The volumes, bound files and tmpfs of the service."""
    for source, target, read_only in spec["binds"]:
        found = within(root, target)
        found.touch()
        bind(source, found, read_only=read_only)
    for source, target, read_only in spec["volumes"]:
        over, volume = within(root, target), Path(source)
        over.mkdir(exist_ok=True)
        if not volume.exists():
            volume.mkdir(parents=True)
            image = over.stat()
            os.chown(volume, image.st_uid, image.st_gid)
            volume.chmod(stat.S_IMODE(image.st_mode))
        bind(source, over, read_only=read_only)
    for target, options in spec["tmpfs"]:
        found = within(root, target)
        found.mkdir(exist_ok=True)
        tmpfs(found, options)
        for place in spec["shared"]:
            # Where this checkout is below the place, its programs are in the image all the same.
            if Path(place).is_relative_to(target) and not Path(place).is_symlink():
                again = within(root, place)
                again.mkdir()
                bind(place, again, read_only=True)


def main() -> None:
    """Make it, then be replaced by the program."""
    spec = json.loads(Path(sys.argv[1]).read_text())
    root = Path(spec["root"])
    os.umask(0o022)
    mount("none", Path("/"), flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", options="mode=0755")
    system(root, spec)
    kernel(root)
    declared(root, spec)
    if spec["read_only"]:
        mount("tmpfs", root, flags=MS_REMOUNT | MS_RDONLY)
    os.chroot(root)
    os.chdir("/")
    os.execve("/usr/bin/setpriv", [*spec["become"], *spec["argv"]], spec["env"])


if __name__ == "__main__":
    main()
