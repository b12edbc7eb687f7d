"""An error of ours in a log: where it was, and none of the values it met."""

from __future__ import annotations

from vaultauthz.core.redaction import where


def test_it_says_where_and_what_kind_and_quotes_nothing() -> None:
    """Neither the error's text nor its cause's, both of which hold the value."""
    value = "s3cr3t-value"
    try:
        try:
            int(value)
        except ValueError as exc:
            raise LookupError(value) from exc
    except LookupError as exc:
        told = where(exc)
    assert told.startswith("LookupError\n")
    assert "test_trace.py" in told
    assert "s3cr3t" not in told.replace('value = "s3cr3t-value"', "")
