"""Configurations to print for, and what was printed, parsed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests import fast_yaml
from vaultauthz.config import Config, parse

ROOT = Path(__file__).parents[3]
HEAD = """
vault: {address: "http://127.0.0.1:8200"}
stages:
  production: {auth: {method: token_file, path: token, allow_long_lived: true}}
"""
STAGING = "  staging: {auth: {method: token_file, path: token, allow_long_lived: true}}\n"

Document = dict[str, Any]


def config_of(upstreams: str, head: str = HEAD) -> Config:
    """The configuration with these upstreams, as YAML."""
    return parse(head + upstreams, "test", ROOT, {})


def bootstrap(text: str) -> Document:
    """A printed bootstrap."""
    document: Document = fast_yaml.load(text)
    return document


def manager_of(document: Document) -> Document:
    """Its connection manager."""
    chain = document["static_resources"]["listeners"][0]["filter_chains"][0]
    manager: Document = chain["filters"][0]["typed_config"]
    return manager


def cluster(document: Document, name: str) -> Document:
    """One of its clusters."""
    (found,) = [c for c in document["static_resources"]["clusters"] if c["name"] == name]
    made: Document = found
    return made


def filter_of(document: Document, name: str = "envoy.filters.http.ext_authz") -> Document:
    """One of its filters."""
    (found,) = [f for f in manager_of(document)["http_filters"] if f["name"] == name]
    made: Document = found["typed_config"]
    return made
