from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.core.secret import Secret
from vaultauthz.core.template import (
    BlankError,
    InjectionError,
    MissingFieldError,
    Template,
    TemplateError,
    clean,
    header_value,
    not_blank,
)

FIELDS = {"user": Secret("v-app"), "pass.word-1": Secret("{user}%s")}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{user}", "v-app"),
        ("a{user}b{user}c", "av-appbv-appc"),
        ("{pass.word-1}", "{user}%s"),  # what a secret holds is never filled in again
        ("{{user}}", "{user}"),
        ("{{{user}}}", "{v-app}"),
        ("}}{{", "}{"),
        ("line\n{user}", "line\nv-app"),
    ],
)
def test_fill(text: str, filled: str) -> None:
    """Fields are filled in, double braces stand for single ones, the rest is itself."""
    assert Template.parse(text).fill(FIELDS) == filled


@pytest.mark.parametrize(
    "text", ["{", "}", "a{b", "a}b", "{}", "{a b}", "{a{b}", "{{user}", "{-a}"]
)
def test_refused(text: str) -> None:
    """A brace without its partner and a name that is none are errors."""
    with pytest.raises(TemplateError):
        Template.parse(text)


def test_error_says_where() -> None:
    """The message counts characters as a person does and says what to write instead."""
    with pytest.raises(TemplateError, match=r"'}' at character 3; write '}}'"):
        Template.parse("ab}")


@given(st.text())
def test_escaped_text_is_itself(text: str) -> None:
    """Any text with its braces doubled is a template for that text."""
    template = Template.parse(text.replace("{", "{{").replace("}", "}}"))
    assert template.fill({}) == text
    assert template.fields == ()


@given(st.text(), st.text().filter(lambda text: any("!" <= letter <= "~" for letter in text)))
def test_value_is_put_in_unchanged(before: str, value: str) -> None:
    """Whatever the value holds, it arrives as it is."""
    escaped = before.replace("{", "{{").replace("}", "}}")
    assert Template.parse(escaped + "{f}").fill({"f": Secret(value)}) == before + value


PIECES = st.lists(st.sampled_from(["{{", "}}", "{a}", "{b.c}", "x", " ", "é"])).map("".join)


@given(PIECES)
def test_it_is_written_as_it_was(text: str) -> None:
    """A default that stands in a table is what a reader would take."""
    assert Template.parse(text).written == text


def test_what_is_shown_is_names_alone() -> None:
    """Text around them may be a secret that somebody has put into the configuration."""
    assert Template.parse("hush {a}-hush-{b}{{").shown == "{a}…{b}"
    assert Template.parse("hush").shown == "(fixed text)"


def test_fields_each_once_in_order() -> None:
    """A template names the fields that it wants."""
    assert Template.parse("{b}{a}{b}").fields == ("b", "a")


def test_missing_field_names_what_there_is() -> None:
    """The error for a missing field lists the names that exist and no value."""
    with pytest.raises(MissingFieldError) as caught:
        Template.parse("{token}").fill(FIELDS)
    assert caught.value.field == "token"
    assert caught.value.known == ("pass.word-1", "user")
    assert str(caught.value) == "the secret has no field 'token'; it has: pass.word-1, user"


def test_missing_field_of_an_empty_secret() -> None:
    """A secret without fields is said to have none."""
    with pytest.raises(MissingFieldError, match="it has: no fields"):
        Template.parse("{token}").fill({})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ab}", "a single '}' at character 3; write '}}' for the character itself"),
        ("{", "a single '{' at character 1; write '{{' for the character itself"),
        ("a{b c}", "{b c} is not a field name"),
        ("{}", "{} is not a field name"),
    ],
)
def test_what_is_told_of_no_template(text: str, why: str) -> None:
    """Where it is, and what to write."""
    with pytest.raises(TemplateError) as refused:
        Template.parse(text)
    assert str(refused.value) == why


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("a\nb", "the value for X holds the control character 0x0a, which a request cannot carry"),
        (
            "ab\n",
            (
                "the value for X holds the control character 0x0a (at its very end: a stray newline?), "
                "which a request cannot carry"
            ),
        ),
        ("\tab", "the value for X begins with a blank (0x09), which a header cannot carry there"),
        ("ab ", "the value for X ends with a blank (0x20), which a header cannot carry there"),
    ],
)
def test_what_is_told_of_a_value_that_does_not_fit(value: str, why: str) -> None:
    """Its place and the character, and nothing more of it."""
    with pytest.raises(InjectionError) as refused:
        header_value(value, "X")
    assert str(refused.value) == why


def test_a_value_that_fits_is_itself() -> None:
    """Blanks inside, too; at an edge where it is no header's whole."""
    assert header_value("a b", "X") == "a b"
    assert header_value("", "X") == ""
    assert clean(" a\tb ", "X") == " a\tb "
    assert not_blank(" a", "key") == " a"


@pytest.mark.parametrize(
    ("value", "why"),
    [("", "the secret's field 'key' is empty"), ("\t ", "the secret's field 'key' is blank")],
)
def test_what_is_told_of_a_blank_field(value: str, why: str) -> None:
    """Which one it is, and which of the two."""
    with pytest.raises(BlankError) as refused:
        Template.parse("{key}").fill({"key": Secret(value)})
    assert str(refused.value) == why


def test_a_place_with_its_fields() -> None:
    """For a message."""
    assert Template.parse("{a}-{b}").at("header X") == "header X (field a, b)"
    assert Template.parse("hush").at("header X") == "header X"
