"""deploy/kubernetes: built, against the schemas of Kubernetes and of each CRD, and its parts against each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.certificates import Authority
from tests.unit.deploy.kustomize import APPLIED, KUBERNETES, Document, build, one
from tests.unit.envoy_config.printing import ROOT
from tests.unit.envoy_config.test_manifests import SCHEMAS, VERSIONS
from vaultauthz import __version__
from vaultauthz.cli import _parser, main
from vaultauthz.config import load
from vaultauthz.config.values import Config

OWN = ("sidecar", "gateway")  # the overlays that have a configuration
SCHEMA = json.loads((ROOT / "tests" / "data" / "kubernetes_1_30.json").read_text())
CRDS = {
    **VERSIONS,
    "Certificate": "cert-manager.io/v1",
    "Issuer": "cert-manager.io/v1",
    "ServiceMonitor": "monitoring.coreos.com/v1",
}
STRICT = {"allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"}
TLS = {"tls.crt", "tls.key", "ca.crt"}  # what cert-manager writes into a Secret
# What whoever applies it makes first, by docs/deploy.md.
GIVEN = {
    "Secret": {"vaultauthz-admin-token": {"token"}},
    "ConfigMap": {"vault-ca": {"ca.crt"}, "services-ca": {"ca.crt"}},
}
# Where an image has the public authorities.
PUBLIC = "/etc/ssl/certs/ca-certificates.crt"
PROGRAMS = [
    [path, *words]
    for name, words in (("kustomize", ["build"]), ("kubectl", ["kustomize"]))
    if (path := shutil.which(name))
]


@pytest.fixture(params=APPLIED)
def objects(request: pytest.FixtureRequest) -> list[Document]:
    """What one of them comes to."""
    return build(KUBERNETES / request.param)


def check(document: Document) -> None:
    """The schema of its kind: Kubernetes' own for the whole, a CRD's for its spec."""
    jsonschema: Any = pytest.importorskip("jsonschema")
    kind = document["kind"]
    if kind in SCHEMA["kinds"]:
        whole = {"$defs": SCHEMA["$defs"], **SCHEMA["kinds"][kind]}
        jsonschema.Draft202012Validator(whole).validate(document)
        assert document["apiVersion"] in SCHEMA["kinds"][kind]["properties"]["apiVersion"]["enum"]
    else:
        assert document.keys() == {"apiVersion", "kind", "metadata", "spec"}
        assert document["metadata"].keys() <= {"name", "namespace", "labels"}
        assert document["apiVersion"] == CRDS[kind]
        jsonschema.validate(document["spec"], SCHEMAS[kind])


def made_or_given(objects: list[Document]) -> dict[str, dict[str, set[str]]]:
    """The Secrets and ConfigMaps that there will be, with their keys."""
    secrets = {o["spec"]["secretName"]: TLS for o in objects if o["kind"] == "Certificate"}
    maps = {o["metadata"]["name"]: set(o["data"]) for o in objects if o["kind"] == "ConfigMap"}
    return {"Secret": GIVEN["Secret"] | secrets, "ConfigMap": GIVEN["ConfigMap"] | maps}


def pod_of(objects: list[Document]) -> Document:
    """The pod's spec."""
    pod: Document = one(objects, "Deployment")["spec"]["template"]["spec"]
    return pod


def containers(pod: Document) -> dict[str, Document]:
    """All of them by name, whenever they run."""
    return {c["name"]: c for c in [*pod.get("initContainers", []), *pod["containers"]]}


