"""AWS's part that botocore does: it finds credentials, and signs a ``sts:GetCallerIdentity``.

Source of what Vault checks: ``builtin/credential/aws/path_login.go``.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
from typing import Any, Final
from urllib.parse import urlsplit

from botocore import UNSIGNED
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import ProcessProvider
from botocore.exceptions import ClientError
from botocore.session import Session

from vaultauthz.config.auth import SignedFields
from vaultauthz.config.auth.aws import Aws
from vaultauthz.core import redaction
from vaultauthz.core.secret import Secret
from vaultauthz.vault.auth import cloud
from vaultauthz.vault.errors import VaultError

_BODY: Final = "Action=GetCallerIdentity&Version=2011-06-15"
_SECRET_HEADERS: Final = ("authorization", "x-amz-security-token")
# Where Vault sends the request when nothing is configured there, and the region it is of.
_GLOBAL: Final = ("sts.amazonaws.com", "us-east-1")
# For what the chain asks of STS and SSO; the metadata services have their own, shorter ones.
_CALLS: Final = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 2})
_ENDPOINT: Final = Config(
    signature_version=UNSIGNED,
    ignore_configured_endpoint_urls=True,
    use_fips_endpoint=False,
    use_dualstack_endpoint=False,
)


def signed(auth: Aws) -> SignedFields:
    """What goes to Vault beside the role, signed by whom the standard credential chain finds.

    Raises:
        VaultError: nobody was found, or the chain failed.
    """
    cloud.quiet("botocore")
    try:
        return _signed(_session(auth), auth)
    except VaultError:
        raise
    # The chain reads files, runs programs and parses answers; its errors may quote them.
    except Exception as exc:
        raise cloud.failed("the AWS credential chain failed", _kind(exc)) from exc


def _kind(exc: Exception) -> str:
    """Which error it is, without its text."""
    code = exc.response.get("Error", {}).get("Code", "") if isinstance(exc, ClientError) else ""
    return f"{type(exc).__name__} {redaction.shown(str(code))[:64]}".strip()


def _session(auth: Aws) -> Session:
    session = Session()
    session.set_default_client_config(_CALLS)
    # botocore reads AWS_DEFAULT_REGION only; the other SDKs, and Lambda, set this one.
    region = auth.region or os.environ.get("AWS_REGION") or session.get_config_variable("region")
    session.set_config_variable("region", region or _GLOBAL[1])
    return session


def _signed(session: Session, auth: Aws) -> SignedFields:
    """A request, its signature among its headers.

    STS's errors show the text that was signed, session token and all.
    """
    host, region = _endpoint(auth.region, session.get_config_variable("region"))
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    if auth.server_id:
        headers["X-Vault-AWS-IAM-Server-ID"] = auth.server_id
    request = AWSRequest("POST", f"https://{host}/", headers=headers, data=_BODY)
    SigV4Auth(_credentials(session), "sts", region).add_auth(request)
    sent = {name: [value] for name, value in request.headers.items()}
    fields: dict[str, str | Secret] = {
        "iam_http_request_method": "POST",
        "iam_request_url": _encoded(request.url),
        "iam_request_body": _encoded(_BODY),
        "iam_request_headers": Secret(_encoded(json.dumps(sent))),
    }
    hidden = (value for name, value in request.headers.items() if name.lower() in _SECRET_HEADERS)
    return SignedFields(fields, tuple(hidden))


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _endpoint(configured: str, here: str) -> tuple[str, str]:
    """The host that Vault is to send the request to, and the region it is signed for.

    Vault goes to its own ``sts_endpoint``, the global one by default, but keeps our host
    in the signature: they must be the same. So the environment's region (``here``), which
    most places set, does not choose it, nor does it with Vault's own agent; only ``region``
    does. China, GovCloud and the like have no global endpoint.
    """
    host, partition = _regional(configured or here)
    if not configured and partition == "aws":
        return _GLOBAL
    return host, configured or here


def _regional(region: str) -> tuple[str, str]:
    """The regional endpoint's host, and its partition, as botocore knows them."""
    session = Session()
    # Vault is to go there, not this machine: its own ways to STS don't count.
    session.set_config_variable("sts_regional_endpoints", "regional")
    meta = session.create_client("sts", region_name=region, config=_ENDPOINT).meta
    return str(urlsplit(meta.endpoint_url).netloc), str(meta.partition)


def _credentials(session: Session) -> Any:
    _bound_process(session)
    found = session.get_credentials()
    frozen = found.get_frozen_credentials() if found else None
    if frozen is None or not frozen.access_key:
        # Worth another try: a pod's or an instance's identity may only be on its way.
        raise cloud.failed("no AWS credentials were found")
    return frozen


def _bound_process(session: Session) -> None:
    """Have the profile's ``credential_process`` ended when it takes too long."""
    chain = session.get_component("credential_provider")
    name = session.get_config_variable("profile") or "default"
    bounded = ProcessProvider(name, lambda: session.full_config, popen=_Process)
    chain.insert_after(ProcessProvider.METHOD, bounded)
    chain.remove(ProcessProvider.METHOD)  # the first of that name


class _Process(subprocess.Popen[bytes]):
    """With a session of its own, so that whatever it starts can be ended with it."""

    TIMEOUT = 10.0  # seconds, from the start to its end

    def __init__(self, args: list[str], **settings: Any) -> None:
        super().__init__(args, start_new_session=True, **settings)

    def communicate(self, input: Any = None, timeout: float | None = None) -> Any:  # noqa: A002
        try:
            return super().communicate(input, timeout or self.TIMEOUT)
        except subprocess.TimeoutExpired:
            with self:  # which closes its pipes and waits for it
                os.killpg(self.pid, signal.SIGKILL)
            raise
