"""What deploy/kubernetes gives to Envoy and to vaultauthz, to the real ones, without a cluster."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.certificates import Authority
from tests.contract.fake_vault import FakeVault
from tests.contract.running import fake
from tests.integration.boxes import Box, Network, permitted
from tests.integration.test_readonly_root import ASK, SERVICE
from tests.patience import PATIENCE
from tests.unit.deploy.kustomize import KUBERNETES, Document, build, one
from tests.unit.deploy.test_kubernetes import containers, pod_of
from vaultauthz.demo.parts import binaries, wait_for

REASON = permitted()
TOKEN = "what-the-kubelet-wrote"
# A probe as kubelet makes it: whoever the certificate is for.
PROBE = """
import ssl, sys, urllib.request
context = ssl._create_unverified_context()
print(urllib.request.urlopen(sys.argv[1], timeout=5, context=context).status)
"""
pytestmark = pytest.mark.integration


def test_envoy_takes_the_sidecar_s_configuration(tmp_path: Path) -> None:
    """deploy/kubernetes/sidecar/envoy.yaml passes Envoy's validation, with an authority where one is mounted."""
    text = (KUBERNETES / "sidecar" / "envoy.yaml").read_text()
    assert text.count("/run/services-ca/ca.crt") == 1
    file = tmp_path / "envoy.yaml"
    file.write_text(text.replace("/run/services-ca/ca.crt", str(Authority(tmp_path).ca)))
    argv = [str(binaries.envoy()), "--mode", "validate", "-c", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def volume(folder: Path, source: Document, vault: FakeVault, objects: list[Document]) -> None:
    """A pod's volume as the kubelet lays it out: of the pod's group, and files not for others."""
    folder.mkdir()
    os.chown(folder, 0, 10001)
    if "emptyDir" in source:
        folder.chmod(0o2777)
        return
    folder.chmod(0o2755)
    authority = Authority(folder.parent)
    pair = authority.issue("vaultauthz.gateway.svc")
    contents = {"token": TOKEN, "ca.crt": authority.ca.read_text()}
    if "configMap" in source and source["configMap"]["name"] == "vaultauthz":
        text = one(objects, "ConfigMap", "vaultauthz")["data"]["vaultauthz.yaml"]
        contents = {
            "vaultauthz.yaml": re.sub(r"address: \S+\n  tls: .*", f"address: {vault.address}", text)
        }
    elif source.get("secret", {}).get("secretName") == "vaultauthz-tls":
        contents |= {"tls.crt": pair.cert.read_text(), "tls.key": pair.key.read_text()}
    for name, text in contents.items():
        (folder / name).write_text(text)
        os.chown(folder / name, 0, 10001)
        (folder / name).chmod(0o444 if "configMap" in source else 0o440)


@pytest.fixture(params=["sidecar", "gateway"])
def pod(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Box, Document]]:
    """The container, with its arguments, user and mounts, beside a Vault; and what is said of it."""
    objects = build(KUBERNETES / request.param)
    container = containers(pod_of(objects))["vaultauthz"]
    volumes = {v["name"]: v for v in pod_of(objects)["volumes"]}
    with contextlib.ExitStack() as stack:
        network = Network()
        stack.callback(network.close)
        vault = network.within(lambda: stack.enter_context(fake()))
        vault.set_approle("vaultauthz", TOKEN, mount="kubernetes")
        vault.set_creds("database/creds/payments")
        vault.put_kv("secret/geocoder", {"api_key": "the-key"})
        mounts: list[dict[str, Any]] = []
        for mount in container["volumeMounts"]:
            volume(tmp_path / mount["name"], volumes[mount["name"]], vault, objects)
            made = {"type": "volume", "source": mount["name"], "target": mount["mountPath"]}
            mounts.append({**made, "read_only": mount.get("readOnly", False)})
        service = {
            **SERVICE,
            "user": "10001:10001",
            "command": container["args"],
            "volumes": mounts,
        }
        box = Box(tmp_path / "box", tmp_path, "pod", network, service)
        stack.callback(lambda: box.running and box.signal(signal.SIGKILL))
        yield box, container


@pytest.mark.skipif(bool(REASON), reason=REASON)
def test_the_pod_s_mounts_are_all_that_it_needs(pod: tuple[Box, Document], tmp_path: Path) -> None:
    """It becomes ready by its probes on a read-only root, is asked, and ends with everything revoked."""
    box, container = pod
    box.start()

    def probed(kind: str) -> bool:
        path = container[f"{kind}Probe"]["httpGet"]["path"]
        return box.execute("python", "-c", PROBE, f"https://127.0.0.1:9001{path}").returncode == 0

    wait_for(lambda: not box.running or probed("startup"), PATIENCE)
    assert box.running, box.tail
    assert probed("readiness")
    assert probed("liveness")
    listed = box.execute("vaultauthz", "leases", "-c", "/etc/vaultauthz/vaultauthz.yaml")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    if "grpc" not in [
        port["name"] for port in container["ports"]
    ]:  # a socket: Envoy, by the pod's group
        ask = re.sub(r'"(production/)?geo"', r'"\1geocoder"', ASK)
        asked = box.execute("python", "-c", ask, "unix:/run/vaultauthz/grpc.sock", user="101:10001")
        assert asked.returncode == 0, asked.stderr + box.tail
        others = box.execute("python", "-c", ask, "unix:/run/vaultauthz/grpc.sock", user="101:101")
        assert others.returncode != 0
    assert box.signal(signal.SIGTERM) == 0, box.tail
    assert "error" not in box.log.read_text().lower()
    assert not list((tmp_path / "run").iterdir())
