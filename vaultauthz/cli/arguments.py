"""What several commands share: arguments, the configuration, where it is printed."""

from __future__ import annotations

import argparse
import io
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Final, TypeAlias

from vaultauthz.config import Config, load
from vaultauthz.terminal import LOG_FORMATS, Output

log = logging.getLogger(__name__)

Parser = argparse.ArgumentParser
Options = argparse.Namespace
# In quotes: at run time it takes no parameter. argparse has no public name for it.
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001

_DEFAULT_CONFIG: Final = "vaultauthz.yaml"


def takes_config(parser: Parser) -> None:
    """``-c FILE``."""
    default = os.environ.get("VAULTAUTHZ_CONFIG", _DEFAULT_CONFIG)
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        default=Path(default),
        help=f"the configuration (default: $VAULTAUTHZ_CONFIG, else {_DEFAULT_CONFIG})",
    )


def takes_log(parser: Parser) -> None:
    """``--log-level L`` and ``--log-format F``."""
    parser.add_argument(
        "--log-level",
        default="info",
        choices=("debug", "info", "warning", "error"),
        help="what is logged to standard error; debug: each call to Vault, too (default: info)",
    )
    parser.add_argument(
        "--log-format",
        default="auto",
        choices=("auto", *LOG_FORMATS),
        help="auto (the default): text on a terminal, else JSON, an object on a line",
    )


def load_config(options: Options, *, elsewhere: bool = False) -> Config:
    """The configuration; ``elsewhere`` as for ``load``.

    Its warnings are told on standard error; a command that has a log (``takes_log``) has them there.
    """
    config = load(options.config, os.environ, elsewhere=elsewhere)
    for warning in config.warnings:
        if "log_format" in options:
            log.warning("%s", warning)
        else:
            print(f"warning: {warning}", file=sys.stderr)
    return config


def output(*, as_json: bool) -> Output:
    """To standard output, in the width of the terminal if it is one."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name that this terminal has no letters for
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return Output(sys.stdout, as_json=as_json, width=width)
