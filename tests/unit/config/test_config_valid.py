"""What loads, and as which values."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaultauthz.config import Audit, Config, KvSecret, Listen, PathSecret, ServerTls, Tls, load
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.auth.kubernetes import Kubernetes
from vaultauthz.config.auth.token_file import TokenFile
from vaultauthz.config.forms.basic import Basic
from vaultauthz.config.forms.bearer import Bearer
from vaultauthz.config.forms.cookie import Cookie
from vaultauthz.config.forms.header import Header
from vaultauthz.config.forms.query import Query
from vaultauthz.config.values import Vault
from vaultauthz.core.callers import Callers, Claim, Pattern, Rule
from vaultauthz.core.routing import Route
from vaultauthz.core.secret import Secret
from vaultauthz.core.template import Template

from .conftest import SECRET, VALID, Folder, edited

EXAMPLE = Path(__file__).with_name("example.yaml")
field = Template.parse


@pytest.fixture
def example(folder: Folder) -> Config:
    """The contract's example, its files in place."""
    for name in ("ca.pem", "c.pem", "k.pem"):
        folder.write(name, "anything")
    text = EXAMPLE.read_text().replace("/run/secrets/", f"{folder.path}/")
    return load(folder.write("vaultauthz.yaml", text), {})


def test_example_vault(example: Config, folder: Folder) -> None:
    """The contract's example says where Vault is and how to reach it."""
    tls = Tls(folder.path / "ca.pem", folder.path / "c.pem", folder.path / "k.pem", "vault")
    assert example.vault == Vault("https://vault.internal:8200", "platform", tls, 5.0)


def test_example_stages(example: Config, folder: Folder) -> None:
    """The contract's example has two stages with a login each."""
    production = AppRole("7c2…", secret_id_file=folder.path / "secret_id")
    assert example.stages["production"].auth == production
    assert example.stages["staging"].auth == Kubernetes("gateway-staging")


def test_example_payments(example: Config) -> None:
    """The contract's dynamic upstream gets a path for each stage."""
    payments = example.upstreams["payments"]
    assert payments.stages == ("production", "staging")
    assert payments.secrets == {
        "production": PathSecret("database/creds/payments-production"),
        "staging": PathSecret("database/creds/payments-staging"),
    }
    assert payments.inject == (Basic(field("{username}"), field("{password}")),)
    checkout = Rule(principal=Pattern.parse("spiffe://corp/checkout/*"))
    assert payments.callers == Callers((checkout, Rule(claims=(Claim(("scope",), "pay"),))))


def test_example_geocoder(example: Config) -> None:
    """The contract's static upstream is read every five minutes and used for an hour."""
    geocoder = example.upstreams["geocoder"]
    assert geocoder.secrets == {"production": KvSecret("secret/geocoder", 300.0, 3600.0)}
    key = field("{api_key}")
    assert geocoder.inject == (Header("x-api-key", key), Query("key", key))
    assert geocoder.strip == ("x-debug-key",)
    assert geocoder.callers == Callers(None)


def test_example_rest(example: Config) -> None:
    """The contract's example has a route, two sockets and an audit file."""
    assert example.routes == (Route("payments", "production", "pay.example.com", "/v1/"),)
    assert example.listen == Listen(admin="unix:///run/vaultauthz/admin.sock")
    assert example.audit == Audit(Path("/var/log/vaultauthz/audit.jsonl"))
    assert example.unmatched == "deny"


def test_defaults(folder: Folder) -> None:
    """What is left out has the contract's default."""
    config = folder.parse(VALID.split("routes:")[0])
    assert config.vault == Vault("https://vault.test:8200", "", Tls(), 5.0)
    assert (config.routes, config.listen, config.audit) == ((), Listen(), Audit())
    assert config.warnings == ()
    assert config.stages["test"].auth == TokenFile(folder.path / "token")


def test_access_log(folder: Folder) -> None:
    """Envoy's log may not be there yet; a relative path starts where the configuration is."""
    config = folder.parse(f"{VALID}\naudit: {{access_log: envoy.jsonl}}")
    assert config.audit == Audit(None, folder.path / "envoy.jsonl")


def test_reading_twice_gives_equal_values(folder: Folder) -> None:
    """A reload can tell what is unchanged by comparing."""
    assert folder.parse(VALID) == folder.parse(VALID)


