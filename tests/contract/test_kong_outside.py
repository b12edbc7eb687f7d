"""A server that Kong does not start: what `kong config --outside` prints, at work in a Kong without Python."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.kong import Kong, Server, Settings, Verdict
from tests.contract.kong_bed import audit, config, inject, routes
from tests.contract.running import approle, fake
from tests.patience import PATIENCE
from vaultauthz import kong_config
from vaultauthz.kong import door as kong_door
from vaultauthz.kong import gate, registration
from vaultauthz.kong import stock as kong_stock

SECRET = "s3cr3t-id"  # of `approle`
FORMS = ("conf", "env", "helm")
ROOT = os.geteuid() == 0
# A number that no group of this machine has a name for, as in Kubernetes; ours where we may give no other.
GROUP = 10001 if ROOT else os.getgid()
AS_ROOT = pytest.mark.skipif(not ROOT, reason="only root can be others")


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A Vault with a key."""
    with fake() as running:
        running.put_kv("secret/one", {"key": "one-1"})
        yield running


@pytest.fixture
def path(tmp_path: Path, vault: FakeVault) -> Path:
    """The configuration, with a secret in it."""
    pay = inject("one", {"bearer": "{key}"})
    return config(vault, tmp_path, {"pay": pay}, stages={"production": approle(SECRET)})


