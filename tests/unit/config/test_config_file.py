"""Files that are no configuration at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.config import ConfigError, document, load, parse

from .conftest import VALID, Folder

LOADERS = [yaml.SafeLoader, document.LOADER]


def refusal(path: Path) -> str:
    """Why the file is refused."""
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    return str(caught.value).replace(str(path), "FILE")


def test_missing(tmp_path: Path) -> None:
    """A file that is not there is named."""
    found = refusal(tmp_path / "no.yaml")
    wanted = "FILE: cannot be read: no such file or directory; name the configuration's file"
    assert found == wanted


def test_folder(tmp_path: Path) -> None:
    """A folder is not a file."""
    assert (
        refusal(tmp_path) == "FILE: cannot be read: is a directory; name the configuration's file"
    )


def test_unreadable(unprivileged: Path) -> None:
    """A file without the right to read it is named."""
    path = Folder(unprivileged).write("c.yaml", VALID, 0)
    assert refusal(path).startswith("FILE: cannot be read: permission denied")


def test_nul_in_path() -> None:
    """A path that no system takes is refused like the others."""
    assert refusal(Path("a\0b")).endswith("is no path; name the configuration's file")


@pytest.mark.parametrize("text", ["", "\n", "# only\n# comments\n", "---\n", "--- \n...\n"])
def test_empty(folder: Folder, text: str) -> None:
    """An empty file says what a configuration needs."""
    wanted = "FILE:1: the file is empty; it needs vault, stages and upstreams"
    assert refusal(folder.write("c.yaml", text)) == wanted


@pytest.mark.parametrize("size", [5_000_001, 50_000_000])
def test_too_large(tmp_path: Path, size: int) -> None:
    """A file beyond the limit is refused without being read as a whole."""
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(size)
    assert refusal(path) == "FILE: is larger than 5 MB, the limit; is this the right file?"


def test_too_large_text(folder: Folder) -> None:
    """The limit holds for a text, too."""
    assert folder.problems("#" * 5_000_001) == (
        "c.yaml: is larger than 5 MB, the limit; is this the right file?",
    )


@pytest.mark.parametrize("data", [b"vault:\n  address: \xff\n", "vault:\n\n".encode("utf-16")])
def test_not_utf8(tmp_path: Path, data: bytes) -> None:
    """The line with the first byte that is no UTF-8 is named."""
    path = tmp_path / "c.yaml"
    path.write_bytes(data)
    assert refusal(path) in [f"FILE:{line}: is not UTF-8 text; save it as UTF-8" for line in (1, 2)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("- a\n- b", "1: the file wants a mapping, found a list; begin with vault:"),
        ("just words", "1: the file wants a mapping, found text; begin with vault:"),
        ("vault: {}\n---\nvault: {}", "2: a second document begins here; a configuration is one"),
        (
            "a\x00b",
            "1: not YAML: the character U+0000 has no place in text; is this the right file?",
        ),
        (
            "a:\n  b\ud800",
            "2: not YAML: the character U+D800 has no place in text; is this the right file?",
        ),
        ("vault:\n\taddress: a", "2: not YAML: a tab where only spaces may indent; use spaces"),
        ("[" * 500_000, "1: nested deeper than 32 levels; is this the right file?"),
        ("- " * 400_000, "1: nested deeper than 32 levels; is this the right file?"),
        (
            "a: &x [*x]",
            "1: an alias (*) without its anchor before it; quote a text that begins with *",
        ),
        (
            "a: !!python/object/apply:os.system [ls]",
            "1: a YAML tag (!) is not accepted; quote a text that begins so",
        ),
        ("a:\n  b: !secret x", "2: a YAML tag (!) is not accepted; quote a text that begins so"),
        ('a: !!binary "aGk="', "1: a YAML tag (!) is not accepted; quote a text that begins so"),
    ],
    ids=range(12),
)
def test_not_a_configuration(folder: Folder, text: str, wanted: str) -> None:
    """What YAML allows and a configuration does not is refused with its line."""
    assert folder.problems(text) == (f"c.yaml:{wanted}",)


class Stumbling(yaml.SafeLoader):
    """A parser with a bound of its own on brackets, and words of its own for it."""

    def fetch_flow_collection_start(self, token: object) -> None:
        if self.flow_level == 200:
            raise yaml.scanner.ScannerError(None, None, "enough", self.get_mark())
        super().fetch_flow_collection_start(token)


@pytest.mark.parametrize("loader", [*LOADERS, Stumbling])
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[" * 5_000, 1),
        ("{" * 5_000, 1),
        ("a: " + "[{a: " * 2_000, 1),
        ("\n\na:\n  - " + "[" * 5_000, 4),
        ("[" * 20 + "\n" * 3 + "[" * 5_000, 4),  # the 33rd is there
        ("a: 1\nb: [x, " + "[" * 1_500 + "]" * 1_500 + "]", 2),  # else in order
        ("# [\n" * 3_000 + "é: ü\nß: " + "[é, " * 1_200, 3_002),
        ('x: "[[[["\ny: ' + "[" * 40 + " @", 2),  # with a mistake of another kind behind it
        ("- " * 5_000, 1),
        ("? " * 5_000, 1),
        ("\n".join(" " * level + "a:" for level in range(2_000)), 33),
        ("[" * 33 + "]" * 33, 1),
    ],
    ids=range(12),
)
def test_nested_too_deeply(loader: object, text: str, line: int) -> None:
    """Whichever parser reads it and wherever that gives up itself: our bound, and its line."""
    with pytest.raises(document.DocumentError, match="nested deeper than 32 levels") as caught:
        document.read(text, loader)
    assert caught.value.line == line


@pytest.mark.parametrize("loader", [*LOADERS, Stumbling])
@pytest.mark.parametrize("text", ["[" * 32, "a: " + "[" * 31 + "}", "a: '" + "[" * 50, "[]" * 50])
def test_not_nested_too_deeply(loader: object, text: str) -> None:
    """Another mistake is not taken for it; thirty-two levels are read."""
    with pytest.raises(document.DocumentError, match="not YAML"):
        document.read(text, loader)
    assert document.read("[" * 32 + "]" * 32, loader)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("vault:\n  address: [", 2),
        ("vault:\n  address: a: b", 2),
        ("vault:\n  address: 'a", 2),
        ("vault:\n address: a\n  b: c", 3),
        ("vault: @a", 1),
        ("vault: {a: b", 1),
        ("vault: !x!y z", 1),
        ('vault: "\\UFFFFFFFF"', 1),
        ("%YAML 9.9\n---\na: b", 1),
    ],
)
def test_syntax_errors(loader: object, text: str, line: int) -> None:
    """Both of PyYAML's parsers name the line, or the one after it where the text ends."""
    with pytest.raises(document.DocumentError) as caught:
        document.read(text, loader)
    assert caught.value.line in (line, line + 1)
    assert caught.value.text.startswith("not YAML")
    assert "\n" not in caught.value.text


