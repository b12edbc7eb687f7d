"""The audit log of SDS mode from the file that a real Envoy writes."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
import requests

from tests.contract.jwt_issuer import Issuer
from tests.integration.als_bed import GAP, STAGE, AlsBed
from tests.integration.gateway_bed import TIMEOUT
from tests.integration.printed_bed import AUDIENCE, Certificates, PrintedBed, printed
from tests.integration.served import Login, Served
from vaultauthz.demo.parts import OpenBao, Postgres, wait_for
from vaultauthz.envoy.access_logs.history import SETTLE, SKEW

pytestmark = pytest.mark.integration

SETTLED = SETTLE + SKEW + 2.0  # seconds after a change, when nothing is in doubt any more
SECRET = "s3cr3t"
ALLOWED = "request.allowed"


@pytest.fixture(scope="module")
def bed(
    tmp_path_factory: pytest.TempPathFactory, bao: OpenBao, postgres: Postgres
) -> Iterator[AlsBed]:
    """A server and its Envoy, which has had its credential for a while."""
    with AlsBed(tmp_path_factory.mktemp("file"), bao, postgres, by_file=True) as made:
        assert wait_for(lambda: made.get("/injected")[0] == 200, TIMEOUT)
        time.sleep(SETTLED)
        yield made


def test_each_request_is_in_the_audit_once(bed: AlsBed) -> None:
    """As over gRPC: who, what, with which credential, and the answer; none of a query."""
    assert bed.get(f"/injected/a%22b?api_key={SECRET}")[0] == 200
    (line,) = bed.audited(ALLOWED, upstream="injected", path="/injected/a%22b")
    assert (line["stage"], line["gateway"], line["method"]) == (STAGE, "envoy", "GET")
    assert (line["decision"], line["status"], line["reason"]) == ("allowed", "200", "")
    assert line["credential_id"] == bed.credential_id("injected")
    assert line["host"].startswith("127.0.0.1")
    assert line["request_id"] in bed.injected.came
    for file in ("access.jsonl", "audit.jsonl"):
        text = (bed.folder / file).read_text()
        assert SECRET not in text
        assert bed.injected.key not in text


def test_what_envoy_refused_is_in_the_audit(bed: AlsBed) -> None:
    """Without a credential, or because of its rules for callers."""
    assert bed.get("/missing/x")[0] == 401
    assert bed.get("/injected/forbidden")[0] == 403
    (line,) = bed.audited("request.denied", upstream="missing")
    assert (line["reason"], line["status"]) == ("no_credential", "")
    (line,) = bed.audited("request.denied", upstream="injected")
    assert (line["stage"], line["reason"], line["credential_id"]) == (STAGE, "caller_denied", "")


def test_a_check_is_in_the_audit_once(bed: AlsBed) -> None:
    """With ext_authz the check wrote it down; neither log does it again."""
    assert bed.get("/keyed/once")[0] == 200
    assert bed.get("/injected/later")[0] == 200
    bed.audited(ALLOWED, path="/injected/later")
    assert len(bed.audit(path="/keyed/once")) == 1


def test_a_401_waits_for_no_file(bed: AlsBed) -> None:
    """It is told over gRPC as well: the credential is replaced, and the line is there once."""
    time.sleep(GAP)
    before = bed.credential_id("injected")
    bed.bao.put_kv("als/injected", {"api_key": "key-2"})
    bed.injected.key = "key-2"
    assert bed.get("/injected/refused")[0] == 401
    assert wait_for(lambda: bed.get("/injected/again")[0] == 200, TIMEOUT)
    assert bed.credential_id("injected") != before
    (line,) = bed.audited(ALLOWED, path="/injected/refused")
    assert line["status"] == "401"
    assert before in line["credential_id"] + line["reason"]  # in doubt, so near the change


class Load:
    """Requests from two threads while it is entered."""

    def __init__(self, bed: AlsBed, path: str) -> None:
        self.sent = 0
        self._bed, self._path = bed, path
        self._lock, self._end = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(2)]

    def _work(self) -> None:
        while not self._end.wait(0.002):
            assert self._bed.get(self._path)[0] in {200, 401}
            with self._lock:
                self.sent += 1

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def by_admin(bed: AlsBed) -> None:
    """Have Envoy open its logs anew: as a container's logrotate can."""
    assert requests.post(f"{bed.envoy.admin}/reopen_logs", timeout=TIMEOUT).ok


