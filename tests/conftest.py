"""What every test run has: in CI a skipped test is a failed run."""

from __future__ import annotations

import os
import tempfile

import pytest

# What is kept of logins from one start to the next is not this machine's, nor another run's.
os.environ["RUNTIME_DIRECTORY"] = tempfile.mkdtemp(prefix="vaultauthz-tests-")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--forbid-skips", action="store_true", help="fail the run when a test was skipped (CI)"
    )


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not session.config.getoption("--forbid-skips"):
        return
    if reporter.stats.get("skipped") and exitstatus == pytest.ExitCode.OK:
        reporter.write_line("tests were skipped, which --forbid-skips does not allow", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