@pytest.mark.parametrize("loader", LOADERS)
def test_syntax_error_hides_text(loader: object) -> None:
    """A password that YAML stumbles over is not repeated."""
    with pytest.raises(document.DocumentError) as caught:
        document.read("password: !hunter2!x y", loader)
    assert "hunter2" not in caught.value.text


@pytest.mark.parametrize("loader", LOADERS)
def test_both_parsers_agree(loader: object) -> None:
    """The fallback parser gives the same tree."""
    assert document.read(VALID, loader) == document.read(VALID)


def test_alias_bomb(folder: Folder) -> None:
    """Nine levels of nine aliases are refused before they are anything."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 10)
    ]
    assert folder.problems("\n".join(lines)) == (
        "c.yaml:7: more than 1,000,000 values, aliases counted as what they stand for",
    )


def test_many_problems_end_early(folder: Folder) -> None:
    """A wrong file of many keys gives a bounded answer."""
    problems = folder.problems("vault: {}\n" + "".join(f"key{n}: 1\n" for n in range(5000)))
    assert len(problems) == 101
    assert problems[-1] == "c.yaml: and more; mend these 100 problems first"


SOMEBODY_ELSES = {
    "shadow, a line of it": "root:$6$hunter2$h4sh:19000:0:99999:7:::\n",
    "password and colon": "hunter2:\n",
    "json": '{"client_token": "hunter2", "hunter2": 1}',
    "kubeconfig": "users:\n- name: admin\n  user: {token: hunter2}\n",
    "the same key twice": "hunter2: 1\nhunter2: 2\n",
    "key of a mapping": "{? {hunter2: 1} : 2}\n",
    "/etc/gshadow": "vault:!::\nwheel:hunter2::\n",
    "a long key": f"{'hunter2' * 100}: 1\n",
}


@pytest.mark.parametrize("text", SOMEBODY_ELSES.values(), ids=SOMEBODY_ELSES.keys())
def test_of_somebody_elses_file_nothing_is_shown(folder: Folder, text: str) -> None:
    """It may be read by a root that was talked into it, for somebody who may not."""
    (problem,) = folder.problems(text)
    assert problem == (
        "c.yaml:1: none of its keys is one of a configuration's (audit, gateway, listen, routes, stages, "
        "unmatched, upstreams, vault); is this the right file?"
    )


@pytest.mark.parametrize("key", ["Vault", "stage", "upstream", "lissten"])
def test_a_key_with_a_slip_is_shown(folder: Folder, key: str) -> None:
    """A file of ours, with the way out."""
    assert f"c.yaml:1: {key}: unknown key; did you mean" in "\n".join(
        folder.problems(f"{key}: 1\n")
    )


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_no_line_of_any_other_file_is_quoted(text: str) -> None:
    """Whatever is in it, an error holds no word of it that is longer than YAML's own."""
    secret = "Zq7-hunter2-Zq7"
    for form in (f"{text}{secret}", f"{secret}{text}", f"x{text}\n{secret}", f"{text}: {secret}"):
        with pytest.raises(ConfigError) as raised:
            parse(form, "c.yaml", Path(), {})
        assert "hunter2" not in str(raised.value)
