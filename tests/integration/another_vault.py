"""A program that is called `vault` and takes what HashiCorp's takes: OpenBao behind it.

It stands for HashiCorp's Vault where there is none, so that how the suite starts one is
held by a test. It refuses what that refuses: an audit device in the configuration, raft
without a word about mlock. To OpenBao it says what that wants said for an audit device that
comes by the API, and nothing of mlock.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from vaultauthz.demo.parts import binaries

VERSION: Final = "Vault v1.21.4"
_SCRIPT: Final = """\
#!/bin/sh -eu
if [ "$1" = version ]; then echo "VERSION (stands for HashiCorp's)"; exit; fi
if env | grep -q '^BAO_'; then echo "BAO_ variables mean nothing to Vault" >&2; exit 2; fi
if [ "$1" = server ]; then
    given="$3"
    if grep -q '^ *audit ' "$given"; then echo "an audit device is enabled by its API" >&2; exit 2; fi
    if ! grep -q '^disable_mlock = ' "$given"; then echo "disable_mlock must be configured" >&2; exit 2; fi
    grep -v '^disable_mlock' "$given" > "$given.bao"
    echo 'unsafe_allow_api_audit_creation = true' >> "$given.bao"
    exec BAO server -config "$given.bao"
fi
exec BAO "$@"
"""


def write(folder: Path) -> Path:
    """The program, in this folder."""
    path = folder / "vault"
    path.write_text(_SCRIPT.replace("VERSION", VERSION).replace("BAO ", f"{binaries.bao()} "))
    path.chmod(0o755)
    return path
