"""The aws login against Vault's plugin and moto's STS: every way to credentials, every refusal."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session as AwsSession
from moto.iam.models import iam_backends
from moto.server import ThreadedMotoServer
from moto.sts.models import sts_backends

from tests.contract.aws_plugin import AwsPlugin, Key
from tests.contract.cloud_http import CloudService, Told
from tests.contract.faults import wait_until
from tests.contract.metadata import Imds, PodIdentity
from vaultauthz.config.auth.aws import Aws
from vaultauthz.config.values import Vault
from vaultauthz.core.grant import Grant, Verdict
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.session import Session

ACCOUNT = "123456789012"
ROLE_ARN = f"arn:aws:iam::{ACCOUNT}:role/gateway"
ROLES = {
    "user": f"arn:aws:iam::{ACCOUNT}:user/gateway",
    "machine": ROLE_ARN,
    "china": f"arn:aws-cn:iam::{ACCOUNT}:user/moto",  # whom moto names where it knows no user
}
Keys = dict[str, str]


@dataclass(frozen=True)
class Cloud:
    """moto: its address, a user's long-lived keys, and new temporary ones of the role."""

    address: str
    keys: Keys
    assume: Callable[[], Keys]


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    """A moto server with a user."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    known: dict[str, Any] = {
        "region_name": "us-east-1",
        "endpoint_url": address,
        "aws_access_key_id": "root",
        "aws_secret_access_key": "root",
    }
    session = AwsSession()
    iam, sts = session.create_client("iam", **known), session.create_client("sts", **known)
    iam.create_user(UserName="gateway")
    keys = iam.create_access_key(UserName="gateway")["AccessKey"]

    def assume() -> Keys:
        answer = sts.assume_role(RoleArn=ROLE_ARN, RoleSessionName="i-0abc")
        return {name: str(value) for name, value in answer["Credentials"].items()}

    yield Cloud(address, keys, assume)
    server.stop()


def key_of(access_key: str) -> Key:
    """What AWS knows of an access key; moto runs in this process."""
    for user in iam_backends[ACCOUNT]["aws"].users.values():
        for key in user.access_keys:
            if key.access_key_id == access_key:
                return Key(key.secret_access_key)
    for role in sts_backends[ACCOUNT]["aws"].assumed_roles:
        if role.access_key_id == access_key:
            return Key(role.secret_access_key, role.session_token)
    return Key("nobody has this one")


@pytest.fixture
def plugin(cloud: Cloud) -> Iterator[AwsPlugin]:
    """A Vault with the aws method and a role for each principal."""
    with AwsPlugin(cloud.address, key_of, ROLES) as vault:
        yield vault


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment with no way to credentials."""
    for name in os.environ:
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))


def in_environment(monkeypatch: pytest.MonkeyPatch, keys: Keys) -> None:
    """Put the keys where the chain looks first."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"])
    if "SessionToken" in keys:
        monkeypatch.setenv("AWS_SESSION_TOKEN", keys["SessionToken"])


def login(plugin: AwsPlugin, role: str = "user", **settings: Any) -> Grant:
    """Log in, as a stage does."""
    return Session(Vault(plugin.address), Aws(role, **settings), time.monotonic).login()


def refused(plugin: AwsPlugin, role: str = "user", **settings: Any) -> VaultError:
    """The error of a login that must not work."""
    with pytest.raises(VaultError) as caught:
        login(plugin, role, **settings)
    return caught.value


def test_long_lived_keys_log_in(
    plugin: AwsPlugin, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys from the environment; Vault learns their user from STS's global endpoint."""
    in_environment(monkeypatch, cloud.keys)
    assert login(plugin).payload.reveal() == "hvs.cl0ud"
    assert plugin.logins == [{"client_arn": ROLES["user"], "host": "sts.amazonaws.com"}]


