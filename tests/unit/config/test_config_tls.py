"""``inject: tls``: what it is read as, and what is refused."""

from __future__ import annotations

import pytest

from vaultauthz.config.forms.tls import ClientCertificate
from vaultauthz.core.template import Template

from .conftest import Folder, edited
from .test_config_signing import HEADER, PLACE, read, told

field = Template.parse


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ("{tls: {}}", ClientCertificate()),
        ('{tls: {chain: "{ca_chain}"}}', ClientCertificate(chain=field("{ca_chain}"))),
        (
            '{tls: {certificate: "{crt}", private_key: "{key}", chain: "{ca}"}}',
            ClientCertificate(field("{crt}"), field("{key}"), field("{ca}")),
        ),
    ],
)
def test_read(folder: Folder, form: str, wanted: ClientCertificate) -> None:
    """What is left out is named as the PKI engine names it."""
    assert read(folder, form) == wanted


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ("{tls: yes}", ".tls: "),
        ("{tls: {cert: x}}", ".tls.cert: unknown key; known here: certificate, chain, private_key"),
        ("{tls: {private_key: {key}}}", ".tls.private_key: wants text, found a mapping; put it"),
    ],
)
def test_refused(folder: Folder, form: str, wanted: str) -> None:
    """With the place and the way out."""
    (problem,) = told(folder, form)
    assert problem.startswith(wanted), problem


def test_one_certificate_is_enough(folder: Folder) -> None:
    """An Envoy shows one."""
    (problem,) = folder.problems(edited(HEADER, "{tls: {}}\n      - {tls: {}}"))
    assert "sets the client certificate, as line" in problem
    assert PLACE.replace("[0]", "[1]") in problem


def test_a_key_in_the_file_is_warned_about(folder: Folder) -> None:
    """A private key without a field of the secret stands in the configuration."""
    config = folder.parse(edited(HEADER, '{tls: {private_key: "in the clear"}}'))
    assert any("private_key: has no" in warning for warning in config.warnings)
