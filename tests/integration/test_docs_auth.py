"""docs/auth.md: its commands are run against a real OpenBao, and its configurations log in to it."""

from __future__ import annotations

import contextlib
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
from vaultauthz.config.methods import Aws, Azure, Gcp, Ldap
from vaultauthz.core import events
from vaultauthz.core.decision import Allowed
from vaultauthz.core.events import Event
from vaultauthz.core.request import Request
from vaultauthz.demo.parts import wait_for
from vaultauthz.embedding import OpenBroker

pytestmark = pytest.mark.integration

PAGE: Final = DOCS / "auth.md"
BLOCKS: Final = list(blocks(PAGE))
THE_WHOLE: Final = "The whole of it"
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
NOT_RUN: Final = {"ldap": [Ldap], "aws": [Aws], "gcp": [Gcp, Gcp, Gcp], "azure": [Azure, Azure]}


class Bench:
    """A reader at work: OpenBao over TLS, a cluster, an issuer, and the files that the page begins with."""

    def __init__(self, vault: AuthBao, folder: Path) -> None:
        self.vault = vault
        self.folder = folder
        ca = folder / "ca.pem"
        ca.write_bytes(vault._authority.ca.read_bytes())
        environ = {
            "VAULT_ADDR": vault.tls_address,
            "VAULT_CACERT": str(ca),
            "VAULT_TOKEN": vault.root_token,
        }
        # The one place where the page's names give way to what there is here.
        here = {
            "https://vault.internal:8200": vault.tls_address,
            "https://kube.internal:6443": "",  # put in place by `cluster`
            "https://issuer.internal": "",  # … by `issuer`
            "/var/run/secrets/vault/token": str(folder / "token"),
            "/run/secrets/gateway.json": str(folder / "gateway.json"),
            "10.1.2.0/24": "127.0.0.0/8",
            # It would go on for ever; this way it ends when the token is written.
            "bao agent -config=agent.hcl": "bao agent -config=agent.hcl -exit-after-auth",
        }
        self.reader = Reader(folder, environ, here)

    def follow(self, section: str) -> None:
        """Do what a section says: write its files, run its commands, keep its configuration."""
        for block in BLOCKS:
            if block.section != section:
                continue
            if block.language == "sh":
                self.reader.run(block.text)
            elif block.language == "hcl":
                self.reader.write(block)
            elif block.ours:
                self.configure(block)

    def configure(self, block: Block) -> Path:
        """Write vaultauthz.yaml: the whole of it, with the stages of this block."""
        (whole,) = [each for each in BLOCKS if each.section == THE_WHOLE and each.whole]
        document = yaml.safe_load(whole.text) | yaml.safe_load(block.text)
        document["audit"] = {"file": "audit.jsonl"}
        path = self.folder / "vaultauthz.yaml"
        path.write_text(self.reader.adapted(yaml.safe_dump(document)))
        return path

    def write_policy(self) -> None:
        """The pipe from `vaultauthz policy` into `bao policy write`."""
        self.reader.run(the("sh", "bao policy write vaultauthz-production").text)

    def open(self, heard: Callable[[Event], None] | None = None) -> OpenBroker:
        """A broker with what is configured now."""
        return open_broker(self.folder / "vaultauthz.yaml", heard)

    def private(self, name: str, text: str) -> None:
        """A file as whatever delivers it would write it."""
        path = self.folder / name
        path.touch(0o600)
        path.write_text(text)

    def cluster(self, api: KubeApi, authority: Authority) -> None:
        """What the page's `kubectl` commands and the kubelet put in place."""
        self.reader.here["https://kube.internal:6443"] = api.address
        self.private("reviewer.jwt", api.token(api.reviewer) + "\n")
        (self.folder / "cluster-ca.pem").write_bytes(authority.ca.read_bytes())
        self.private("token", api.token(Account("production", "gateway"), "vault"))

    def certificate(self) -> None:
        """A certificate of the reader's own CA."""
        authority = Authority(self.folder, "client-ca")
        pair = authority.issue("gateway.internal")
        pair.cert.rename(self.folder / "gateway.crt")
        pair.key.rename(self.folder / "gateway.key")
        (self.folder / "gateway.key").chmod(0o600)


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
    """One OpenBao for the page, with the secret that each way leads to."""
    with AuthBao(tmp_path_factory.mktemp("docs-auth")) as server:
        server.put_kv("secret/geocoder", {"api_key": KEY})
        yield server