@pytest.mark.parametrize(
    ("section", "environ", "address"),
    [
        ("", {"VAULT_ADDR": "https://from.env:8200"}, "https://from.env:8200"),
        ("vault: {}", {"VAULT_ADDR": "http://127.0.0.1:8200/"}, "http://127.0.0.1:8200"),
        ("vault: {address: https://a}", {"VAULT_ADDR": "https://b"}, "https://a"),
        ("vault: {address: http://localhost:8200}", {}, "http://localhost:8200"),
        ("vault: {address: http://127.3.2.1:8200}", {}, "http://127.3.2.1:8200"),
        ("vault: {address: 'http://[::1]:8200'}", {}, "http://[::1]:8200"),
        ("vault: {address: unix:///run/vault.sock}", {}, "unix:///run/vault.sock"),
        ("vault: {address: http://far.test:8200, insecure: true}", {}, "http://far.test:8200"),
    ],
)
def test_vault_address(folder: Folder, section: str, environ: dict[str, str], address: str) -> None:
    """The address comes from the file, else from $VAULT_ADDR; clear text stays on this machine."""
    text = section + "\n" + VALID.split("\n", 2)[2]
    assert folder.parse(text, environ).vault.address == address


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ('bearer: "{token}"', Bearer(field("{token}"))),
        ('bearer: {token: "{token}"}', Bearer(field("{token}"))),
        ('cookie: {name: session, value: "{id}"}', Cookie("session", field("{id}"))),
        ('query: {name: "a b", value: "{id}"}', Query("a b", field("{id}"))),
        ('header: {name: X-K, value: "k={{{id}}}"}', Header("x-k", field("k={{{id}}}"))),
    ],
)
def test_injection_forms(folder: Folder, form: str, wanted: object) -> None:
    """Every injection form of the contract is read."""
    text = edited('header: {name: X-Api-Key, value: "{key}"}', form)
    assert folder.parse(text).upstreams["geo"].inject == (wanted,)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("{consumer: shop-*}", Rule(consumer=Pattern.parse("shop-*"))),
        ("{group: payers}", Rule(group="payers")),
        ("{methods: [get, POST]}", Rule(methods=frozenset(("GET", "POST")))),
        ("{path_prefix: /v1/}", Rule(path_prefix="/v1/")),
        ("{claims: {realm.role: pay}}", Rule(claims=(Claim(("realm", "role"), "pay"),))),
        ("{claims: {level: 3}}", Rule(claims=(Claim(("level",), 3),))),
        ("{claims: {level: '3'}}", Rule(claims=(Claim(("level",), "3"),))),
        ("{claims: {admin: true}}", Rule(claims=(Claim(("admin",), wanted=True),))),
        ("{claims: {answer: 'yes'}}", Rule(claims=(Claim(("answer",), "yes"),))),
    ],
)
def test_caller_rules(folder: Folder, rule: str, wanted: Rule) -> None:
    """Every key of a caller rule is read, claims with their types."""
    callers = folder.parse(edited("{principal: spiffe://corp/shop}", rule)).upstreams["geo"].callers
    assert callers == Callers((wanted,))
    text = edited("    stages: [prod]", f"    deny: [{rule}]")
    assert folder.parse(text).upstreams["geo"].callers.deny == (wanted,)


@pytest.mark.parametrize(
    ("secret", "wanted"),
    [
        ("{kv: secret/geo, refresh: 30m}", KvSecret("secret/geo", 1800.0, 5400.0)),
        ("{kv: secret/geo, refresh: 10s}", KvSecret("secret/geo", 10.0, 3600.0)),
        ("{kv: secret/geo, refresh: 1s, max_stale: 2s}", KvSecret("secret/geo", 1.0, 2.0)),
        ("{kv: '{stage}/geo'}", KvSecret("prod/geo", 300.0, 3600.0)),
        ("{path: aws/creds/geo}", PathSecret("aws/creds/geo")),
    ],
)
def test_secret_forms(folder: Folder, secret: str, wanted: object) -> None:
    """A static secret may be three readings old, an hour at least."""
    found = folder.parse(edited("{kv: secret/geo}", secret)).upstreams["geo"].secrets
    assert found == {"prod": wanted}


def test_numbers_stand_for_their_text(folder: Folder) -> None:
    """A role id of digits needs no quotes, and keeps its zeros."""
    text = edited("role_id: gateway", "role_id: 0012")
    auth = folder.parse(text).stages["prod"].auth
    assert isinstance(auth, AppRole)
    assert auth.role_id == "0012"