def test_temporary_keys_log_in_with_their_session_token(
    plugin: AwsPlugin, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session token is signed with the request; the principal is the assumed role."""
    in_environment(monkeypatch, cloud.assume())
    login(plugin, "machine")
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/gateway/i-0abc"
    assert plugin.logins[0]["client_arn"] == arn


def test_keys_are_looked_for_anew_at_each_login(
    plugin: AwsPlugin, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was rotated in the meantime is what the next login signs with."""
    in_environment(monkeypatch, cloud.keys)
    login(plugin)
    in_environment(monkeypatch, cloud.assume())
    login(plugin, "machine")
    assert len({found["client_arn"] for found in plugin.logins}) == 2


def test_a_profile_of_the_credentials_file_logs_in(
    plugin: AwsPlugin, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """AWS_PROFILE names it."""
    lines = [
        "[gateway]",
        f"aws_access_key_id = {cloud.keys['AccessKeyId']}",
        f"aws_secret_access_key = {cloud.keys['SecretAccessKey']}",
    ]
    (tmp_path / "credentials").write_text("\n".join(lines))
    monkeypatch.setenv("AWS_PROFILE", "gateway")
    login(plugin)
    assert plugin.logins


def credential_process(folder: Path, script: str) -> None:
    """A profile whose keys a program prints."""
    program = folder / "keys.sh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    (folder / "config").write_text(f"[default]\ncredential_process = {program}\n")


def test_a_credential_process_logs_in(plugin: AwsPlugin, cloud: Cloud, tmp_path: Path) -> None:
    """The profile's program prints the keys."""
    names = ("AccessKeyId", "SecretAccessKey")
    printed = json.dumps({"Version": 1, **{name: cloud.keys[name] for name in names}})
    credential_process(tmp_path, f"echo '{printed}'")
    login(plugin)
    assert plugin.logins


def test_a_credential_process_that_hangs_is_ended(
    plugin: AwsPlugin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It costs one login its turn and never the stage its worker."""
    from vaultauthz.vault.auth import aws

    monkeypatch.setattr(aws._Process, "TIMEOUT", 3.0)
    credential_process(tmp_path, f"sleep 600 & echo $! > {tmp_path}/pid; wait")
    error = refused(plugin)
    sleeper = Path("/proc") / (tmp_path / "pid").read_text().strip() / "stat"
    assert wait_until(lambda: not sleeper.exists() or ") Z " in sleeper.read_text())
    assert (error.failure.verdict, error.detail) == (Verdict.RETRY, "TimeoutExpired")


def test_what_a_credential_process_says_is_not_told(
    plugin: AwsPlugin, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Its error output may hold anything."""
    credential_process(tmp_path, "echo s3cr3t >&2; exit 1")
    caplog.set_level(logging.DEBUG)
    error = refused(plugin)
    assert error.failure.reason == "the AWS credential chain failed"
    assert error.detail == "CredentialRetrievalError"
    assert "s3cr3t" not in f"{error!r} {error.detail} {caplog.text}"


def test_a_web_identity_logs_in(
    plugin: AwsPlugin, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """IRSA: the pod's token buys the role's keys from STS. No region is needed for that."""
    (tmp_path / "token").write_text("eyJ.pod.token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE_ARN)
    monkeypatch.setenv("AWS_ROLE_SESSION_NAME", "pod-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", cloud.address)
    login(plugin, "machine")
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/gateway/pod-1"
    assert plugin.logins == [{"client_arn": arn, "host": "sts.amazonaws.com"}]


def test_a_container_endpoint_logs_in(
    plugin: AwsPlugin, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """EKS pod identity: the agent wants the pod's token, which is read from its file."""
    (tmp_path / "token").write_text("pod-token")
    with PodIdentity(cloud.assume(), "pod-token") as agent:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{agent.address}/v1/credentials")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
        login(plugin, "machine")
    assert plugin.logins


def test_an_instance_logs_in(
    plugin: AwsPlugin, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EC2's instance profile, by IMDSv2."""
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    with Imds(cloud.assume()) as imds:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.address)
        login(plugin, "machine")
    assert plugin.logins


def test_the_server_id_is_signed(
    plugin: AwsPlugin, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Vault that wants its own name in the signature gets it; with another it refuses."""
    in_environment(monkeypatch, cloud.keys)
    plugin.server_id = "vault.internal"
    login(plugin, server_id="vault.internal")
    assert refused(plugin, server_id="another").status == 400
    assert refused(plugin).failure.verdict is Verdict.REFUSED


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_of_the_environment_does_not_choose_the_endpoint(
    plugin: AwsPlugin, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Most places set it, while Vault goes to the global endpoint unless told otherwise."""
    in_environment(monkeypatch, cloud.keys)
    monkeypatch.setenv(name, "eu-west-1")
    login(plugin)
    assert plugin.logins[0]["host"] == "sts.amazonaws.com"


def test_a_regional_endpoint_logs_in(
    plugin: AwsPlugin, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``region`` with a Vault that has the endpoint configured, or takes the client's region."""
    in_environment(monkeypatch, cloud.keys)
    plugin.region_from_client = True
    login(plugin, region="eu-west-1")
    plugin.region_from_client = False
    plugin.sts_endpoint = "https://sts.eu-central-1.amazonaws.com"
    plugin.sts_region = "eu-central-1"
    login(plugin, region="eu-central-1")
    hosts = [found["host"] for found in plugin.logins]
    assert hosts == ["sts.eu-west-1.amazonaws.com", "sts.eu-central-1.amazonaws.com"]


def test_another_region_than_vaults_is_refused(
    plugin: AwsPlugin, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signature holds for one endpoint; the fault is a setting, so it is final."""
    in_environment(monkeypatch, cloud.keys)
    error = refused(plugin, region="eu-west-1")
    assert (error.status, error.failure.verdict) == (400, Verdict.REFUSED)
    assert "valid region" in error.detail


@pytest.mark.parametrize("settings", [{"region": "cn-north-1"}, {}])
def test_china_logs_in(
    plugin: AwsPlugin, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    """It has no global endpoint, so the environment's region is enough to choose its own."""
    in_environment(monkeypatch, cloud.keys)
    monkeypatch.setenv("AWS_REGION", "cn-north-1")
    plugin.sts_endpoint = "https://sts.cn-north-1.amazonaws.com.cn"
    plugin.sts_region = "cn-north-1"
    login(plugin, "china", **settings)
    assert plugin.logins[0]["host"] == "sts.cn-north-1.amazonaws.com.cn"


def test_a_wrong_secret_is_refused(
    plugin: AwsPlugin, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STS sees that the signature is another's; nothing of the request is told."""
    in_environment(monkeypatch, {**cloud.keys, "SecretAccessKey": "wr0ng-s3cr3t"})
    error = refused(plugin)
    assert plugin.refused == ["SignatureDoesNotMatch"]
    assert "wr0ng" not in f"{error!r} {error.detail}"


@pytest.mark.parametrize("role", ["machine", "nobody"])
def test_a_role_that_is_another_principals_is_refused(
    plugin: AwsPlugin, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """As is one that does not exist."""
    in_environment(monkeypatch, cloud.keys)
    error = refused(plugin, role)
    assert (error.status, error.failure.verdict) == (400, Verdict.REFUSED)


def test_no_credentials_are_worth_another_try(plugin: AwsPlugin) -> None:
    """A pod's or an instance's identity may only be on its way; Vault is not asked."""
    error = refused(plugin)
    assert error.failure.verdict is Verdict.RETRY
    assert error.failure.reason == "no AWS credentials were found"
    assert not plugin.heard


def test_what_aws_refuses_is_told_by_its_code(
    plugin: AwsPlugin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The operator sees which way to credentials broke, and never what was sent on it."""
    (tmp_path / "token").write_text("s3cr3t-pod-token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE_ARN)
    denied = "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>"
    with CloudService(lambda asked: Told(403, denied)) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.address)
        error = refused(plugin)
    assert error.failure.reason == "the AWS credential chain failed"
    assert error.detail == "ClientError AccessDenied"


def test_nothing_that_is_signed_gets_into_a_log(
    plugin: AwsPlugin,
    cloud: Cloud,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not even when everything else logs at debug: botocore would show token and signature."""
    keys = cloud.assume()
    in_environment(monkeypatch, keys)
    caplog.set_level(logging.DEBUG)
    login(plugin, "machine")
    lines = [record.getMessage() for record in caplog.records if record.name != "werkzeug"]
    assert not [record for record in caplog.records if record.name.startswith("botocore")]
    assert not [line for line in lines if keys["SessionToken"] in line or "Signature" in line]
