"""What a node that does not answer is told with."""

from __future__ import annotations

import pytest

from vaultauthz.config.values import Vault
from vaultauthz.doctor import reach

NOBODY = "https://127.0.0.1:1"


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, ""),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "HTTPS_PROXY"),
        ({"https_proxy": "http://proxy:3128", "ALL_PROXY": "http://b"}, "https_proxy"),
        ({"ALL_PROXY": "http://proxy:3128"}, "ALL_PROXY"),
        ({"HTTP_PROXY": "http://proxy:3128"}, ""),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "localhost,127.0.0.1"}, ""),
    ],
)
def test_a_proxy_that_others_use(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], wanted: str
) -> None:
    """It is named, as it is not used for Vault."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert reach.node(Vault(NOBODY), NOBODY).proxy == wanted