def test_inline_secret_is_hidden(folder: Folder) -> None:
    """A secret id in the configuration works, with a warning, and shows nowhere."""
    config = folder.parse(edited("secret_id_file: secret_id", f"secret_id: {SECRET}"))
    auth = config.stages["prod"].auth
    assert isinstance(auth, AppRole)
    assert auth.secret_id == Secret(SECRET)
    assert SECRET not in repr(config)
    assert config.warnings == (
        (
            "c.yaml:5: stages.prod.auth.secret_id: "
            "a secret stands in the configuration; use secret_id_file"
        ),
    )


@pytest.mark.parametrize(
    ("route", "wanted"),
    [
        ("{host: Geo.Test., upstream: geo}", Route("geo", "prod", "geo.test", "/")),
        ("{path_prefix: /geo/, upstream: geo}", Route("geo", "prod", "", "/geo/")),
        ("{host: '[::1]', upstream: geo}", Route("geo", "prod", "[::1]", "/")),
        ("{path_prefix: /, upstream: pay, stage: test}", Route("pay", "test", "", "/")),
    ],
)
def test_routes(folder: Folder, route: str, wanted: Route) -> None:
    """A route's stage may be left out where there is one only; hosts lose case and end dot."""
    text = edited("{host: pay.test, path_prefix: /v1, upstream: pay, stage: prod}", route)
    assert folder.parse(text).routes == (wanted,)


@pytest.mark.parametrize(
    ("listen", "wanted"),
    [
        ("{grpc: 'localhost:0'}", Listen("localhost:0")),
        ("{grpc: '[::1]:65535', transport: native}", Listen("[::1]:65535", transport="native")),
        (
            (
                "{grpc: '0.0.0.0:9', drain: 10s, grpc_tls: {cert: cert.pem, key: key.pem, "
                "client_ca: ca.pem, client_names: [Gateway.Internal, 'spiffe://Corp/gw', urn:a:b]}}"
            ),
            Listen(
                "0.0.0.0:9",
                ServerTls(
                    *(Path("cert.pem"), Path("key.pem"), Path("ca.pem")),
                    ("gateway.internal", "spiffe://Corp/gw", "urn:a:b"),
                ),
                drain=10.0,
            ),
        ),
        (
            (
                "{admin: 'ops.test:1', admin_token_file: token, "
                "admin_tls: {cert: cert.pem, key: key.pem}}"
            ),
            Listen(
                admin="ops.test:1",
                admin_tls=ServerTls(Path("cert.pem"), Path("key.pem")),
                admin_token_file=Path("token"),
            ),
        ),
        (f"{{grpc: 'unix:///{'s' * 106}'}}", Listen(f"unix:///{'s' * 106}")),
    ],
)
def test_listen(folder: Folder, listen: str, wanted: Listen) -> None:
    """Loopback and unix sockets need no TLS; other addresses have theirs."""
    config = folder.parse(
        edited("listen:\n  grpc: unix:///run/vaultauthz/grpc.sock\n", f"listen: {listen}\n")
    )
    assert repr(config.listen).replace(f"{folder.path}/", "") == repr(wanted)
    assert all("every user of this machine" in line for line in config.warnings)


def test_anchor_and_alias(folder: Folder) -> None:
    """An anchor saves writing a value twice."""
    text = edited("callers: any", "callers: &who [{group: a}]").replace(
        "callers:\n      - {principal: spiffe://corp/shop}", "callers: *who"
    )
    upstreams = folder.parse(text).upstreams
    assert upstreams["geo"].callers == upstreams["pay"].callers == Callers((Rule(group="a"),))


@pytest.mark.parametrize("key", ["optional: yes", "optional: true", "optional: True"])
def test_optional(folder: Folder, key: str) -> None:
    """Yes is true, as YAML has it; `per: instance` is the default, and may be said."""
    text = edited("    stages: [prod]", f"    {key}\n    per: instance")
    assert folder.parse(text).upstreams["geo"].optional


def test_byte_order_mark_and_crlf(folder: Folder) -> None:
    """A file from an editor on Windows loads."""
    path = folder.path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + VALID.replace("\n", "\r\n").encode())
    assert load(path, {}) == folder.parse("\ufeff" + VALID)


def test_no_environment_expansion(folder: Folder) -> None:
    """${VAR} is text like any other."""
    text = edited("role_id: gateway", "role_id: '${ROLE}'")
    auth = folder.parse(text, {"ROLE": "other"}).stages["prod"].auth
    assert isinstance(auth, AppRole)
    assert auth.role_id == "${ROLE}"


def test_unmatched_pass(folder: Folder) -> None:
    """Requests that nobody claims may be let through."""
    assert folder.parse(VALID + "unmatched: pass\n").unmatched == "pass"