def by_signal(bed: AlsBed) -> None:
    """The same as systemd's logrotate does it."""
    assert bed.envoy.pid
    os.kill(bed.envoy.pid, signal.SIGUSR1)


@pytest.mark.parametrize(("reopen", "create"), [(by_admin, False), (by_signal, True)])
def test_rotations_under_load(bed: AlsBed, reopen: Callable[[AlsBed], None], create: bool) -> None:
    """Each request has one line, whether or not logrotate makes the new file."""
    log = bed.folder / "access.jsonl"
    path = f"/injected/{reopen.__name__}-{create}"
    with Load(bed, path) as load:
        for turn in range(3):
            time.sleep(0.3)
            log.rename(log.with_name(f"{log.name}.{turn}"))
            if create:
                log.touch()
            time.sleep(0.3)
            reopen(bed)
    sent = {name for name in bed.injected.came if name}
    assert wait_for(lambda: len(bed.audit(ALLOWED, path=path)) >= load.sent, TIMEOUT)
    lines = Counter(line["request_id"] for line in bed.audit(ALLOWED, path=path))
    assert lines.keys() <= sent
    assert (len(lines), set(lines.values())) == (load.sent, {1})


def test_each_line_names_the_version_that_was_sent(bed: AlsBed) -> None:
    """Under load, across a rotation of the credential: no line names another's."""
    ids = {bed.key("injected"): bed.credential_id("injected")}
    with Load(bed, "/injected/versions") as load:
        time.sleep(1)
        bed.bao.put_kv("als/injected", {"api_key": "key-3"})
        bed.service.engine.keeper.rotate("injected", STAGE)
        assert wait_for(lambda: bed.key("injected") == "key-3", TIMEOUT)
        bed.injected.key = "key-3"
        ids["key-3"] = bed.credential_id("injected")
        time.sleep(SETTLED)
    assert wait_for(
        lambda: len(bed.audit(ALLOWED, path="/injected/versions")) >= load.sent, TIMEOUT
    )
    certain = dict.fromkeys(ids, 0)
    for line in bed.audit(ALLOWED, path="/injected/versions"):
        key = bed.injected.came[line["request_id"]]
        if line["credential_id"]:
            assert line["credential_id"] == ids[key]
            certain[key] += 1
        else:
            assert ids[key] in line["reason"]
    assert all(certain.values()), certain


# --- as it is printed, and with a server that is killed ---

POLICY = 'path "file/*" { capabilities = ["read"] }'
CONFIG = """
upstreams:
  open:
    secret: {{kv: file/one}}
    inject: [{{header: {{name: X-Api-Key, value: "{{api_key}}"}}}}]
    callers: any
  ruled:
    secret: {{kv: file/one}}
    inject: [{{header: {{name: X-Api-Key, value: "{{api_key}}"}}}}]
    callers: [{{principal: "spiffe://*"}}, {{claims: {{scope: pay}}}}]
    callers_enforced_by: envoy
routes: [{{host: open.test, upstream: open}}, {{host: ruled.test, upstream: ruled}}]
audit: {{access_log: "{folder}/access.jsonl"}}
"""


