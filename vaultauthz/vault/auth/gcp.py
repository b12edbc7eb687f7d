"""Google Cloud: a token of the instance, or one that a service account signs.

Source of what Vault checks: vault-plugin-auth-gcp, ``path_login.go``.
"""

from __future__ import annotations

import os
from typing import Final, cast

from hvac.api.auth_methods import Gcp as Api

from vaultauthz.config.methods import Gcp
from vaultauthz.core.grant import Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault.auth import cloud
from vaultauthz.vault.errors import Call
from vaultauthz.vault.transport import Answer, Transport

_WHO: Final = "Google's metadata server"
# Its number, not its name: off Google Cloud, resolving the name can take longer than any timeout.
_HOST: Final = "169.254.169.254"
_PATH: Final = "/computeMetadata/v1/instance/service-accounts/default/identity"


def login(transport: Transport, auth: Gcp) -> Answer:
    """Log in with a new token; only ``iam`` needs the extra ``gcp``."""
    if auth.type == "iam":
        from vaultauthz.vault.auth import gcp_iam  # noqa: PLC0415  needs google-auth

        jwt = gcp_iam.signed(auth)
    else:
        jwt = _instance_token(auth)
    transport.call = Call.LOGIN
    answer = Api(transport).login(auth.role, jwt.reveal(), use_token=False, mount_point=auth.mount)
    return cast(Answer, answer)


def _instance_token(auth: Gcp) -> Secret:
    host = os.environ.get("GCE_METADATA_HOST") or _HOST  # google-auth's variable
    reply = cloud.exchange(
        _WHO,
        f"http://{host}{_PATH}",
        headers={"Metadata-Flavor": "Google"},
        # Vault wants the audience to end in vault/ROLE, and the instance in full.
        params={"audience": f"http://vault/{auth.role}", "format": "full"},
    )
    if reply.status == 404:
        raise cloud.failed("the instance has no service account", verdict=Verdict.REFUSED)
    if reply.status != 200:
        raise cloud.failed(f"{_WHO} answered {reply.status}")
    return cloud.as_token(_WHO, reply.data.decode("latin-1").strip())
