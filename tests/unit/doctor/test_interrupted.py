"""The user has had enough: what is said, and from when on it holds."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE
from vaultauthz import doctor
from vaultauthz.config import parse
from vaultauthz.doctor.evidence import ExaminedStage
from vaultauthz.doctor.limits import StoppedError, Turns

CONFIG = """
vault: {address: "http://127.0.0.1:1"}
stages: {prod: {auth: {method: approle, role_id: 4d2f, secret_id_file: s}}}
upstreams: {a: {secret: {path: creds/a}, inject: [{bearer: "{token}"}], callers: any}}
"""


def test_nothing_is_taken_after_it_said_that_it_gives_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A stage in the middle of its fetches gets no other turn once that word is out."""
    turns: list[Turns] = []
    begun = threading.Event()
    waits = iter([KeyboardInterrupt, None])

    def stage(name: str, _node: Any, _around: Any, its: Turns) -> ExaminedStage:
        turns.append(its)
        begun.set()
        return ExaminedStage(name, config.stages[name].auth)

    def wait(*_args: Any, **_more: Any) -> None:
        begun.wait(PATIENCE)
        if (error := next(waits)) is not None:
            raise error

    def say(what: str) -> None:
        if what.startswith("giving back"):
            with pytest.raises(StoppedError):
                turns[0].take()

    (tmp_path / "s").write_text("x")
    config = parse(CONFIG, "c.yaml", tmp_path, {})
    monkeypatch.setattr(doctor, "examine_stage", stage)
    monkeypatch.setattr(doctor, "wait", wait)
    assert doctor.examine(config, doctor.DoctorOptions(), say).interrupted
