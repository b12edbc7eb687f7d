"""Logins by what a cloud says about the machine: ``aws``, ``gcp`` and ``azure``."""

from __future__ import annotations

import re
from functools import partial
from typing import Final

from vaultauthz.config import files, names
from vaultauthz.config.methods import Aws, Azure, Gcp
from vaultauthz.config.reader import Table, Value, quoted

AWS_KEYS: Final = ("method", "mount", "region", "role", "server_id")
GCP_KEYS: Final = ("credentials_file", "method", "mount", "role", "service_account", "type")
AZURE_KEYS: Final = ("client_id", "method", "mount", "resource", "role")
GCP_TYPES: Final = ("gce", "iam")
# Both end up in addresses: of the STS endpoint, of Google's IAM.
_REGION = re.compile(r"[a-z]{2,}(?:-[a-z]+)+-[0-9]{1,2}\Z")
_EMAIL = re.compile(r"[A-Za-z0-9_.+\-]+@[A-Za-z0-9_.\-]+\.[A-Za-z]+\Z")


def read_aws(table: Table) -> Aws:
    """``method: aws``."""
    return Aws(
        role=names.role(table),
        region=table.get("region", _region, ""),
        server_id=table.get("server_id", _header_text, ""),
        mount=table.get("mount", names.mount, "aws"),
    )


def _region(value: Value) -> str:
    text = value.text()
    if not _REGION.match(text):
        raise value.wrong(f"{quoted(text)} is no region; write it as in eu-central-1")
    return text


def _header_text(value: Value) -> str:
    text = value.text()
    if not text.isascii():
        raise value.wrong("is sent as a header; write it in ASCII, as Vault has it configured")
    return text


def read_gcp(table: Table) -> Gcp:
    """``method: gcp``."""
    # "" when it is refused: what goes with it is not told to be wrong, then.
    usual = "" if "type" in table else "gce"
    kind = table.get("type", partial(Value.choice, allowed=GCP_TYPES), usual)
    for key in ("credentials_file", "service_account"):
        if key in table and kind == "gce":
            text = "is for type: iam; remove it, or set type"
            table.place.report.refused(table.entries[key].wrong(text))
    if kind == "iam" and not {"credentials_file", "service_account"} & set(table.entries):
        table.missing("service_account", "add its e-mail address, or credentials_file: FILE")
    return Gcp(
        role=names.role(table),
        type=kind,
        service_account=table.get("service_account", _email, ""),
        credentials_file=table.get("credentials_file", files.private, None),
        mount=table.get("mount", names.mount, "gcp"),
    )


def _email(value: Value) -> str:
    text = value.text()
    if not _EMAIL.match(text):
        raise value.wrong(f"{quoted(text)} is no service account; write its e-mail address")
    return text


def read_azure(table: Table) -> Azure:
    """``method: azure``."""
    return Azure(
        role=names.role(table),
        resource=table.get("resource", Value.text, Azure("").resource),
        client_id=table.get("client_id", Value.text, ""),
        mount=table.get("mount", names.mount, "azure"),
    )
