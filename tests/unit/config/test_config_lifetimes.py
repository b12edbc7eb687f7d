"""``ttl`` and ``increment``: what a stage's leases are asked to be, and what one secret's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.config import PathSecret, SecretSource
from vaultauthz.config import secret_source as reader
from vaultauthz.config.kinds import spell

from .conftest import Folder, edited
from .refused_auth import AUTH
from .test_config_any import SHARED

STAGE = f"    auth: {AUTH}"
SOURCE = "{kv: secret/geo}"
ASKED = ("ttl", "increment")


def source(folder: Folder, secret: str, *of_the_stage: str) -> SecretSource:
    """The secret of `geo`, in a stage with these keys besides its ``auth``."""
    stage = "\n    ".join((STAGE, *of_the_stage))
    return (
        folder.parse(edited(STAGE, stage).replace(SOURCE, secret)).upstreams["geo"].secrets["prod"]
    )


def asked(folder: Folder, secret: str, *of_the_stage: str) -> tuple[float | None, float | None]:
    """What it asks for: ``ttl`` and ``increment`` in hours."""
    found = source(folder, secret, *of_the_stage)
    assert isinstance(found, PathSecret)
    ttl, increment = found.ttl, found.increment
    return ttl and ttl / 3600, increment and increment / 3600


@pytest.mark.parametrize(
    ("secret", "stage", "wanted"),
    [
        ("{path: a/b}", (), (None, None)),
        ("{path: a/b}", ("ttl: 2h", "increment: 3h"), (2, 3)),
        ("{path: a/b, ttl: 4h}", ("ttl: 2h", "increment: 3h"), (4, 3)),
        ("{path: a/b, increment: 5h}", ("ttl: 2h", "increment: 3h"), (2, 5)),
        ("{path: a/b, ttl: 4h, increment: 5h}", (), (4, 5)),
        ("{path: a/b, method: write}", ("ttl: 2h",), (2, None)),
        ("{path: a/b, method: write, params: {ttl: 1h}}", ("ttl: 2h",), (None, None)),
        ("{path: a/b, method: write, params: {c: d}, ttl: 768h}", (), (768, None)),
        ("{pki: pki/issue/a}", ("ttl: 2h", "increment: 3h"), (2, None)),
        ("{pki: pki/issue/a, ttl: 4h}", ("ttl: 2h",), (4, None)),
        ("{pki: pki/issue/a, ttl: 87600h}", (), (87600, None)),
        ("{path: a/b}", ("ttl: 1d", "increment: 1h30m"), (24, 1.5)),
        ("{pki: pki/issue/a, params: {ttl: 1h}}", ("ttl: 2h", "increment: 3h"), (None, None)),
        ("{static_role: a/b}", ("ttl: 2h", "increment: 3h"), (None, None)),
    ],
)
def test_lifetimes(
    folder: Folder, secret: str, stage: tuple[str, ...], wanted: tuple[float | None, float | None]
) -> None:
    """The secret's own wins over the stage's, and a form that has none ignores both."""
    assert asked(folder, secret, *stage) == wanted


def test_params_keep_their_ttl(folder: Folder) -> None:
    """A ttl among the params is sent as it is written, whatever the stage says."""
    found = source(folder, "{pki: pki/issue/a, params: {ttl: 1h}}", "ttl: 2h")
    assert found == PathSecret("pki/issue/a", write=True, params=(("ttl", "1h"),))


def test_kv_has_no_lifetime(folder: Folder) -> None:
    """A KV secret is the same in a stage with and without lifetimes."""
    assert source(folder, SOURCE) == source(folder, SOURCE, "ttl: 2h", "increment: 3h")


def test_each_stage_has_its_own(folder: Folder) -> None:
    """An upstream in two stages asks in each for what that stage says."""
    text = edited(STAGE, f"{STAGE}\n    ttl: 2h").replace(
        "    auth: {method: token_file, path: token}",
        "    auth: {method: token_file, path: token}\n    increment: 3h",
    )
    assert folder.parse(text).upstreams["pay"].secrets == {
        "prod": PathSecret("database/creds/pay-prod", ttl=7200.0),
        "test": PathSecret("database/creds/pay-test", increment=10800.0),
    }


def test_a_broken_stage_is_told_once(folder: Folder) -> None:
    """A stage that is refused does not make the secrets in it wrong."""
    problems = folder.problems(edited(STAGE, "    auth: 5\n    ttl: soon"))
    assert [line.split(": ")[1] for line in problems] == ["stages.prod.auth", "stages.prod.ttl"]


HOURS = st.none() | st.integers(1, 720)


@SHARED
@given(
    form=st.sampled_from(reader.FORMS),
    own=st.fixed_dictionaries(dict.fromkeys(ASKED, HOURS)),
    stage=st.fixed_dictionaries(dict.fromkeys(ASKED, HOURS)),
)
def test_who_wins(
    folder: Folder, form: str, own: dict[str, int | None], stage: dict[str, int | None]
) -> None:
    """For each form and any durations: the secret's, else the stage's, where the form has any."""
    may = {key for key in ASKED if form in reader.GOES_WITH[key]}
    keys = [f"{key}: {hours}h" for key, hours in own.items() if hours and key in may]
    of_the_stage = [f"{key}: {spell(hours * 3600)}" for key, hours in stage.items() if hours]
    found = source(folder, f"{{{', '.join([f'{form}: a/b', *keys])}}}", *of_the_stage)
    for key in ASKED:
        hours = (own[key] or stage[key]) if key in may else None
        assert getattr(found, key, None) == (hours * 3600 if hours else None)
