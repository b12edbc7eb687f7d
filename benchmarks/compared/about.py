"""When, where and with what it was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from compared.tools import version
from vaultauthz.demo.parts import binaries

_PACKAGES = ("vaultauthz", "grpcio", "pygrpc-native", "protobuf")


def about(command: str, pin: str) -> dict[str, Any]:
    """Facts that a reader needs to judge the figures by."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": command,
        "pin": pin,
        "machine": machine(),
        "versions": versions(),
    }


def machine() -> dict[str, Any]:
    """Processor, cores, memory, and how busy it is: above the cores' number, somebody else measures along."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    """Everything that took part."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    found |= {name: version(name) for name in ("wrk", "nginx", "h2load")}
    found["python"] = platform.python_version()
    found["envoy"] = _said([str(binaries.envoy()), "--version"], r"/(\d+\.\d+\.\d+)/")
    found["openbao"] = _said([str(binaries.bao()), "version"], r"v(\d+\.\d+\.\d+)")
    return found


def _said(argv: list[str], pattern: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    found = re.search(pattern, done.stdout)
    return found[1] if found else ""