def ours(*words: str, become: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A command of ours that ends by itself; by way of ``become``, if any."""
    return subprocess.run(
        [*become, sys.executable, "-m", "vaultauthz", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def printed(path: Path, form: str, *options: str) -> str:
    """What is printed in this form."""
    done = ours("kong", "config", "--outside", "--format", form, "-c", str(path), *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def settings(text: str, form: str) -> dict[str, str]:
    """Kong's settings, as Kong and the chart read them: name in kong.conf to value."""
    if form == "helm":
        env: dict[str, str] = yaml.safe_load(text)["env"]
        return env
    lines = text.partition("# --- kong.yml")[0].splitlines()
    pairs = [line.partition(" = " if form == "conf" else "=") for line in lines if line[:1] != "#"]
    return {name.lower().removeprefix("kong_"): value for name, _, value in pairs if name}


def kong_yml(text: str, form: str) -> Any:
    """Kong's declarative configuration."""
    if form == "helm":
        return yaml.safe_load(yaml.safe_load(text)["dblessConfig"]["config"])
    return yaml.safe_load(text.partition("# --- kong.yml")[2].partition("\n")[2])


@pytest.mark.parametrize("form", FORMS)
def test_it_parses_and_has_no_secret(path: Path, form: str) -> None:
    """The same settings and the same routes in every form; Kong starts nothing, and runs /bin/cat."""
    text = printed(path, form)
    assert SECRET not in text
    found = settings(text, form)
    assert found == {
        "plugins": f"bundled,{registration.NAME}",
        "pluginserver_names": "vaultauthz",
        "pluginserver_vaultauthz_socket": "/run/vaultauthz/kong.sock",
        "pluginserver_vaultauthz_query_cmd": "/bin/cat /run/vaultauthz/vault-authz.json",
        "nginx_proxy_lua_socket_read_timeout": f"{kong_config.READ_TIMEOUT}s",
    }
    (service,) = kong_yml(text, form)["services"]
    (plugin,) = service["routes"][0]["plugins"]
    assert plugin == {
        "name": registration.NAME,
        "config": {"upstream": "pay", "stage": "production"},
    }


@pytest.mark.parametrize("options", [(), ("--stock",)])
def test_kong_that_starts_the_server_by_variables(path: Path, options: Sequence[str]) -> None:
    """The same settings as in kong.conf."""
    conf, env = (
        ours("kong", "config", "-c", str(path), "--format", form, *options).stdout
        for form in ("conf", "env")
    )
    assert "pluginserver_vaultauthz_start_cmd" in settings(conf, "conf")
    assert settings(env, "env") == settings(conf, "conf")


def test_a_place_with_odd_letters(tmp_path: Path, path: Path) -> None:
    """What Kong takes for a comment is escaped in its file, and nowhere else."""
    folder = tmp_path / "a #1 place"
    for form in FORMS:
        text = printed(path, form, "--socket", str(folder / "k.sock"))
        there = str(folder / "k.sock").replace("#", r"\#" if form == "conf" else "#")
        assert settings(text, form)["pluginserver_vaultauthz_socket"] == there


REFUSED = [
    (("--outside", "--stock"), "--stock is for a server that Kong starts"),
    (("--format", "helm", "--stock"), "--stock is for a server that Kong starts"),
    (("--format", "helm", "--group", "kong"), "Kubernetes has numbers only"),
]


@pytest.mark.parametrize(("options", "why"), REFUSED)
def test_what_does_not_go_together(path: Path, options: Sequence[str], why: str) -> None:
    """Is said, and nothing is printed."""
    done = ours("kong", "config", "-c", str(path), *options)
    assert (done.returncode, done.stdout, why in done.stderr) == (2, "", True)


@pytest.mark.parametrize("place", ["/usr/local/kong/k.sock", "/kong_prefix/sockets/k.sock"])
def test_a_socket_that_kong_would_delete(path: Path, place: str) -> None:
    """A warning, and status 1."""
    done = ours("kong", "config", "--outside", "-c", str(path), "--socket", place)
    assert (done.returncode, "deletes every socket" in done.stderr) == (1, True)
    assert "deletes every socket" not in ours("kong", "config", "-c", str(path)).stderr


class Pod:
    """What the chart makes of the printed values, with this machine's folders in place of the pod's."""

    def __init__(self, path: Path, folder: Path, *options: str) -> None:
        folder.mkdir()
        options = ("--socket", str(folder / "kong.sock"), "--group", str(GROUP), *options)
        self.values: dict[str, Any] = yaml.safe_load(printed(path, "helm", *options))
        self.deployment: dict[str, Any] = self.values["deployment"]
        (self.init,) = self.deployment["initContainers"]
        (self.sidecar,) = self.deployment["sidecarContainers"]
        self.path = path
        env = self.values["env"]
        self.socket = Path(env["pluginserver_vaultauthz_socket"])
        self.query = str(env["pluginserver_vaultauthz_query_cmd"])

    def words(self, container: dict[str, Any]) -> list[str]:
        """The container's command, here."""
        program, *words = container["command"]
        assert program == "vaultauthz"
        inside = "/etc/vaultauthz/vaultauthz.yaml"
        here = [str(self.path) if word == inside else word for word in words]
        return [sys.executable, "-m", "vaultauthz", *here]

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """The init container has run, the sidecar runs."""
        subprocess.run(self.words(self.init), check=True, timeout=PATIENCE)
        with subprocess.Popen(self.words(self.sidecar), stdout=subprocess.DEVNULL) as server:
            try:
                # The socket is there before signals are heard.
                assert wait_until(lambda: bool(audit(self.path.parent, "login")))
                yield server
            finally:
                server.send_signal(signal.SIGCONT)
                server.terminate()
                assert server.wait(PATIENCE) == 0

    def kong(self, timeout: float = PATIENCE) -> Kong:
        """A Kong that starts nothing."""
        return Kong(Server(self.socket, self.query), routes(["pay"]), settings=Settings(timeout))


@pytest.fixture
def pod(tmp_path: Path, path: Path) -> Pod:
    """The printed pod."""
    return Pod(path, tmp_path / "run")


class TestTheChart:
    def test_its_keys_are_the_charts(self, pod: Pod) -> None:
        """Those of kong/kong's values.yaml, and of a Pod's containers: Helm ignores others without a word."""
        wanted = {
            "env",
            "deployment",
            "securityContext",
            "terminationGracePeriodSeconds",
            "dblessConfig",
        }
        assert set(pod.values) == wanted
        assert set(pod.deployment) == {
            "initContainers",
            "sidecarContainers",
            "userDefinedVolumes",
            "userDefinedVolumeMounts",
        }
        known = {"name", "image", "command", "securityContext", "volumeMounts"}
        assert set(pod.init) == known
        assert set(pod.sidecar) == {*known, "readinessProbe", "livenessProbe", "lifecycle"}

    def test_every_mount_has_its_volume(self, pod: Pod) -> None:
        """No folder twice in a container; Kong may look into the socket's, and not write there."""
        volumes = [volume["name"] for volume in pod.deployment["userDefinedVolumes"]]
        assert len(volumes) == len(set(volumes))
        kongs = pod.deployment["userDefinedVolumeMounts"]
        for mounts in (pod.init["volumeMounts"], pod.sidecar["volumeMounts"], kongs):
            assert {mount["name"] for mount in mounts} <= set(volumes)
            assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
        assert [mount["readOnly"] for mount in kongs] == [True]
        assert kongs[0]["mountPath"] == str(pod.socket.parent)

    def test_a_file_for_query_cmd_elsewhere(self, tmp_path: Path, path: Path) -> None:
        """Kong sees its folder, too."""
        pod = Pod(path, tmp_path / "run", "--dump-file", str(tmp_path / "other" / "a.json"))
        for mounts in (pod.init["volumeMounts"], pod.deployment["userDefinedVolumeMounts"]):
            folders = [mount["mountPath"] for mount in mounts]
            assert folders == [str(tmp_path / "run"), str(tmp_path / "other")]

    def test_nobody_is_root_and_kong_is_in_the_group(self, pod: Pod) -> None:
        """By numbers; nothing but the volumes can be written."""
        for container in (pod.init, pod.sidecar):
            asked = container["securityContext"]
            assert (asked["runAsUser"], asked["runAsGroup"]) == (10001, GROUP)
            assert (asked["runAsNonRoot"], asked["readOnlyRootFilesystem"]) == (True, True)
            assert (asked["allowPrivilegeEscalation"], asked["capabilities"]) == (
                False,
                {"drop": ["ALL"]},
            )
        assert pod.values["securityContext"] == {"supplementalGroups": [GROUP]}

    def test_it_outlives_kong(self, pod: Pod) -> None:
        """The chart's Kong goes on for 15 s and ends in 10 more; our end has its time after that."""
        wait = int(pod.sidecar["lifecycle"]["preStop"]["exec"]["command"][1])
        assert wait > 15 + 10
        assert pod.values["terminationGracePeriodSeconds"] >= wait + 10

    def test_one_that_is_frozen_is_ended_soon(self, pod: Pod) -> None:
        """It hears no SIGTERM, and has nobody to wait for: not by the pod's own grace."""
        probe = pod.sidecar["livenessProbe"]
        assert probe["exec"]["command"][-1] == "/healthz"
        assert probe["terminationGracePeriodSeconds"] < pod.values["terminationGracePeriodSeconds"]

    def test_probes_need_a_unix_socket(self, tmp_path: Path, vault: FakeVault) -> None:
        """Without one nothing is printed that would fail for ever."""
        path = config(vault, tmp_path, {"pay": inject("one", {"bearer": "{key}"})}, listen={})
        pod = Pod(path, tmp_path / "run")
        assert not {"readinessProbe", "livenessProbe"} & set(pod.sidecar)

    def test_files_that_have_to_be_there(self, tmp_path: Path, vault: FakeVault) -> None:
        """Are named where the container will look for them."""
        (tmp_path / "sid").write_text("x")
        (tmp_path / "sid").chmod(0o600)
        login = {"auth": {"method": "approle", "role_id": "a", "secret_id_file": "sid"}}
        upstreams = {"pay": inject("one", {"bearer": "{key}"})}
        text = printed(config(vault, tmp_path, upstreams, stages={"production": login}), "helm")
        assert "#   /etc/vaultauthz/sid\n" in text
        assert "/etc/vaultauthz/audit.jsonl" in text
        assert f"{tmp_path}/sid" not in text


class TestAtWork:
    def test_requests_get_their_credential(self, pod: Pod) -> None:
        """By /bin/cat of the file and the server of the sidecar's command; Kong starts nothing."""
        with pod.running(), pod.kong() as kong:
            assert kong.request("GET", "/pay").upstream.header("authorization") == "Bearer one-1"
            assert kong.supervisor.starts == 0
            kong.reload()
            assert kong.request("GET", "/pay").upstream.header("authorization") == "Bearer one-1"

    def test_the_socket_is_the_groups(self, pod: Pod) -> None:
        """0660 of a group that has a number and, here, no name."""
        with pod.running():
            found = pod.socket.stat()
            assert (found.st_mode & 0o777, found.st_gid) == (0o660, GROUP)

    @AS_ROOT
    def test_kongs_user_may_connect_by_the_group(self, path: Path) -> None:
        """Uid 1000 with the group reads the file and reaches the socket, without it the file alone."""
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o755)  # pytest's own are root's alone
            pod = Pod(path, Path(name) / "run")
            with pod.running():
                for groups, reaches in (([GROUP], True), ([], False)):
                    done = subprocess.run(
                        ["/bin/sh", "-c", pod.query],
                        user=1000,
                        group=1000,
                        extra_groups=groups,
                        capture_output=True,
                        check=True,
                    )
                    assert json.loads(done.stdout) == json.loads(registration.dump())
                    assert _reaches(pod.socket, groups) is reaches


