"""Debian's programs that the comparison needs: found, or installed, or asked for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable

PACKAGES = {"wrk": "wrk", "nginx": "nginx", "h2load": "nghttp2-client"}
# Debian's nginx would start a server on port 80; a policy-rc.d, if there is none yet, says no.
_INSTALL = """
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\\nexit 101\\n' > $policy && chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || true
apt-get install -qq -y --no-install-recommends "$@"
"""
_VERSIONS = {
    "wrk": (["wrk", "-v"], r"wrk (?:debian/)?([\d.]+)"),
    "nginx": (["nginx", "-v"], r"nginx/([\w.]+)"),
    "h2load": (["h2load", "--version"], r"nghttp2/([\w.]+)"),
}
# nginx is in sbin, which an ordinary user's PATH leaves out.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


class MissingError(Exception):
    """A program is not there and cannot be installed; the message says how to."""


def ensure(names: Iterable[str]) -> None:
    """Have these programs on PATH: install what is missing if we may.

    Raises:
        MissingError: we may not, or it did not work.
    """
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), *_SBIN])
    missing = absent(names)
    if not missing:
        return
    packages = [PACKAGES[name] for name in missing]
    by_hand = f"{' and '.join(missing)} missing; run: apt-get install {' '.join(packages)}"
    rights = _rights()
    if rights is None or shutil.which("apt-get") is None:
        raise MissingError(by_hand)
    print(f"Installing {', '.join(packages)} with apt-get ...", flush=True)
    argv = [*rights, "sh", "-c", _INSTALL, "sh", *packages]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    if absent(missing):
        raise MissingError(f"{by_hand}\n{done.stderr.strip()}")


def absent(names: Iterable[str]) -> list[str]:
    """Those that are not on PATH."""
    return [name for name in names if shutil.which(name) is None]


def _rights() -> list[str] | None:
    """What to put before a command that needs root; None if we have no way to be root."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo is None:
        return None
    asked = subprocess.run([sudo, "-n", "true"], capture_output=True, check=False, timeout=10)
    return [sudo, "-n"] if asked.returncode == 0 else None


def version(name: str) -> str:
    """What the program says its version is; "" if it does not."""
    argv, pattern = _VERSIONS[name]
    if shutil.which(name) is None:
        return ""
    said = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
    found = re.search(pattern, said.stdout + said.stderr)
    return found[1] if found else ""
