"""The page: one file without any outside part, which asks /leases and /readyz for its data."""

from __future__ import annotations

import base64
import re
from functools import cache
from hashlib import sha256
from importlib.resources import files

from vaultauthz.admin.answer import Answer


@cache
def answer() -> Answer:
    """The page with a policy under which only its own script and style run."""
    html = files("vaultauthz.admin").joinpath("page.html").read_text("utf-8")
    policy = (
        f"default-src 'none'; connect-src 'self'; img-src data:; "
        f"script-src {_hash(html, 'script')}; style-src {_hash(html, 'style')}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Answer(200, html.encode(), "text/html; charset=utf-8", policy=policy)


def _hash(html: str, tag: str) -> str:
    texts = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digest = sha256("".join(texts).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
