"""What every test run has: in CI a skipped test is a failed run, and examples are the same each time.

``--hypothesis-profile thorough --timeout 0``: many more examples, after a change to the core.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import pytest
from hypothesis import HealthCheck, settings

# A slow machine is no failure: no deadline for an example, nor for drawing them.
settings.register_profile(
    "random", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fixed", settings.get_profile("random"), derandomize=True)
settings.register_profile("thorough", settings.get_profile("random"), max_examples=5000)
settings.load_profile("fixed" if os.environ.get("CI") else "random")

# What is kept of logins from one start to the next is not this machine's, nor another run's: each
# worker of pytest-xdist has a process, and a folder, of its own. See also ``records_of_its_own``.
RECORDS = tempfile.mkdtemp(prefix="vaultauthz-tests-")
os.environ["RUNTIME_DIRECTORY"] = RECORDS
atexit.register(shutil.rmtree, RECORDS, ignore_errors=True)


@pytest.fixture(autouse=True)
def records_of_its_own() -> None:
    """No test's wrong logins count for a later one whose Vault has come by the same port."""
    os.environ["RUNTIME_DIRECTORY"] = tempfile.mkdtemp(dir=RECORDS)


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
