"""docs/auth.md: its commands are typed in its order, and its configurations log in.

Against a real OpenBao, or HashiCorp's Vault where $VAULTAUTHZ_TEST_VAULT names one. Nothing is
put in place that the page does not make, but what it says that its reader has.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.contract.certificates import Authority, server_context
from tests.contract.fake_http import FakeServer, Heard, Reply, Wire
from tests.contract.jwt_issuer import Issuer
from tests.contract.kube_api import Account, KubeApi
from tests.integration.auth.auth_bao import AuthBao
from tests.integration.docs_snippets import DOCS, Block, Reader, blocks
from tests.patience import PATIENCE
from vaultauthz import open_broker
from vaultauthz.config import parse
from vaultauthz.config.auth.aws import Aws
from vaultauthz.config.auth.azure import Azure
from vaultauthz.config.auth.gcp import Gcp
from vaultauthz.config.auth.ldap import Ldap
from vaultauthz.core import events
from vaultauthz.core.decision import Allowed
from vaultauthz.core.events import Event
from vaultauthz.core.request import Request
from vaultauthz.demo.parts import binaries, wait_for
from vaultauthz.embedding import OpenBroker

pytestmark = pytest.mark.integration

PAGE: Final = DOCS / "auth.md"
BLOCKS: Final = list(blocks(PAGE))
THE_WHOLE: Final = "The whole of it"
FITS: Final = "See whether it fits"
KEY: Final = "kv-0123456789"
# Which sections are typed, in order, until somebody can log in as the last one says.
WAYS: Final = {
    "approle": ["approle"],
    "approle, response-wrapped": ["approle", "approle, response-wrapped"],
    "kubernetes": ["kubernetes"],
    "jwt": ["jwt"],
    "cert": ["cert"],
    "userpass": ["userpass"],
    "token_file": ["approle", "token_file"],
}
# The methods that OpenBao lacks, and what each stage of their configurations must be read as.
LACKING: Final = {"ldap": [Ldap], "aws": [Aws], "gcp": [Gcp, Gcp, Gcp], "azure": [Azure, Azure]}
# Blocks of commands that are neither Vault's nor ours, where nothing stands for the program.
NOT_RUN: Final = ("gcloud",)
KUBECTL: Final = """\
case "$1 $2" in
"create serviceaccount" | "create clusterrolebinding") echo created ;;
"create token") cat KUBE/reviewer ;;
"config view") base64 KUBE/ca ;;
*) exit 1 ;;
esac"""


class Bench:
    """A reader at work: OpenBao over TLS and its CA, and whatever stands for what is not here."""

    def __init__(self, vault: AuthBao, folder: Path, spelling: str = "") -> None:
        self.vault = vault
        self.folder = folder
        (folder / "ca.pem").write_bytes(vault._authority.ca.read_bytes())
        # The one place where the page's names give way to what there is here.
        here = {
            "https://vault.internal:8200": vault.tls_address,
            "https://kube.internal:6443": "",  # put in place by `cluster`
            "https://issuer.internal": "",  # … by `issuer`
            "/var/run/secrets/vault/token": str(folder / "token"),
            "/run/secrets/gateway.json": str(folder / "gateway.json"),
            "/var/log/vault/audit.jsonl": str(folder / "audit-too.jsonl"),
            "10.1.2.0/24": "127.0.0.0/8",
            # It would go on for ever; this way it ends when the token is written.
            "bao agent -config=agent.hcl": "bao agent -config=agent.hcl -exit-after-auth",
            "bao login\n": "bao login -\n",  # which reads the token from a terminal else
        }
        self.reader = Reader(folder, {}, here, spelling)
        self.reader.stands_for("pip", "")

    def follow(self, *sections: str) -> None:
        """Do what they say: run their commands, write their files, keep their configuration."""
        for section in sections:
            for block in BLOCKS:
                if block.section == section:
                    self.do(block)

    def do(self, block: Block) -> None:
        """One block; commands that are not for what there is here are another test's."""
        if block.language == "sh" or (block.language == "console" and self.can_run(block)):
            self.reader.run(block.text, typed=self.vault.root_token)
        elif block.language == "hcl":
            self.reader.write(block)
        elif block.ours:
            self.configure(block)

    def can_run(self, block: Block) -> bool:
        """Whether there is what these commands are for."""
        if re.search(r"^(vault|pip) ", block.text, re.MULTILINE):
            return binaries.vault().hashicorps
        return not block.text.startswith(NOT_RUN)

    def log_in(self) -> None:
        """A shell that is logged in, as the page begins."""
        first = next(block for block in BLOCKS if block.language == "sh")
        assert "login" in first.text
        self.do(first)

    def configure(self, block: Block) -> Path:
        """Write vaultauthz.yaml: the whole of it, with the stages of this block."""
        (whole,) = [each for each in BLOCKS if each.section == THE_WHOLE and each.whole]
        document = yaml.safe_load(whole.text) | yaml.safe_load(block.text)
        document["audit"] = {"file": "audit.jsonl"}
        path = self.folder / "vaultauthz.yaml"
        path.write_text(self.reader.adapted(yaml.safe_dump(document)))
        return path

    def open(self, heard: Callable[[Event], None] | None = None) -> OpenBroker:
        """A broker with what is configured now."""
        return open_broker(self.folder / "vaultauthz.yaml", heard)

    def private(self, name: str, text: str) -> None:
        """A file as whatever delivers it would write it."""
        path = self.folder / name
        path.touch(0o600)
        path.write_text(text)

    def cluster(self, api: KubeApi, authority: Authority) -> None:
        """What `kubectl` says, and what the kubelet puts in place."""
        self.reader.here["https://kube.internal:6443"] = api.address
        kube = self.folder / "kube"
        kube.mkdir()
        (kube / "reviewer").write_text(api.token(api.reviewer) + "\n")
        (kube / "ca").write_bytes(authority.ca.read_bytes())
        self.reader.stands_for("kubectl", KUBECTL.replace("KUBE", str(kube)))
        self.private("token", api.token(Account("production", "gateway"), "vault"))