@pytest.fixture
def bench(vault: AuthBao, tmp_path: Path) -> Iterator[Bench]:
    """A new reader; what was set up in OpenBao is gone after it."""
    yield Bench(vault, tmp_path)
    api = vault.client().sys
    for mount in set(api.list_auth_methods()["data"]) - {"token/"}:
        api.disable_auth_method(mount)
    api.delete_policy("vaultauthz-production")


@pytest.fixture
def world(bench: Bench, tmp_path: Path) -> Iterator[Bench]:
    """A reader with a cluster, an identity provider and a certificate."""
    authority = Authority(tmp_path, "cluster CA")
    with KubeApi(server_context(authority.issue("127.0.0.1"))) as api:
        bench.cluster(api, authority)
        bench.certificate()
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
    """Vault's side typed, our side written, the policy piped: one secret, and no right beside it."""
    for section in WAYS[way]:
        world.follow(section)
    world.write_policy()
    if way != "approle, response-wrapped":  # whose token would be used up by it
        world.reader.run(the("sh", "vaultauthz doctor").text)
    heard: list[Event] = []
    with world.open(heard.append) as broker:
        assert broker.warnings == ()
        assert broker.wait_ready(10), [(event.name, event.reason) for event in heard]
        assert sent(broker) == KEY
        (login,) = [event for event in heard if event.name == events.LOGIN]
        token = world.vault.client().auth.token.lookup_accessor(login.lease_id)["data"]
        assert token["policies"] == ["vaultauthz-production"]
        assert 0 < token["ttl"] <= 3600


def test_who_deploys_can_issue_wrapped_secret_ids_only(bench: Bench) -> None:
    """With the page's policy for it: one in clear is denied, one that is wrapped is not."""
    for section in WAYS["approle, response-wrapped"]:
        bench.follow(section)
    made = bench.vault.client().auth.token.create(policies=["gateway-deployer"])
    token = made["auth"]["client_token"]
    (wrapping,) = [line for line in the("sh", "-wrap-ttl").text.splitlines() if "-wrap" in line]
    bench.reader.run("rm secret_id")
    assert bench.reader.shell(wrapping, VAULT_TOKEN=token).returncode == 0
    assert len((bench.folder / "secret_id").read_text()) > 20
    for other in (wrapping.replace("-wrap-ttl=5m ", ""), wrapping.replace("5m", "6m")):
        assert other != wrapping
        denied = bench.reader.shell(other, VAULT_TOKEN=token)
        assert denied.returncode
        assert "permission denied" in denied.stderr


LOG_IN: Final = "bao write auth/approle/login role_id=@role_id secret_id="


def test_a_locked_role_is_shown_and_let_in_again(bench: Bench) -> None:
    """After five wrong tries the right secret_id is refused; the page's command mends it."""
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
    bench.follow("approle")
    bench.write_policy()
    heard: list[Event] = []

    def logins() -> list[str]:
        return [event.lease_id for event in heard if event.name == events.LOGIN]

    with bench.open(heard.append) as broker:
        assert broker.wait_ready(10)
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


@pytest.mark.parametrize("method", NOT_RUN)
def test_what_openbao_lacks_is_read_and_not_run(bench: Bench, method: str) -> None:
    """Our side is a valid configuration; Vault's is marked as not run, which OpenBao bears out."""
    bench.private("password", "x")
    bench.private("gateway.json", "{}")
    found = []
    for block in BLOCKS:
        if block.section == method and block.ours:
            text = bench.configure(block).read_text()
            config = parse(text, "docs/auth.md", bench.folder, {})
            assert config.warnings == ()
            found += [type(stage.auth) for stage in config.stages.values()]
    assert found == NOT_RUN[method]
    languages = {block.language for block in BLOCKS if block.section == method and not block.ours}
    assert languages == {"console"}
    enabling = the("console", f"vault auth enable {method}\n")
    assert enabling.section == method
    refused = bench.reader.shell(f"bao auth enable {method}")
    assert f"plugin not found in the catalog: {method}" in refused.stderr


def test_no_block_is_left_out() -> None:
    """Every command of the page is run or marked as not run, and is written as a shell takes it."""
    run = {block.section for block in BLOCKS if block.language == "sh"}
    assert run == {*WAYS, THE_WHOLE, "Lockout", "When a disk has leaked"}
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