def _reaches(place: Path, groups: Sequence[int]) -> bool:
    """Whether uid 1000 with these groups can connect; asked in a process of its own."""
    child = os.fork()
    if child == 0:
        status = 2
        try:
            os.setgroups(list(groups))
            os.setgid(1000)
            os.setuid(1000)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(place))
            status = 0
        except PermissionError:
            status = 1
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1)
    return status == 0


class TestTheGroup:
    @pytest.mark.parametrize("group", ["no-such-group", "4294967295", "-1", "1e3"])
    def test_one_that_there_is_not(self, tmp_path: Path, path: Path, group: str) -> None:
        """Is told with what can be given; 4294967295 is chown's "as it is", and would be another's."""
        place = tmp_path / "k.sock"
        done = ours("kong", "serve", "-c", str(path), "--socket", str(place), f"--group={group}")
        assert (done.returncode, "or its number" in done.stderr) == (2, True)
        assert not place.exists()

    def test_one_that_is_not_ours(self, tmp_path: Path, path: Path) -> None:
        """Is told with what to do. Root may give it to any, but not without that capability."""
        become = ("setpriv", "--bounding-set", "-chown") if ROOT else ()
        number = next(n for n in range(20_000, 30_000) if n not in os.getgroups())
        place = tmp_path / "k.sock"
        words = ("kong", "serve", "-c", str(path), "--socket", str(place), "--group", str(number))
        done = ours(*words, become=become)
        assert (done.returncode, "supplementalGroups" in done.stderr) == (2, True)


