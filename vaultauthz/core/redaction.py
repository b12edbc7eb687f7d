"""What others have written, made fit to be told: the one way into a log or an error.

An answer may quote what was asked: a proxy that echoes the request, an engine that names
the statement it failed at, a cloud that shows the string it has signed. So each word of
such a text is looked at, as it stands and as what it may stand for (percent-, HTML- and
JSON-escapes, base64, hexadecimal, one within the other), and is hidden when some
characters in a row of a secret of that call are in it; so is a word that looks like a
credential, whoever's it is. Parts are enough, as answers get cut. Words in a row are
hidden where a secret is spread over them: by line breaks, or as the numbers of its bytes.

Of an error of ours, ``where`` tells the place alone.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final
from urllib.parse import unquote, urlsplit

HIDDEN: Final = "<hidden>"
LONGEST: Final = 300  # characters that are told
_READ: Final = 4096  # characters that are looked at
_WORD: Final = 1024  # a longer one is no word of a sentence
_LEAST, _MOST = 4, 8  # characters in a row by which a secret is recognized
_SPREAD = 6  # letters and digits of a secret that is looked for across words
_DEEPEST = 8  # escapes within escapes
_NAMES, _NAME = 20, 64  # how many names are told, and how much of each

# What follows `token:` in a sentence. It is no token.
_PROSE: Final = (
    r"(?!(?:a|an|the|no|not|none|is|are|was|has|must|cannot|could|failed|unable|error|empty|missing|"
    r"required|wrong|bad|expired|invalid|illegal|malformed|unknown|unsupported|token)(?:[\s,.:;)]|\Z))"
)

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
            rf"{_PROSE}(?P<its>[^\s\"'\\,;&}}<]{{3,}})"
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
_ESCAPE: Final = re.compile(
    r"\\(?:u([0-9a-fA-F]{4})|U(0[0-9a-fA-F]{7})|x([0-9a-fA-F]{2})|([0-3][0-7]{2})|(.))"
)
# Bytes as numbers, as Go's %v and % x, a dump or a fingerprint have them.
_DUMPS: Final = (
    (re.compile(r"(?i)(?:(?:0x)?[0-9a-f]{2}[\s,:;-]+){3,}(?:0x)?[0-9a-f]{2}(?![0-9a-f])"), 16),
    (re.compile(r"(?:\d{1,3}[\s,;]+){3,}\d{1,3}(?!\d)", re.ASCII), 10),
)


def shown(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` on one line of at most ``LONGEST`` printable characters, and none of ``secrets``.

    ``secrets`` are those of the call that the text is an answer to.
    """
    secrets = tuple(secrets)
    parts = _parts(secrets)
    words = _without_dumps(text[:_READ], parts).split()
    if len(text) > _READ:
        del words[-1:]  # it may be the first characters of a secret
    spread = _spread(words, secrets)
    kept = " ".join(
        HIDDEN if at in spread or _telling(word, parts) else word for at, word in enumerate(words)
    )
    kept = _RANDOM.sub(_hide_random, _without_shapes(kept))
    kept = re.sub(rf"{HIDDEN}(\s*{HIDDEN})+", HIDDEN, kept)
    return re.sub(r"[^\x20-\x7e]", "?", kept)[:LONGEST].strip()


def written(text: str) -> str:
    """A person's own sentence, in any script, without what looks like a credential."""
    return _RANDOM.sub(_hide_random, _without_shapes(text))


def names(given: Iterable[str]) -> str:
    """Names that others chose, such as a secret's fields, in one line; not all of very many."""
    each = sorted(given)
    kept = ", ".join(shown(name)[:_NAME] for name in each[:_NAMES])
    return f"{kept} and {len(each) - _NAMES} more" if len(each) > _NAMES else kept


def where(exc: BaseException) -> str:
    """The error's type and the lines it came through, for a log.

    Not its text, which may quote the value it choked on, nor those of its causes.
    """
    lines = "".join(traceback.format_tb(exc.__traceback__))
    return f"{type(exc).__name__}\nTraceback (most recent call last):\n{lines}"


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


def _spread(words: list[str], secrets: tuple[str, ...]) -> frozenset[int]:
    """Which of the words a secret is spread over, whatever stands between its pieces."""
    runs = frozenset(
        form[at : at + _MOST]
        for secret in secrets
        for form in map(_bare, _forms(secret))
        if len(form) >= _SPREAD
        for at in range(max(1, len(form) - _MOST + 1))
    )
    letters = [(letter, at) for at, word in enumerate(words) for letter in _bare(word)]
    text = "".join(letter for letter, _ in letters)
    found: set[int] = set()
    for size in {len(run) for run in runs}:
        for at in range(len(text) - size + 1):
            if text[at : at + size] in runs:
                found.update(range(letters[at][1], letters[at + size - 1][1] + 1))
    return frozenset(found)


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


def _without_dumps(text: str, parts: frozenset[str]) -> str:
    def hide(match: re.Match[str], base: int) -> str:
        numbers = [int(each, base) for each in re.findall(r"[0-9a-fA-F]+(?!x)", match[0])]
        said = bytes(number for number in numbers if 0 < number < 256).decode("latin-1").lower()
        return HIDDEN if _holds(said, parts) else match[0]

    for dump, base in _DUMPS if parts else ():
        text = dump.sub(partial(hide, base=base), text)
    return text


def _telling(word: str, parts: frozenset[str]) -> bool:
    if len(word) > _WORD:
        return True
    # What is as short as a syllable is in half of all words: only a word of its own tells it.
    if _bare(word) in parts:
        return True
    return bool(parts) and any(_holds(reading, parts) for reading in _readings(word))


def _holds(text: str, parts: frozenset[str]) -> bool:
    return any(
        text[at : at + size] in parts
        for size in {len(part) for part in parts if len(part) >= _LEAST}
        for at in range(len(text) - size + 1)
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
    """The text with its escapes taken back, once, twice, and so on."""
    yield text
    yield text.replace("+", " ")
    before = ""
    for _ in range(_DEEPEST):
        if text == before:
            break
        before = text
        for unescape in _UNESCAPES:  # one by one: what the first brings is no escape by itself
            text = unescape(text)
            yield text
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # JSON's pairs
        yield text
        yield "".join(text.split())  # what was a line break, or a tab


def _unescaped(match: re.Match[str]) -> str:
    code = int(match[1] or match[2] or match[3] or "110000", 16)
    if match[4]:
        code = int(match[4], 8)
    letter = match[5] or "?"
    return chr(code) if code < 0x110000 else {"n": "\n", "t": "\t", "r": "\r"}.get(letter, letter)


_UNESCAPES: Final[tuple[Callable[[str], str], ...]] = (
    partial(unquote, errors="replace"),
    html.unescape,
    partial(_ESCAPE.sub, _unescaped),
)


def _decoded(text: str) -> Iterator[str]:
    for run in _BASE64.findall(text):
        data = run.replace("-", "+").replace("_", "/")
        for start in range(4):  # wherever a piece of it begins
            part = data[start:]
            part = part[: len(part) // 4 * 4] or part
            with_end = part + "=" * (-len(part) % 4)
            try:
                said = base64.b64decode(with_end).decode("latin-1")
            except (binascii.Error, ValueError):
                continue
            yield said
            yield said.replace("\0", "")  # UTF-16, as Windows has it
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
