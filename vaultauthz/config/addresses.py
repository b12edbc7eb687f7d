"""Addresses: Vault's, and those that this server listens on."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from vaultauthz.config.reader import Value, quoted

UNIX: Final = "unix://"
# sockaddr_un's 108 bytes on Linux, less the NUL that ends the path.
LONGEST_SOCKET_PATH: Final = 107

_HOST = re.compile(r"(?!-)[A-Za-z0-9_.\-]{1,253}\Z|\[[0-9A-Fa-f:.]{2,45}\]\Z")
_PORT = re.compile(r"[0-9]{1,5}\Z")
_LAST_PORT = 65535
_VAULT_FORMS = "use https://HOST:PORT"
_LISTEN_FORMS = "use HOST:PORT or unix:///PATH"
_SERVICE_FORMS = "write https://HOST:PORT"


def is_loopback(host: str) -> bool:
    """Whether ``host`` (brackets allowed) is this machine under any DNS."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_local(address: str) -> bool:
    """Whether a listening address can be reached from this machine only."""
    return address.startswith(UNIX) or is_loopback(address.rpartition(":")[0])


def valid_host(host: str) -> bool:
    """Whether ``host`` is a name, an IPv4 address, or an IPv6 address in brackets."""
    if not _HOST.match(host):
        return False
    if not host.startswith("["):
        return True
    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return False
    return True


def vault(value: Value, *, insecure: bool) -> str:
    """``http(s)://host[:port]`` or ``unix:///path``, without a slash at the end."""
    text = value.text().strip()
    if text.startswith(UNIX):
        return _socket(value, text)
    if "@" in text:  # first of all, because it must not be shown
        raise value.wrong("holds a user name or password; leave it out, stages say how to log in")
    url = _split(value, text)
    if url.scheme not in ("http", "https"):
        raise value.wrong(f"{quoted(text)} is no address of Vault; {_VAULT_FORMS}")
    host = url.netloc.removesuffix(f":{url.port}") if url.port is not None else url.netloc
    if not valid_host(host):
        raise value.wrong(f"{quoted(text)} has no valid host; {_VAULT_FORMS}")
    if url.path not in ("", "/") or url.query or url.fragment:
        raise value.wrong(f"{quoted(text)} goes on after the host; {_VAULT_FORMS}")
    if url.scheme == "http" and not is_loopback(host):
        _check_clear_text(value, text, insecure=insecure)
    return f"{url.scheme}://{url.netloc}"


def service(value: Value, text: str) -> str:
    """``http(s)://host[:port]`` of a service, without a slash at the end.

    What is refused is not shown: a token may stand in its path or query.
    """
    url = web(value, text, f"{_SERVICE_FORMS}, and leave the credential to inject")
    if url.path not in ("", "/") or url.query or url.fragment:
        raise value.wrong(
            f"goes on after the host; {_SERVICE_FORMS}: the request has the path, and routes say "
            "which"
        )
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        value.warn("sends the credential in clear text; use https://")
    return f"{url.scheme}://{url.netloc.lower()}"


def web(value: Value, text: str, forms: str) -> SplitResult:
    """An ``http(s)://`` URL, with a valid host and port and no user in it; ``forms`` is the way out."""
    text = text.strip()
    if "@" in text:
        raise value.wrong(f"holds a user name or password; {forms}")
    if not text.lower().startswith(("https://", "http://")):
        raise value.wrong(f"does not begin with https:// or http://; {forms}")
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        port = 0
    if port == 0:
        raise value.wrong(f"has no valid port; use 1 to {_LAST_PORT}")
    host = url.netloc.removesuffix(f":{port}") if port is not None else url.netloc
    if not valid_host(host):
        raise value.wrong(f"has no valid host; {forms}, IPv6 in [ ]")
    return url


def gateway(value: Value) -> str:
    """``ip:port``, where a gateway listens."""
    text = value.text().strip()
    host, _, port = text.rpartition(":")
    if not _PORT.match(port) or not 0 < int(port) <= _LAST_PORT:
        raise value.wrong(f"{quoted(text)} has no valid port; use IP:PORT, as in 0.0.0.0:8443")
    if "%" in host:  # Python takes any text for a zone
        raise value.wrong(f"{quoted(text)} has a zone; leave out the % and what follows it")
    if not valid_host(host) or not _is_ip(host):
        raise value.wrong(
            f"{quoted(text)} has no valid host; use one of its machine's IP addresses, 0.0.0.0 or "
            "[::] for all"
        )
    return text


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _split(value: Value, text: str) -> SplitResult:
    try:
        url = urlsplit(text)
        _ = url.port  # only looking at it finds a port that is none
    except ValueError:
        raise value.wrong(f"{quoted(text)} is no address of Vault; {_VAULT_FORMS}") from None
    return url


def _check_clear_text(value: Value, text: str, *, insecure: bool) -> None:
    if not insecure:
        raise value.wrong(
            f"{quoted(text)} would send logins and secrets in clear text; "
            "use https:// (or set vault.insecure: true, on a network that only you can read)"
        )
    value.warn(f"{quoted(text)} sends logins and secrets in clear text; use https://")


def listen(value: Value) -> str:
    """``unix:///path`` or ``host:port``."""
    text = value.text()
    if text.startswith(UNIX):
        return _socket(value, text)
    host, colon, port = text.rpartition(":")
    if "/" in text or not colon:
        raise value.wrong(f"{quoted(text)} is no address to listen on; {_LISTEN_FORMS}")
    if not _PORT.match(port) or int(port) > _LAST_PORT:
        raise value.wrong(f"{quoted(text)} has no valid port; use 1 to {_LAST_PORT} (0: any free)")
    if not valid_host(host):
        raise value.wrong(f"{quoted(text)} has no valid host; {_LISTEN_FORMS}, IPv6 in [ ]")
    return text


def _socket(value: Value, text: str) -> str:
    path = text[len(UNIX) :]
    if not path.startswith("/") or path.endswith("/"):
        raise value.wrong(f"{quoted(text)} names no socket; use unix:///PATH, three slashes")
    size = len(path.encode())
    if size > LONGEST_SOCKET_PATH:
        raise value.wrong(
            f"the socket's path has {size} bytes, the system takes {LONGEST_SOCKET_PATH}; "
            "use a shorter one"
        )
    return text