def the(language: str, text: str) -> Block:
    """The one block that has this text in it."""
    (found,) = [b for b in BLOCKS if b.language == language and text in b.text]
    return found


def sent(broker: OpenBroker) -> str:
    """The key that a request is given."""
    decision = broker.check(Request("test", upstream="geocoder", stage="production"))
    assert isinstance(decision, Allowed), decision
    assert decision.credential
    return decision.credential.mutation.headers[0][1]


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthBao]:
    """One OpenBao for the page; all that is set up in it the page sets up."""
    with AuthBao(tmp_path_factory.mktemp("docs-auth")) as server:
        yield server


@pytest.fixture
def bench(vault: AuthBao, tmp_path: Path) -> Iterator[Bench]:
    """A new reader; what was set up in OpenBao is gone after it."""
    yield Bench(vault, tmp_path)
    clean(vault)


def clean(vault: AuthBao) -> None:
    """As a server that was just initialized."""
    api = vault.client().sys
    for mount in set(api.list_auth_methods()["data"]) - {"token/"}:
        api.disable_auth_method(mount)
    for mount in {"secret/", "pki/"} & set(api.list_mounted_secrets_engines()["data"]):
        api.disable_secrets_engine(mount)
    for name in ("vaultauthz-production", "gateway-deployer"):
        api.delete_policy(name)


@pytest.fixture
def world(bench: Bench, tmp_path: Path) -> Iterator[Bench]:
    """A reader with a cluster and an identity provider."""
    authority = Authority(tmp_path, "cluster CA")
    with KubeApi(server_context(authority.issue("127.0.0.1"))) as api:
        bench.cluster(api, authority)
        with identity_provider() as (address, issuer):
            bench.reader.here["https://issuer.internal"] = address
            bench.private("gateway.jwt", issuer.token("gateway", "vault"))
            yield bench


@contextlib.contextmanager
def identity_provider() -> Iterator[tuple[str, Issuer]]:
    """An issuer that is discovered as OpenID Connect says, and its address."""
    documents: dict[str, Any] = {}

    def respond(heard: Heard, wire: Wire) -> None:
        found = documents.get(heard.path)
        wire.send(b"".join(Reply(200 if found else 404, found).encoded()))

    server = FakeServer(respond)
    server.start()
    try:
        issuer = Issuer(server.address)
        documents["/.well-known/openid-configuration"] = {
            "issuer": server.address,
            "jwks_uri": f"{server.address}/keys",
            "id_token_signing_alg_values_supported": ["RS256"],
        }
        documents["/keys"] = issuer.jwks
        yield server.address, issuer
    finally:
        server.stop()


