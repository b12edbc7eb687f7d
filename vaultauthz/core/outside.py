"""What others have written, made fit to be told: the one way into a log or an error.

An answer may quote what was asked: a proxy that echoes the request, an engine that names
the statement it failed at, a cloud that shows the string it has signed. So each word of
such a text is looked at, as it stands and as what it may stand for (percent-, HTML- and
JSON-escapes, base64, hexadecimal, one within the other), and is hidden when some
characters in a row of a secret of that call are in it; so is a word that looks like a
credential, whoever's it is. Parts are enough, as answers get cut.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import unquote, urlsplit

HIDDEN: Final = "<hidden>"
LONGEST: Final = 300  # characters that are told
_READ: Final = 4096  # characters that are looked at
_WORD: Final = 1024  # a longer one is no word of a sentence
_LEAST, _MOST = 4, 8  # characters in a row by which a secret is recognized

# What looks like a credential. A group that is named `its` is all that is hidden of it.
_SHAPES: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"-----BEGIN [^-]*-----.*?(-----END [^-]*-----|\Z)",  # PEM
        r"(?i)\b(bearer|basic|negotiate|AWS4-HMAC-SHA256)\s+(?P<its>[\w.~+/=-]{8,})",
        r"://(?P<its>[^\s/@\"']+)@",  # a URL's user and password
        # `password=…`, `"secret_id": "…"`
        (
            r"(?i)(pass(word|wd|phrase)?|pwd|secret(_?id|_?key)?|token|api_?key|access_?key|"
            r"private_?key|credentials?|authorization|signature)[\\\"']*\s?[=:]\s?[\\\"']*"
            r"(?P<its>[^\s\"'\\,;&}<]{3,})"
        ),
        r"\bhv[sbr]\.[\w-]{4,}",  # Vault's tokens
        r"\b[sbr]\.[A-Za-z0-9]{20,}",  # older ones, and OpenBao's
        r"\beyJ[\w-]{5,}(\.[\w-]*)*",  # JWT
        r"\b(AKIA|ASIA)[A-Z0-9]{12,}",
    )
)
_RANDOM: Final = re.compile(r"[A-Za-z0-9+_=-]{24,}")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{6,}")
_HEX: Final = re.compile(r"(?i)[0-9a-f]{8,}")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U(0[0-9a-fA-F]{7})|x([0-9a-fA-F]{2})|(.))")


def shown(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` on one line of at most ``LONGEST`` printable characters, and none of ``secrets``.

    ``secrets`` are those of the call that the text is an answer to.
    """
    parts = _parts(secrets)
    words = text[:_READ].split()
    if len(text) > _READ:
        del words[-1:]  # it may be the first characters of a secret
    told = " ".join(HIDDEN if _telling(word, parts) else word for word in words)
    told = _RANDOM.sub(_hide_random, _without_shapes(told))
    told = re.sub(rf"{HIDDEN}(\s*{HIDDEN})+", HIDDEN, told)
    return re.sub(r"[^\x20-\x7e]", "?", told)[:LONGEST].strip()


def host(location: str) -> str:
    """Scheme and host of a URL; "" when it has none. The rest may name anything."""
    if not location.isprintable():
        return ""
    try:
        url = urlsplit(location)
        name, port = url.hostname or "", url.port
    except ValueError:
        return ""
    if url.scheme not in ("http", "https") or not re.fullmatch(r"[A-Za-z0-9.:_-]{1,253}", name):
        return ""
    name = f"[{name}]" if ":" in name else name
    return f"{url.scheme}://{name}{f':{port}' if port else ''}"


def _parts(secrets: Iterable[str]) -> frozenset[str]:
    """The runs of characters that give a secret away, in lower case.

    Of a long one each run of 8, of a short one each of half its length, so that neither
    a part of it nor what was put between its parts makes it pass.
    """
    found: set[str] = set()
    for form in (form.lower() for secret in secrets for form in _forms(secret)):
        pieces = form.split()
        for piece in pieces:
            if len(piece) >= _LEAST or len(pieces) == 1:
                size = min(max(_LEAST, len(piece) // 2), _MOST, len(piece))
                found.update(piece[at : at + size] for at in range(len(piece) - size + 1))
    return frozenset(found)


def _forms(secret: str) -> Iterator[str]:
    # What is in it may look like an escape, and is then taken back in the text, too.
    yield from set(_plain(secret))
    # As a server shows bytes that it takes for another character set.
    yield secret.encode("utf-8", "surrogatepass").decode("latin-1")
    yield secret.encode("ascii", "replace").decode()


def _telling(word: str, parts: frozenset[str]) -> bool:
    if len(word) > _WORD:
        return True
    if not parts:
        return False
    sizes = sorted({len(part) for part in parts})
    return any(
        reading[at : at + size] in parts
        for reading in _readings(word)
        for size in sizes
        for at in range(len(reading) - size + 1)
    )


def _readings(word: str) -> Iterator[str]:
    """What the word says and may stand for, in lower case."""
    seen: set[str] = set()
    open_ = {word}
    for _ in range(3):  # base64 of base64 of JSON, say
        found: set[str] = set()
        for text in open_ - seen:
            seen.add(text)
            plain = set(_plain(text))
            yield from (reading.lower() for reading in plain)
            found.update(decoded for reading in plain for decoded in _decoded(reading))
        open_ = found


def _plain(text: str) -> Iterator[str]:
    """The text with its escapes taken back, once, twice, and three times."""
    yield text
    yield text.replace("+", " ")
    for _ in range(3):
        # Each for itself, too: what one gives back may look like another's.
        yield (text := unquote(text, errors="replace"))
        yield (text := html.unescape(text))
        text = _ESCAPE.sub(_unescaped, text)
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # JSON's pairs
        yield text
        yield "".join(text.split())  # what was a line break, or a tab


def _unescaped(match: re.Match[str]) -> str:
    code = int(match[1] or match[2] or match[3] or "110000", 16)
    letter = match[4] or "?"
    return chr(code) if code < 0x110000 else {"n": "\n", "t": "\t", "r": "\r"}.get(letter, letter)


def _decoded(text: str) -> Iterator[str]:
    for run in _BASE64.findall(text):
        data = run.replace("-", "+").replace("_", "/")
        for start in range(4):  # wherever a piece of it begins
            part = data[start:]
            part = part[: len(part) // 4 * 4] or part
            with_end = part + "=" * (-len(part) % 4)
            try:
                yield base64.b64decode(with_end).decode("latin-1")
            except (binascii.Error, ValueError):
                continue
    for run in _HEX.findall(text):
        for start in range(2):
            part = run[start:]
            yield bytes.fromhex(part[: len(part) // 2 * 2]).decode("latin-1")


def _without_shapes(text: str) -> str:
    for shape in _SHAPES:
        text = shape.sub(_hide, text)
    return text


def _hide(match: re.Match[str]) -> str:
    if "its" not in match.re.groupindex:
        return HIDDEN
    whole, start, end = match[0], match.start("its"), match.end("its")
    return whole[: start - match.start()] + HIDDEN + whole[end - match.start() :]


def _hide_random(match: re.Match[str]) -> str:
    """What no person has written: a key, an identifier, a digest. Not a host's long name."""
    run = match[0]
    if not re.search(r"\d", run) or not re.search(r"[A-Za-z]", run):
        return run
    mixed = re.search("[a-z]", run) and re.search("[A-Z]", run)
    in_parts = re.search("[_-]", run) and not re.fullmatch(r"[0-9a-fA-F-]+", run)
    return HIDDEN if mixed or not in_parts else run
