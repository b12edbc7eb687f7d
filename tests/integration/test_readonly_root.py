"""Every command of the image on a read-only root, as a user that the image does not know, with no HOME."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.fake_vault import FakeVault
from tests.contract.running import approle, fake, kv
from tests.integration.boxes import PATH, Box, Network, permitted
from tests.patience import PATIENCE
from vaultauthz.demo.parts import wait_for

REASON = permitted()
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(REASON), reason=REASON),
]

USER = 12345  # as OpenShift and `runAsUser` give one
RUN, ADMIN, ETC = "/run/vaultauthz", "/run/admin", "/etc/vaultauthz"
CONFIG = f"{ETC}/vaultauthz.yaml"
SERVICE: dict[str, Any] = {
    "build": {"target": "vaultauthz"},
    "user": f"{USER}:{USER}",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}
# What Envoy asks: a check, and a stream that the server behind the native transport serves.
ASK = """
import queue, sys, grpc
from vaultauthz._pb.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from vaultauthz._pb.ext_authz_pb2 import CheckRequest, CheckResponse
request = CheckRequest()
http = request.attributes.request.http
http.method, http.id, http.path = b"GET", "1", b"/"
request.attributes.context_extensions["upstream"] = "geo"
call = DiscoveryRequest(type_url="type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret")
call.node.id = "e"
call.resource_names.append("production/geo")
out = queue.SimpleQueue()
out.put(call.SerializeToString())
with grpc.insecure_channel(sys.argv[1]) as channel:
    check = channel.unary_unary("/envoy.service.auth.v3.Authorization/Check", bytes, bytes)
    answer = CheckResponse.FromString(check(request.SerializeToString(), timeout=30))
    assert answer.HasField("ok_response"), answer
    stream = channel.stream_stream(
        "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets", bytes, bytes)
    first = next(stream(iter(out.get, None), timeout=30))
    out.put(None)
    assert len(DiscoveryResponse.FromString(first).resources) == 1