@pytest.fixture(scope="module")
def served(bao: OpenBao, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that follows a log."""
    folder = tmp_path_factory.mktemp("served")
    bao.put_kv("file/one", {"api_key": "key-of-the-file"})
    login = Login(bao.address, *bao.enable_approle("file", POLICY))
    with Served(folder, login, CONFIG.format(folder=folder)) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Who signs the clients' certificates."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """Who issues the clients' tokens."""
    return Issuer("https://login.test/")


@pytest.fixture(scope="module")
def gateway(
    served: Served,
    certificates: Certificates,
    issuer: Issuer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[PrintedBed]:
    """An Envoy from what is printed for it."""
    status, text, err = printed(served.config, "--mode", "sds")
    assert (status, err) == (0, "")
    with PrintedBed(text, tmp_path_factory.mktemp("envoy"), certificates, issuer) as made:
        assert wait_for(lambda: made.secrets() == 2, TIMEOUT)
        yield made


def written(served: Served, path: str) -> None:
    """Wait until Envoy has written this request down."""
    log = served.folder / "access.jsonl"
    assert wait_for(lambda: log.exists() and f'"{path}"' in log.read_text(), TIMEOUT)


def test_callers_are_as_in_a_check(
    served: Served, gateway: PrintedBed, certificates: Certificates, issuer: Issuer
) -> None:
    """The certificate's first URI, whatever it holds, else a DNS name, else the subject; a token's subject."""
    names: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
        "spiffe://corp/a": ("x", ("spiffe://corp/a", "spiffe://corp/b"), ("one.test",)),
        "spiffe://corp/a,spiffe://corp/b": ("x", ("spiffe://corp/a,spiffe://corp/b",), ()),
        "one.test": ("x", (), ("one.test", "two.test")),
        'CN=the \\"subject\\"': ('the "subject"', (), ()),
    }
    for number, (caller, about) in enumerate(names.items()):
        pair = certificates.client(f"caller-{number}", *about)
        assert gateway.send("open.test", f"/{number}", certificate=pair).status == 200
        assert served.audited(ALLOWED, path=f"/{number}")["caller"] == caller
    bearer = [("Authorization", f"Bearer {issuer.token('alice', AUDIENCE, scope='pay')}")]
    assert gateway.send("ruled.test", "/token", headers=bearer).status == 200
    assert served.audited(ALLOWED, path="/token")["caller"] == "alice"
    assert gateway.send("ruled.test", "/denied").status == 403
    assert served.audited("request.denied", path="/denied")["reason"] == "caller_denied"


def test_a_server_that_is_killed_misses_nothing(served: Served, gateway: PrintedBed) -> None:
    """Envoy goes on alone and writes; the next server reads all of that, and little twice."""
    paths = []
    for turn in range(3):
        paths += [f"/killed-{turn}-{number}" for number in range(20)]
        for path in paths[-20:]:
            assert gateway.send("open.test", path).status == 200
        written(served, paths[-1])
        if turn == 1:
            log = served.folder / "access.jsonl"
            log.rename(log.with_name("access.jsonl.1"))
            gateway.reopen_logs()
        if turn == 0:
            served.audited(ALLOWED, path=paths[-1])
            served.process.kill()
    served.start()
    served.wait_ready()
    served.audited(ALLOWED, path=paths[-1])
    found = Counter(line["path"] for line in served.audit(ALLOWED))
    assert not [path for path in paths if path not in found]
    assert found[paths[-1]] == 1
    away = served.audited(ALLOWED, path=paths[30])
    assert (away["credential_id"], away["reason"]) == ("", "credential not known")
    kept = json.loads((served.folder / "access.jsonl.position").read_text())
    assert kept["offset"] > 0


def test_it_ends_in_time(served: Served, gateway: PrintedBed) -> None:
    """And what is in the file by then is in the audit log, with the position behind it."""
    assert gateway.send("open.test", "/at-the-end").status == 200
    written(served, "/at-the-end")
    served.ask(signal.SIGTERM)
    assert served.ended() == 0
    assert [line["path"] for line in served.audit(path="/at-the-end")] == ["/at-the-end"]
    log: Path = served.folder / "access.jsonl"
    kept = json.loads(log.with_name("access.jsonl.position").read_text())
    assert kept["offset"] == log.stat().st_size