@pytest.mark.parametrize("way", WAYS)
def test_each_way_logs_in_as_the_page_says(world: Bench, way: str) -> None:
    """From the first block on, in order: one secret, and no right beside it."""
    world.follow(THE_WHOLE, *WAYS[way])
    if way != "approle, response-wrapped":  # whose token would be used up by it
        world.follow(FITS)
    logs_in(world)


def test_the_other_spelling_works_too(vault: AuthBao, tmp_path: Path) -> None:
    """OpenBao takes HashiCorp's variables, as the page's table says."""
    reader = Bench(vault, tmp_path, "VAULT_")
    reader.follow(THE_WHOLE, "approle", FITS)
    logs_in(reader)
    clean(vault)


def logs_in(bench: Bench) -> None:
    """With what is configured: the right secret, by a token that has the page's policy only."""
    heard: list[Event] = []
    with bench.open(heard.append) as broker:
        assert broker.warnings == ()
        assert broker.wait_ready(PATIENCE), [(event.name, event.reason) for event in heard]
        assert sent(broker) == KEY
        (login,) = [event for event in heard if event.name == events.LOGIN]
        token = bench.vault.client().auth.token.lookup_accessor(login.lease_id)["data"]
        assert token["policies"] == ["vaultauthz-production"]
        assert 0 < token["ttl"] <= 3600


LOG_IN: Final = "bao write auth/approle/login role_id=@role_id secret_id="


def test_a_locked_role_is_shown_and_let_in_again(bench: Bench) -> None:
    """After five wrong tries the right secret_id is refused; the page's command mends it."""
    bench.log_in()
    bench.follow("approle")
    right = f"{LOG_IN}@secret_id"
    bench.reader.run(right)
    for _ in range(5):
        assert bench.reader.shell(f"{LOG_IN}wrong").returncode
    assert "permission denied" in bench.reader.shell(right).stderr
    role_id = (bench.folder / "role_id").read_text()
    assert role_id in bench.reader.run(the("sh", "sys/locked-users").text)
    bench.reader.run(right)


def test_what_leaked_is_ended_and_a_new_secret_id_goes_on(bench: Bench) -> None:
    """No secret_id of before logs in, no token of before lives; the gateway logs in by a new one."""
    bench.follow(THE_WHOLE, "approle")
    heard: list[Event] = []

    def logins() -> list[str]:
        return [event.lease_id for event in heard if event.name == events.LOGIN]

    with bench.open(heard.append) as broker:
        assert broker.wait_ready(PATIENCE)
        bench.reader.run(the("sh", "secret-id-accessor/destroy").text)
        assert "invalid" in bench.reader.shell(f"{LOG_IN}@secret_id").stderr
        look = f"bao token lookup -accessor {logins()[0]}"
        assert "invalid accessor" in bench.reader.shell(look).stderr
        (issue,) = re.findall(
            r"^bao .*-field=secret_id .*$", the("sh", "enable approle").text, re.MULTILINE
        )
        bench.reader.run(issue)
        assert wait_for(lambda: len(logins()) == 2, PATIENCE), [(e.name, e.reason) for e in heard]
        assert sent(broker) == KEY


@pytest.mark.parametrize("method", LACKING)
def test_what_openbao_lacks(bench: Bench, method: str) -> None:
    """Our side is a valid configuration; HashiCorp's Vault takes its side, and OpenBao has none."""
    bench.log_in()
    pair = Authority(bench.folder, "a cloud's CA").issue("ldap.internal")
    for name, text in {  # what the section says that its reader has
        "password": "x",
        "bindpass": "x",
        "client-secret": "x",
        "gateway.json": "{}",
        "ldap-ca.pem": pair.cert.read_text(),
        "vault.json": service_account(pair.key.read_text()),
    }.items():
        bench.private(name, text)
    found = []
    for block in BLOCKS:
        if block.section == method and block.ours:
            text = bench.configure(block).read_text()
            config = parse(text, "docs/auth.md", bench.folder, {})
            assert config.warnings == ()
            found += [type(stage.auth) for stage in config.stages.values()]
    assert found == LACKING[method]
    languages = {block.language for block in BLOCKS if block.section == method and not block.ours}
    assert languages == {"console"}
    enabling = the("console", f"vault auth enable {method}\n")
    assert enabling.section == method
    if binaries.vault().hashicorps:
        bench.follow(method)
    else:
        refused = bench.reader.shell(f"bao auth enable {method}")
        assert f"plugin not found in the catalog: {method}" in refused.stderr