class TestObjects:
    def test_each_fits_its_schema(self, objects: list[Document]) -> None:
        """And is in the one namespace, unless its kind has none."""
        for document in objects:
            check(document)
            whole = document["kind"] == "Namespace" or "Admission" in document["kind"]
            assert document["metadata"].get("namespace") == (None if whole else "gateway")

    @pytest.mark.parametrize(
        ("kind", "name", "place", "value"),
        [
            ("Deployment", None, "spec template spec containers 0 livenesProbe", {}),
            ("Deployment", None, "spec template spec containers 0 securityContext readOnlyRootFileSystem", True),
            ("Deployment", None, "spec template spec containers 0 ports 0 containerPort", "9001"),
            ("Deployment", None, "spec template spec terminationGracePeriod", 30),
            ("PodDisruptionBudget", None, "spec unhealthyPodEviction", "AlwaysAllow"),
            ("NetworkPolicy", None, "spec ingress 0 form", []),
            ("Certificate", "vaultauthz-tls", "spec usages 0", "server"),
            ("Certificate", "vaultauthz-tls", "spec privateKey algorithm", "EC"),
            ("Issuer", "vaultauthz", "spec selfSigned", {}),
            ("ServiceMonitor", None, "spec endpoints 0 tlsConfig ca secret key", 1),
            ("Service", None, "apiVersion", "v2"),
        ],
    )  # fmt: skip
    def test_a_mistake_is_found(
        self, kind: str, name: str | None, place: str, value: object
    ) -> None:
        """The schemas are closed, and know the words."""
        jsonschema: Any = pytest.importorskip("jsonschema")
        document = one(build(KUBERNETES / "gateway"), kind, name)
        check(document)
        *way, last = place.split()
        inside: Any = document
        for step in way:
            inside = inside[int(step) if step.isdigit() else step]
        inside[int(last) if last.isdigit() else last] = value
        with pytest.raises((jsonschema.ValidationError, AssertionError)):
            check(document)

    @pytest.mark.parametrize("name", APPLIED)
    def test_it_is_what_kustomize_builds(self, name: str) -> None:
        """Where this machine has a kustomize, or a kubectl, which has one in it; else only our own has built it."""
        ours = {_name(o): o for o in build(KUBERNETES / name)}
        for program in PROGRAMS:
            argv = [*program, str(KUBERNETES / name)]
            done = subprocess.run(argv, capture_output=True, text=True, check=True)
            # A hash of the content, of ten characters, is behind the names of some ConfigMaps.
            text = re.sub(r"\benvoy-[a-z2-9]{10}\b", "envoy", done.stdout)
            assert {_name(o): o for o in yaml.safe_load_all(text)} == ours

    def test_what_is_referred_to_is_there(self, objects: list[Document]) -> None:
        """Secrets and ConfigMaps, with the keys: made by a Certificate, by a generator, or by hand as documented."""
        there = made_or_given(objects)
        pod = pod_of(objects)
        for volume in pod["volumes"]:
            for kind, key in (("Secret", "secretName"), ("ConfigMap", "name")):
                used = volume.get(kind[0].lower() + kind[1:])
                assert not used or used[key] in there[kind]
        (endpoint,) = one(objects, "ServiceMonitor")["spec"]["endpoints"]
        ca = endpoint["tlsConfig"]["ca"]["secret"]
        for used in (endpoint["authorization"]["credentials"], ca):
            assert used["key"] in there["Secret"][used["name"]]
        for issued in (o["spec"] for o in objects if o["kind"] == "Certificate"):
            issuer = one(objects, "Issuer", issued["issuerRef"]["name"])["spec"]
            assert (
                issuer.get("ca", {"secretName": "vaultauthz-ca"})["secretName"] in there["Secret"]
            )
        assert pod["serviceAccountName"] == one(objects, "ServiceAccount")["metadata"]["name"]

    def test_gateways_name_secrets_that_are_there(self) -> None:
        """The client's certificate and the authority, of Envoy Gateway and of Istio."""
        objects = build(KUBERNETES / "envoy-gateway")
        secrets = made_or_given(objects)["Secret"]
        (ca,) = one(objects, "BackendTLSPolicy")["spec"]["validation"]["caCertificateRefs"]
        client = one(objects, "EnvoyProxy")["spec"]["backendTLS"]["clientCertificateRef"]
        rule = one(build(KUBERNETES / "istio"), "DestinationRule")["spec"]["trafficPolicy"]["tls"]
        assert ca["kind"] == client["kind"] == "Secret"
        assert {ca["name"], client["name"], rule["credentialName"]} <= secrets.keys()

    @pytest.mark.parametrize(
        ("kind", "word"), [("Secret", "secret generic"), ("ConfigMap", "configmap")]
    )
    def test_what_is_made_by_hand_is_documented(self, kind: str, word: str) -> None:
        """With the command, in docs/deploy.md."""
        page = (ROOT / "docs" / "deploy.md").read_text()
        for name, keys in GIVEN[kind].items():
            (command,) = re.findall(rf"create {word} {name} (.*)", page)
            assert all(f"={key}=" in command for key in keys)

    def test_labels_and_ports_find_each_other(self, objects: list[Document]) -> None:
        """Services, policies, budget and spread select the pods, by ports that these have."""
        template = one(objects, "Deployment")["spec"]["template"]
        labels = template["metadata"]["labels"].items()
        pod = template["spec"]
        ports = {p["name"] for c in containers(pod).values() for p in c["ports"]}
        selectors = [one(objects, "Deployment")["spec"]["selector"]["matchLabels"]]
        selectors += [one(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]]
        selectors += [one(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]]
        selectors += [
            spread["labelSelector"]["matchLabels"] for spread in pod["topologySpreadConstraints"]
        ]
        services = [o for o in objects if o["kind"] == "Service"]
        selectors += [service["spec"]["selector"] for service in services]
        assert all(selector.items() <= labels for selector in selectors)
        assert {p["targetPort"] for service in services for p in service["spec"]["ports"]} <= ports
        policy = one(objects, "NetworkPolicy")["spec"]
        allowed = {p["port"] for rule in policy["ingress"] for p in rule["ports"]}
        assert allowed <= ports
        monitored = one(objects, "ServiceMonitor")["spec"]
        service = one(objects, "Service", "vaultauthz")
        assert monitored["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        named = {p["name"]: p for p in service["spec"]["ports"]}
        assert named[monitored["endpoints"][0]["port"]]["targetPort"] == "admin"

    def test_who_may_ask(self, objects: list[Document]) -> None:
        """Only the gateways' pods get in to gRPC, and by no Service to a port without mutual TLS."""
        rules = one(objects, "NetworkPolicy")["spec"]["ingress"]
        asking = [rule for rule in rules if {"port": "grpc", "protocol": "TCP"} in rule["ports"]]
        gateway = {o["kind"] for o in objects} & {"SecurityPolicy", "AuthorizationPolicy"}
        assert len(asking) == len(gateway)
        assert all(peer["podSelector"]["matchLabels"] for rule in asking for peer in rule["from"])


def _name(o: Document) -> tuple[str, str]:
    return o["kind"], o["metadata"]["name"]


class TestPod:
    def test_restricted(self, objects: list[Document]) -> None:
        """Kubernetes' Pod Security Standard of that name, which the namespace enforces; and more."""
        labels = one(objects, "Namespace")["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        pod = pod_of(objects)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(pod)
        for volume in pod["volumes"]:
            assert set(volume) - {"name"} <= {"configMap", "secret", "projected", "emptyDir"}
        for container in containers(pod).values():
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context.get("runAsUser", pod["securityContext"]["runAsUser"]) > 0
            assert set(context) - {"runAsUser", "runAsGroup"} == STRICT
            assert "memory" in container["resources"]["limits"]

    def test_its_user_is_the_image_s(self, objects: list[Document]) -> None:
        """And the version is this one."""
        pod = pod_of(objects)
        dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
        user, group = (pod["securityContext"][key] for key in ("runAsUser", "runAsGroup"))
        assert f"\nUSER {user}:{group}\n" in dockerfile
        assert pod["securityContext"]["fsGroup"] == group
        assert containers(pod)["vaultauthz"]["image"] == f"vaultauthz:{__version__}"

    def test_its_arguments_are_the_command_line_s(self, objects: list[Document]) -> None:
        """And name the configuration that is mounted."""
        container = containers(pod_of(objects))["vaultauthz"]
        options = _parser().parse_args(container["args"])
        assert str(options.config) == "/etc/vaultauthz/vaultauthz.yaml"
        assert "command" not in container  # the image's entrypoint

    def test_the_token_is_for_vault_alone(self, objects: list[Document]) -> None:
        """Of the account and audience that docs/deploy.md has Vault's role take."""
        pod = pod_of(objects)
        (projected,) = [v["projected"] for v in pod["volumes"] if "projected" in v]
        (source,) = projected["sources"]
        page = (ROOT / "docs" / "deploy.md").read_text()
        assert f"audience={source['serviceAccountToken']['audience']}" in page
        assert f"bound_service_account_names={pod['serviceAccountName']}" in page
        assert "bound_service_account_namespaces=gateway" in page

    def test_the_grace_is_long_enough(self, objects: list[Document]) -> None:
        """For Envoy's sleep, which comes before, or the drain; then five seconds of revocations, and some room."""
        pod = pod_of(objects)
        sleeps = [
            c["lifecycle"]["preStop"]["sleep"]["seconds"]
            for c in pod["containers"]
            if "lifecycle" in c
        ]
        text = one(objects, "ConfigMap", "vaultauthz")["data"]["vaultauthz.yaml"]
        drains = [int(drain) for drain in re.findall(r"^  drain: (\d+)s$", text, re.MULTILINE)]
        waits = sum(sleeps + drains)
        assert waits == 10  # endpoints go within seconds
        assert pod["terminationGracePeriodSeconds"] >= waits + 5 + 10

    def test_the_sidecar_outlives_envoy(self) -> None:
        """It is one of Kubernetes' own: started before, and ended after."""
        pod = pod_of(build(KUBERNETES / "sidecar"))
        assert [(c["name"], c["restartPolicy"]) for c in pod["initContainers"]] == [
            ("vaultauthz", "Always")
        ]
        assert [c["name"] for c in pod["containers"]] == ["envoy"]


def provided(objects: list[Document]) -> set[str]:
    """The files that the container has by its mounts, each of which is read-only unless it is scratch."""
    pod, there = pod_of(objects), made_or_given(objects)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    found: set[str] = set()
    for mount in containers(pod)["vaultauthz"]["volumeMounts"]:
        assert "subPath" not in mount  # it would not follow what is replaced
        volume = volumes[mount["name"]]
        assert mount.get("readOnly", False) is ("emptyDir" not in volume)
        names: set[str] = set()
        if "configMap" in volume:
            names = there["ConfigMap"][volume["configMap"]["name"]]
        elif "secret" in volume:
            names = there["Secret"][volume["secret"]["secretName"]]
        elif "projected" in volume:
            names = {s["serviceAccountToken"]["path"] for s in volume["projected"]["sources"]}
        found |= {f"{mount['mountPath']}/{name}" for name in names}
    return found


@pytest.fixture
def machine() -> Iterator[Path]:
    """A folder with a short name that stands for the container's root: sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="k8s") as folder:
        yield Path(folder)


class TestConfiguration:
    @pytest.mark.parametrize("name", OWN)
    def test_it_is_good_with_what_the_pod_has(
        self, name: str, machine: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """`config check` has nothing to say, and each path is of a volume; what is written goes to an emptyDir."""
        objects = build(KUBERNETES / name)
        file, config = self.installed(objects, machine)
        assert main(["config", "check", "-c", str(file)]) == 0
        said = capsys.readouterr()
        assert said.err == ""
        assert "good" in said.out
        pod = pod_of(objects)
        written = [
            m["mountPath"]
            for m in containers(pod)["vaultauthz"]["volumeMounts"]
            if not m.get("readOnly")
        ]
        assert written == ["/run/vaultauthz"]
        assert config.audit.file is None  # standard output

    @pytest.mark.parametrize("name", OWN)
    def test_each_file_that_is_mounted_is_used(self, name: str) -> None:
        """And none is named that is not mounted."""
        objects = build(KUBERNETES / name)
        text = one(objects, "ConfigMap", "vaultauthz")["data"]["vaultauthz.yaml"]
        named = set(re.findall(r"(/(?:run|var|etc)/[\w./-]+)", text)) - {
            "/run/vaultauthz/grpc.sock"
        }
        unused = {"/etc/vaultauthz/vaultauthz.yaml"} | (
            {"/run/tls/ca.crt"} if name == "sidecar" else set()
        )
        assert named == provided(objects) - unused

    @pytest.mark.parametrize("name", OWN)
    def test_ports_and_probes_are_those_of_listen(self, name: str, machine: Path) -> None:
        """Liveness asks whether it lives, the others whether it has started: docs/architecture.md says why."""
        objects = build(KUBERNETES / name)
        _, config = self.installed(objects, machine)
        container = containers(pod_of(objects))["vaultauthz"]
        ports = {p["name"]: f"0.0.0.0:{p['containerPort']}" for p in container["ports"]}
        listen = config.listen
        assert listen.admin_tls is not None
        asked = {
            kind: container[f"{kind}Probe"]["httpGet"]
            for kind in ("startup", "readiness", "liveness")
        }
        assert {p["scheme"] for p in asked.values()} == {"HTTPS"}
        assert {p["port"] for p in asked.values()} == {"admin"}
        paths = {kind: probe["path"] for kind, probe in asked.items()}
        started = "/readyz?started"
        assert paths == {"startup": started, "readiness": started, "liveness": "/healthz"}
        there = {"admin": str(listen.admin)}
        if name == "gateway":
            there["grpc"] = str(listen.grpc)
        assert ports == there

    @pytest.mark.parametrize("name", OWN)
    def test_its_policy_can_be_printed(
        self, name: str, machine: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The command of docs/deploy.md, for the login that the pod makes."""
        file, _ = self.installed(build(KUBERNETES / name), machine)
        assert main(["policy", "-c", str(file), "--stage", "production"]) == 0
        said = capsys.readouterr().out
        for path in ("database/creds/payments", "secret/data/geocoder", "auth/token/revoke-self"):
            assert f'path "{path}"' in said
        assert "auth/kubernetes/role/vaultauthz token_policies=vaultauthz-production" in said

    def installed(self, objects: list[Document], machine: Path) -> tuple[Path, Config]:
        """The configuration as the container sees it, under another root, and what is made of it."""
        authority = Authority(machine)
        pair = authority.issue("vaultauthz.gateway.svc", hours=90 * 24)
        contents = {"ca.crt": authority.ca, "tls.crt": pair.cert, "tls.key": pair.key}
        text = one(objects, "ConfigMap", "vaultauthz")["data"]["vaultauthz.yaml"]
        for place in provided(objects):
            file = machine / place.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(0o600)
            source = contents.get(file.name)
            file.write_text(source.read_text() if source else "a-token")
        (machine / "run" / "vaultauthz").mkdir(parents=True)
        file = machine / "etc" / "vaultauthz" / "vaultauthz.yaml"
        file.write_text(re.sub(r"(?<=[ /])(/(?:run|var)/)", rf"{machine}\1", text))
        return file, load(file, {})


class TestNames:
    @pytest.fixture(params=["gateway", "envoy-gateway", "istio"])
    def objects(self, request: pytest.FixtureRequest) -> list[Document]:
        """Those with mutual TLS."""
        return build(KUBERNETES / request.param)

    def test_the_certificates_have_the_names_that_are_compared(
        self, objects: list[Document]
    ) -> None:
        """Ours by the gateways and Prometheus, the gateway's by vaultauthz."""
        config = yaml.safe_load(one(objects, "ConfigMap", "vaultauthz")["data"]["vaultauthz.yaml"])
        client = one(objects, "Certificate", "vaultauthz-client")["spec"]
        assert client["dnsNames"] == config["listen"]["grpc_tls"]["client_names"]
        assert client["usages"] == ["digital signature", "client auth"]
        ours = one(objects, "Certificate", "vaultauthz-tls")["spec"]["dnsNames"]
        (endpoint,) = one(objects, "ServiceMonitor")["spec"]["endpoints"]
        compared = {endpoint["tlsConfig"]["serverName"]}
        for o in objects:
            if o["kind"] == "BackendTLSPolicy":
                compared.add(o["spec"]["validation"]["hostname"])
            if o["kind"] == "DestinationRule":
                tls = o["spec"]["trafficPolicy"]["tls"]
                compared |= {o["spec"]["host"], tls["sni"], *tls["subjectAltNames"]}
        assert compared <= set(ours)

    def test_nothing_is_left_of_another_namespace(self) -> None:
        """What docs/envoy-gateway has for `default` is for `gateway` here."""
        assert not re.search(
            r"\bdefault(?:/|'|\.svc)", json.dumps(build(KUBERNETES / "envoy-gateway"))
        )

    def test_istio_asks_the_service(self) -> None:
        """The provider of the mesh configuration names it, with its port."""
        mesh = yaml.safe_load((ROOT / "docs" / "istio" / "mesh.yaml").read_text())
        (provider,) = mesh["extensionProviders"]
        objects = build(KUBERNETES / "istio")
        service = one(objects, "Service")
        name = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
        assert provider["envoyExtAuthzGrpc"]["service"] == name
        assert provider["envoyExtAuthzGrpc"]["port"] in {
            p["port"] for p in service["spec"]["ports"] if p["name"] == "grpc"
        }
        assert one(objects, "AuthorizationPolicy")["spec"]["provider"]["name"] == provider["name"]


class TestAlerts:
    def test_the_rules_become_an_object(self) -> None:
        """What docs/deploy.md has the shell make of deploy/prometheus, which Prometheus takes as it stands."""
        page = (ROOT / "docs" / "deploy.md").read_text()
        (command,) = re.findall(
            r"^(\{ printf .*?\}) \| kubectl apply", page, re.DOTALL | re.MULTILINE
        )
        made = subprocess.run(
            ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
        )
        found = yaml.safe_load(made.stdout)
        rules = ROOT / "deploy" / "prometheus" / "vaultauthz.rules.yaml"
        assert (found["kind"], found["metadata"]["namespace"]) == ("PrometheusRule", "gateway")
        assert found["spec"] == yaml.safe_load(rules.read_text())
        assert found["spec"]["groups"]

    def test_the_dashboard_is_there(self) -> None:
        """The file that the ConfigMap is made from."""
        page = (ROOT / "docs" / "deploy.md").read_text()
        (name,) = re.findall(r"--from-file=(deploy/grafana/\S+)", page)
        assert json.loads((ROOT / name).read_text())["panels"]


class TestEnvoy:
    def test_its_configuration_is_the_printed_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        """To the byte: `vaultauthz envoy -c vaultauthz.yaml > envoy.yaml` in that folder, and nothing to fill in."""
        assert main(["envoy", "-c", str(KUBERNETES / "sidecar" / "vaultauthz.yaml")]) == 0
        kept = (KUBERNETES / "sidecar" / "envoy.yaml").read_text()
        assert kept == capsys.readouterr().out
        assert "REPLACE" not in kept

    def test_it_trusts_by_what_it_has(self) -> None:
        """A service in the cluster by an authority of yours, as no public one signs its name; each file is mounted."""
        text = (KUBERNETES / "sidecar" / "envoy.yaml").read_text()
        by_name: dict[str, str] = {}
        for made in yaml.safe_load(text)["static_resources"]["clusters"]:
            if "transport_socket" in made:
                context = made["transport_socket"]["typed_config"]["common_tls_context"]
                authority = context["validation_context"]["trusted_ca"]["filename"]
                by_name[made["transport_socket"]["typed_config"]["sni"]] = authority
        for name, authority in by_name.items():
            assert (authority == PUBLIC) == (not name.endswith(".svc")), name
        named = set(re.findall(r"filename: ([^\s,}]+)", text)) - {PUBLIC}
        objects = build(KUBERNETES / "sidecar")
        mounts = {
            mount["mountPath"]: mount["name"]
            for mount in containers(pod_of(objects))["envoy"]["volumeMounts"]
        }
        volumes = {volume["name"]: volume for volume in pod_of(objects)["volumes"]}
        assert named
        for folder, _, key in (file.rpartition("/") for file in named):
            source = volumes[mounts[folder]]["configMap"]["name"]
            assert key in made_or_given(objects)["ConfigMap"][source]

    def test_it_listens_where_the_container_says(self) -> None:
        """On every address of the pod, at the port that the Service and the policy let clients in to."""
        container = containers(pod_of(build(KUBERNETES / "sidecar")))["envoy"]
        config = yaml.safe_load((KUBERNETES / "sidecar" / "vaultauthz.yaml").read_text())
        (port,) = [port["containerPort"] for port in container["ports"]]
        assert config["gateway"]["address"] == f"0.0.0.0:{port}"

    def test_it_is_the_one_that_is_tested(self) -> None:
        """Its version is docker-compose.yml's, and it has no hot restart to share memory for."""
        compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["envoy"]
        container = containers(pod_of(build(KUBERNETES / "sidecar")))["envoy"]
        assert container["image"] == compose["image"]
        assert container["command"] == compose["command"]