class TestTheFile:
    def test_it_is_what_dump_prints(self, tmp_path: Path) -> None:
        """Readable by every user whatever the umask, and whole at any time."""
        place = tmp_path / "a.json"
        before = os.umask(0o077)
        try:
            assert ours("kong", "dump", "--file", str(place)).returncode == 0
        finally:
            os.umask(before)
        assert place.read_text() == ours("kong", "dump").stdout
        assert place.stat().st_mode & 0o777 == 0o644
        assert ours("kong", "dump", "--file", str(place)).returncode == 0  # again, in its place
        assert [one.name for one in tmp_path.iterdir()] == ["a.json"]

    def test_it_cannot_be_written(self, tmp_path: Path) -> None:
        """Status 2 and why; nothing is left."""
        done = ours("kong", "dump", "--file", str(tmp_path / "none" / "a.json"))
        assert (done.returncode, "no such file" in done.stderr) == (2, True)
        (tmp_path / "folder").mkdir()
        done = ours("kong", "dump", "--file", str(tmp_path / "folder"))
        assert (done.returncode, "is a directory" in done.stderr) == (2, True)
        assert [one.name for one in tmp_path.iterdir()] == ["folder"]


class TestFrozen:
    def test_kong_waits_longer_than_we_do(self) -> None:
        """The timeout that is printed cuts off no answer of ours."""
        longest = kong_door.HANDOVER + gate._WAIT
        assert longest < kong_config.READ_TIMEOUT < 60
        assert kong_stock._FIRST + gate._WAIT < kong_config.READ_TIMEOUT

    @pytest.mark.parametrize("options", [(), ("--stock",), ("--outside",)])
    def test_it_is_printed(self, path: Path, options: Sequence[str]) -> None:
        """For each way."""
        text = ours("kong", "config", "-c", str(path), *options).stdout
        wanted = f"nginx_proxy_lua_socket_read_timeout = {kong_config.READ_TIMEOUT}s"
        assert text.splitlines().count(wanted) == 1

    def test_requests_end(self, pod: Pod) -> None:
        """After Kong's timeout, with 500 and never without the credential; thawed, it serves on."""
        with pod.running() as server, pod.kong(timeout=1.0) as kong:
            assert wait_until(lambda: kong.request("GET", "/pay").status == 200)
            server.send_signal(signal.SIGSTOP)
            for _ in range(2):
                answer = kong.request("GET", "/pay")
                assert (answer.verdict, answer.status, answer.received) == (
                    Verdict.FAILED,
                    500,
                    None,
                )
            server.send_signal(signal.SIGCONT)
            assert wait_until(lambda: kong.request("GET", "/pay").status == 200)
