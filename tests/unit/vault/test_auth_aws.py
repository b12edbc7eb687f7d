"""What is signed for AWS, and for which endpoint, without asking anybody."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import JSONFileLoader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vaultauthz.config.auth.aws import Aws
from vaultauthz.core.grant import Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault import auth
from vaultauthz.vault.auth import aws, cloud
from vaultauthz.vault.errors import Call, VaultError

REGIONS = {
    "us-east-1": "sts.us-east-1.amazonaws.com",
    "eu-west-1": "sts.eu-west-1.amazonaws.com",
    "cn-north-1": "sts.cn-north-1.amazonaws.com.cn",
    "us-gov-west-1": "sts.us-gov-west-1.amazonaws.com",
    "eusc-de-east-1": "sts.eusc-de-east-1.amazonaws.eu",
}
GLOBAL = ("sts.amazonaws.com", "us-east-1")


class Recorder:
    """Stands where the transport does; keeps what would go to Vault."""

    def __init__(self) -> None:
        self.call = Call.OTHER
        self.sent: dict[str, Any] = {}
        self.url = ""
        self.hidden: tuple[str, ...] = ()

    def post(self, url: str, *, json: dict[str, Any], hidden: tuple[str, ...]) -> dict[str, Any]:
        """Keep it."""
        assert self.call is Call.LOGIN
        assert [name for name, value in json.items() if isinstance(value, Secret)] == [
            "iam_request_headers"
        ]
        self.url, self.hidden = url, hidden
        self.sent = {k: v.reveal() if isinstance(v, Secret) else v for k, v in json.items()}
        return {}


@pytest.fixture(scope="module", autouse=True)
def read_once() -> Iterator[None]:
    """Each session of botocore's reads its description of AWS anew: most of what these tests took."""
    load = functools.cache(JSONFileLoader().load_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: load(path))
        yield


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Temporary keys in the environment, and nothing else of AWS."""
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t0ken")


def sent(values: Aws) -> dict[str, Any]:
    """The fields of the login, the encoded ones decoded."""
    recorder: Any = Recorder()
    auth.login(recorder, values, {})
    found = {
        name: value if name in ("role", "iam_http_request_method") else base64.b64decode(value)
        for name, value in recorder.sent.items()
    }
    return {**found, "iam_request_headers": json.loads(found["iam_request_headers"])}


def test_the_fields_are_those_that_vault_documents() -> None:
    """Method, URL and body as Vault sends them; each header a list, as Go has them."""
    found = sent(Aws("gateway", server_id="vault.internal"))
    headers = found.pop("iam_request_headers")
    assert found == {
        "role": "gateway",
        "iam_http_request_method": "POST",
        "iam_request_url": b"https://sts.amazonaws.com/",
        "iam_request_body": b"Action=GetCallerIdentity&Version=2011-06-15",
    }
    assert all(isinstance(values, list) and len(values) == 1 for values in headers.values())
    assert headers["X-Vault-AWS-IAM-Server-ID"] == ["vault.internal"]
    assert headers["X-Amz-Security-Token"] == ["t0ken"]
    signed = headers["Authorization"][0]
    names = "content-type;host;x-amz-date;x-amz-security-token;x-vault-aws-iam-server-id"
    assert f"SignedHeaders={names}," in signed
    assert "/us-east-1/sts/aws4_request," in signed


def test_the_secret_key_is_not_sent() -> None:
    """Only what it signed is."""
    assert "s3cr3t" not in str(sent(Aws("gateway")))


def test_a_mount_elsewhere_is_asked() -> None:
    """With its slashes."""
    recorder: Any = Recorder()
    auth.login(recorder, Aws("gateway", mount="edge/aws"), {})
    assert recorder.url == "/v1/auth/edge/aws/login"


@pytest.mark.parametrize(("region", "host"), REGIONS.items())
def test_a_region_has_its_own_endpoint(region: str, host: str) -> None:
    """In the domain of its partition, and signed for that region."""
    assert aws._endpoint(region, "us-east-1") == (host, region)


@pytest.mark.parametrize("here", REGIONS)
def test_without_a_region_it_is_the_global_endpoint_where_there_is_one(here: str) -> None:
    """China, GovCloud and the European cloud have none."""
    without = here.startswith(("cn-", "us-gov-", "eusc-"))
    assert aws._endpoint("", here) == ((REGIONS[here], here) if without else GLOBAL)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1"),
        ("AWS_STS_REGIONAL_ENDPOINTS", "legacy"),
        ("AWS_USE_FIPS_ENDPOINT", "true"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "true"),
    ],
)
def test_this_machines_own_way_to_sts_is_not_vaults(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Vault sends the request from where it is; the signature is for its endpoint."""
    monkeypatch.setenv(name, value)
    assert aws._endpoint("eu-west-1", "eu-west-1") == (REGIONS["eu-west-1"], "eu-west-1")


def test_what_the_chain_asks_is_bounded() -> None:
    """Clients that botocore makes for itself (web identity, SSO) wait seconds, not minutes."""
    config = aws._session(Aws("gateway")).create_client("sts").meta.config
    assert config.connect_timeout + config.read_timeout <= 10
    assert config.retries["total_max_attempts"] == 2


@pytest.mark.parametrize("given_by", ["AWS_REGION", "AWS_DEFAULT_REGION", "config", ""])
def test_the_chain_has_a_region(monkeypatch: pytest.MonkeyPatch, given_by: str) -> None:
    """STS is asked in this machine's own; without any, where AWS began."""
    if given_by.startswith("AWS"):
        monkeypatch.setenv(given_by, "eu-west-1")
    values = Aws("gateway", region="eu-west-1" if given_by == "config" else "")
    region = aws._session(values).get_config_variable("region")
    assert region == ("eu-west-1" if given_by else "us-east-1")


def test_a_profile_that_does_not_exist_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no error of another kind, and a mended file is found at the next try."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(VaultError) as caught:
        sent(Aws("gateway"))
    assert (caught.value.failure.verdict, caught.value.detail) == (Verdict.RETRY, "ProfileNotFound")


@given(text=st.text())
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=30,
)
def test_no_region_makes_another_kind_of_error(text: str) -> None:
    """Whatever the environment says, there is a login or a VaultError."""
    value = text.replace("\0", "").encode(errors="ignore").decode()
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(VaultError):
        patch.setenv("AWS_REGION", value)
        assert sent(Aws("gateway"))["iam_request_url"].startswith(b"https://sts.")


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK is not installed by itself."""
    monkeypatch.delitem(sys.modules, "vaultauthz.vault.auth.aws", raising=False)
    monkeypatch.delattr(auth, "aws", raising=False)
    monkeypatch.setitem(sys.modules, "botocore", None)
    recorder: Any = Recorder()
    with pytest.raises(VaultError) as caught:
        auth.login(recorder, Aws("gateway"), {})
    assert caught.value.failure.verdict is Verdict.REFUSED
    assert "pip install 'botocore>=1.35'" in caught.value.failure.reason


@pytest.mark.parametrize(("before", "after"), [(logging.NOTSET, logging.CRITICAL), (10, 10)])
def test_a_level_that_a_program_chose_is_kept(before: int, after: int) -> None:
    """A program that embeds us may want its own botocore's lines."""
    logger = logging.getLogger("vaultauthz.test.library")
    logger.setLevel(before)
    cloud.quiet(logger.name)
    assert logger.level == after