def service_account(key: str) -> str:
    """A key file of Google's, of an account that is none."""
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "my-project",
            "private_key_id": "1",
            "private_key": key,
            "client_email": "vault@my-project.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": "https://oauth2.googleapis.com/token",
        }
    )


def test_the_audit_log_in_both_spellings(bench: Bench) -> None:
    """OpenBao takes the stanza and no command; Vault the command; both show our header then."""
    bench.log_in()
    command = the("console", "audit enable").text
    if binaries.vault().hashicorps:
        bench.vault.client().sys.disable_audit_device("file")  # ours, for which the page's is
    bench.follow("Two spellings")
    shown = bench.vault.client().read("sys/config/auditing/request-headers/X-Correlation-Id")
    assert shown["data"] == {"X-Correlation-Id": {"hmac": False}}
    if binaries.vault().hashicorps:
        assert (bench.folder / "audit-too.jsonl").exists()
        bench.vault.client().sys.disable_audit_device("file")
        bench.vault.client().sys.enable_audit_device(
            "file", options={"file_path": str(bench.vault.audit_path)}
        )
        return
    refused = bench.reader.shell(command.replace("vault audit", "bao audit"))
    assert "audit" in refused.stderr
    assert refused.returncode
    # The server has been started with the stanza, but for the path.
    stanza = (bench.folder / "audit.hcl").read_text().partition("\n")[2]
    mine = stanza.replace("/var/log/openbao/audit.jsonl", str(bench.vault.audit_path))
    assert mine in (bench.vault.audit_path.parent / "config.hcl").read_text()
    assert bench.vault.audit_entries()


@pytest.mark.openbao("Vault has namespaces in its Enterprise edition only")
def test_a_policy_in_a_namespace(bench: Bench) -> None:
    """The commands as they stand write it there."""
    bench.follow(THE_WHOLE, "Several stages")
    listed = bench.reader.run("bao policy list -namespace=platform/production")
    assert "vaultauthz-production" in listed.split()
    for name in ("-namespace=platform production", "platform"):
        bench.reader.run(f"bao namespace delete {name}")


def test_no_block_is_left_out() -> None:
    """Every command of the page is run or marked as not run, and is written as a shell takes it."""
    run = {block.section for block in BLOCKS if block.language == "sh"}
    elsewhere = {"Two spellings", "Several stages", "Lockout", "When a disk has leaked"}
    assert run == {*WAYS, THE_WHOLE, FITS, *elsewhere}
    assert {block.language for block in BLOCKS} == {"sh", "console", "yaml", "hcl"}
    for block in BLOCKS:
        if block.language == "console":
            checked = subprocess.run(["sh", "-n"], input=block.text, text=True, check=False)
            assert checked.returncode == 0, block.text


def test_the_pod_has_the_token_that_the_role_wants() -> None:
    """Its audience is the role's, its place that of `token_file`, its account the role's."""
    (pod,) = [b for b in BLOCKS if b.section == "kubernetes" and "spec:" in b.text]
    spec = yaml.safe_load(pod.text)["spec"]
    (projected,) = spec["volumes"][0]["projected"]["sources"]
    token = projected["serviceAccountToken"]
    mount = spec["containers"][0]["volumeMounts"][0]["mountPath"]
    role = the("sh", "auth/kubernetes/role/gateway").text
    assert f"audience={token['audience']} " in role
    assert f"bound_service_account_names={spec['serviceAccountName']} " in role
    assert f"token_file: {mount}/{token['path']}}}" in the("yaml", "method: kubernetes").text


def test_its_links_lead_somewhere() -> None:
    """Other pages and their sections, and those of this one."""
    for page, anchor in re.findall(r"\]\(([\w.]*)#?([\w-]*)\)", PAGE.read_text()):
        text = (DOCS / page if page else PAGE).read_text()
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
        assert not anchor or anchor in slugs, (page, anchor)