"""


class Bed:
    """A fake Vault in a network of its own, and boxes that see it."""

    def __init__(self, folder: Path, network: Network, vault: FakeVault) -> None:
        self._folder = folder
        self._network = network
        self._vault = vault
        self._boxes: list[Box] = []
        self._volume("etc")

    def configure(self, grpc: str, **more: Any) -> None:
        """Write the configuration; `more` are top-level keys."""
        document = {
            "vault": {"address": self._vault.address},
            "stages": {"production": approle()},
            "upstreams": {"geo": kv("geo")},
            "routes": [{"host": "geo.test", "upstream": "geo"}],
            "listen": {"grpc": grpc, "admin": f"unix://{ADMIN}/admin.sock"},
            **more,
        }
        path = self._folder / "etc" / "vaultauthz.yaml"
        path.touch(0o600)
        os.chown(path, USER, USER)
        path.write_text(yaml.safe_dump(document))

    def box(self, name: str, writable: tuple[str, ...] = (), **service: Any) -> Box:
        """One in which only these places can be written, and /dev/shm, which engines make."""
        volumes = [{"type": "volume", "source": "etc", "target": ETC, "read_only": True}]
        for place in writable:
            self._volume(place.rpartition("/")[2])
            source = place.rpartition("/")[2]
            volumes.append({"type": "volume", "source": source, "target": place})
        made = {**SERVICE, "volumes": volumes, **service}
        box = Box(self._folder / name, self._folder, name, self._network, made)
        self._boxes.append(box)
        return box

    def close(self) -> None:
        """Kill what runs."""
        for box in self._boxes:
            if box.running:
                box.signal(signal.SIGKILL)

    def _volume(self, name: str) -> None:
        folder = self._folder / name
        folder.mkdir(exist_ok=True, mode=0o750)
        os.chown(folder, USER, USER)


def bare(*words: str) -> list[str]:
    """The command with no variable but PATH: no HOME, no TMPDIR, no RUNTIME_DIRECTORY."""
    return ["/usr/bin/env", "-i", f"PATH={PATH}", "vaultauthz", *words]


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    """With the key of `geo` in its Vault."""
    with contextlib.ExitStack() as stack:
        network = Network()
        stack.callback(network.close)
        vault = network.within(lambda: stack.enter_context(fake()))
        vault.put_kv("secret/geo", {"key": "the-key"})
        made = Bed(tmp_path, network, vault)
        stack.callback(made.close)
        yield made


def served(box: Box, target: str) -> None:
    """Wait for the credential, then ask from inside."""
    page = ["python", "/opt/vaultauthz/healthcheck.py", f"{ADMIN}/admin.sock", "/readyz"]
    ready: Callable[[], bool] = lambda: box.execute(*page).returncode == 0  # noqa: E731
    wait_for(lambda: not box.running or ready(), PATIENCE)
    assert box.running, box.tail
    asked = box.execute("python", "-c", ASK, target)
    assert asked.returncode == 0, asked.stderr + box.tail


class TestServe:
    def test_on_a_socket(self, bed: Bed, tmp_path: Path) -> None:
        """Only its folders can be written; kill -9 and again; at the end nothing is left in them."""
        bed.configure(f"unix://{RUN}/grpc.sock")
        box = bed.box("serve", (RUN, ADMIN))
        for _ in range(2):
            box.start(bare("serve", "-c", CONFIG))
            served(box, f"unix:{RUN}/grpc.sock")
            box.signal(signal.SIGKILL)
            for left in (tmp_path / "vaultauthz").iterdir():
                os.utime(left, (1, 1))  # as old as what a server that starts can not have made
        box.start(bare("serve", "-c", CONFIG))
        served(box, f"unix:{RUN}/grpc.sock")
        assert box.signal(signal.SIGTERM) == 0, box.tail
        assert not [*(tmp_path / "vaultauthz").iterdir(), *(tmp_path / "admin").iterdir()]

    def test_on_a_port(self, bed: Bed) -> None:
        """Nothing at all can be written but the admin socket's folder."""
        bed.configure("127.0.0.1:9191")
        box = bed.box("serve", (ADMIN,))
        box.start(bare("serve", "-c", CONFIG))
        served(box, "127.0.0.1:9191")

    def test_without_a_place_for_its_socket(self, bed: Bed) -> None:
        """That is told, with the folder."""
        bed.configure(f"unix://{RUN}/grpc.sock")
        box = bed.box("serve", (ADMIN,))
        box.start(bare("serve", "-c", CONFIG))
        assert box.ended() == 2
        assert f"no permission to create a socket in {RUN}" in box.tail
        assert "Traceback" not in box.tail

    def test_for_kong(self, bed: Bed) -> None:
        """Kong's plugin server wants its socket's folder and no more."""
        bed.configure(f"unix://{RUN}/grpc.sock")
        box = bed.box("kong", (RUN, ADMIN))
        box.start(bare("kong", "serve", "-c", CONFIG, "--socket", f"{RUN}/kong.sock"))
        page = ["python", "/opt/vaultauthz/healthcheck.py", f"{ADMIN}/admin.sock", "/readyz"]
        wait_for(lambda: not box.running or box.execute(*page).returncode == 0, PATIENCE)
        assert box.execute(*page).returncode == 0, box.tail
        assert box.execute("test", "-S", f"{RUN}/kong.sock").returncode == 0

    def test_the_admin_commands(self, bed: Bed) -> None:
        """Whoever runs them in the container."""
        bed.configure(f"unix://{RUN}/grpc.sock")
        box = bed.box("serve", (RUN, ADMIN))
        box.start(bare("serve", "-c", CONFIG))
        served(box, f"unix:{RUN}/grpc.sock")
        for words in (["leases"], ["rotate", "geo"], ["revoke", "geo"]):
            done = box.execute(*bare(*words, "-c", CONFIG))
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["config", "check", "-c", CONFIG],
        ["config", "schema"],
        ["doctor", "-c", CONFIG],
        ["policy", "-c", CONFIG],
        ["explain", "-c", CONFIG, "https://geo.test/"],
        ["envoy", "-c", CONFIG],
        ["envoy", "-c", CONFIG, "--mode", "sds"],
        ["kong", "config", "-c", CONFIG],
        ["kong", "dump"],
        ["audit", "verify", CONFIG],
        ["audit", "report", "-c", CONFIG],
    ],
    ids=" ".join,
)
def test_what_only_looks_writes_nothing(bed: Bed, words: list[str]) -> None:
    """It does what it does elsewhere: nothing can be written here at all."""
    bed.configure(f"unix://{RUN}/grpc.sock")
    box = bed.box("look")
    box.start(bare(*words))
    status = box.ended()
    elsewhere = bed.box("elsewhere", (RUN, ADMIN), read_only=False, tmpfs=["/tmp"])
    elsewhere.start(["/usr/bin/env", f"HOME={RUN}", "vaultauthz", *words])
    assert status == elsewhere.ended(), box.tail
    assert "Traceback" not in box.log.read_text()
    if words[0] not in {"doctor", "config"}:  # which have times and places in what they print
        assert box.log.read_text() == elsewhere.log.read_text()
