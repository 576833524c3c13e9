"""Starts of fresh processes: what is measured, promised and gated, with planted samples."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from sld_edge.bench.machine import describe_machine
from sld_edge.bench.startup import command, measure
from sld_edge.bench.startup.measure import (
    FORMAT,
    STARTS,
    VERSION,
    Report,
    compare_reports,
    targets_of,
    time_starts,
)
from sld_edge.errors import EngineError, InvalidInput


def made_report(*, slow_down: float = 1.0, seed: int = 0) -> Report:
    """2 % of noise around 0.2 s a start."""
    rng = np.random.default_rng(seed)
    samples = {
        name: (0.2 * slow_down * np.exp(0.02 * rng.standard_normal(15))).tolist() for name in STARTS
    }
    return Report(format=FORMAT, version=VERSION, created="2026-11-25T10:00:00+00:00", command="sld-bench startup",
                  machine=describe_machine(), activity={}, samples=samples, warnings=["busy"])  # fmt: skip


def test_everything_is_started_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def count(name: str) -> float:
        started.append(name)
        return float(len(started))

    monkeypatch.setattr(measure, "_time", count)
    said: list[str] = []
    found = time_starts(3, say=said.append)
    assert started[:4] == list(STARTS)
    assert [len(samples) for samples in found.values()] == [3] * len(STARTS)
    # The warm-up, samples 1 to 4, is not among them.
    assert min(min(samples) for samples in found.values()) == 5.0
    assert len(said) == 3


def test_a_start_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STARTS, "python", ("-c", "raise SystemExit('no\\nway')"))
    with pytest.raises(EngineError, match="python failed"):
        time_starts(1, say=lambda _: None)


def test_promises_are_judged() -> None:
    assert [target.verdict for target in targets_of(made_report())] == ["met", "met"]
    slow = targets_of(made_report(slow_down=2.0))
    assert [target.verdict for target in slow] == ["missed", "met"]


def test_gate_sees_a_planted_slowdown() -> None:
    base = made_report(seed=1)
    verdicts = {
        factor: {d.verdict for d in compare_reports(made_report(slow_down=factor, seed=2), base,
                                                    max_regression=0.1)}
        for factor in (1.0, 1.2)
    }  # fmt: skip
    assert verdicts == {1.0: {"passed"}, 1.2: {"regressed"}}
    elsewhere = msgspec.structs.replace(base, machine={**base.machine, "cpu": "another"})
    with pytest.raises(InvalidInput, match="another machine"):
        compare_reports(base, elsewhere, max_regression=0.1)
    with pytest.raises(InvalidInput, match="none of these starts"):
        compare_reports(base, msgspec.structs.replace(base, samples={}), max_regression=0.1)


def test_the_command_measures_prints_saves_and_gates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(command.main, ["--repeats", "3", *words])
        return done.exit_code, done.output

    file = str(tmp_path / "base.json")
    status, text = run("--json-file", file)
    assert status == 0, text
    for name in STARTS:
        assert name in text
    tree = json.loads(Path(file).read_text())
    assert tree["statistics"]["python"]["count"] == 3
    assert {target["name"] for target in tree["targets"]} == {
        "import sld_edge",
        "sld-generate --help",
    }
    monkeypatch.setattr(measure, "_time", lambda name: 100.0)
    status, text = run("--baseline", file)
    assert status == 1
    assert "regressed" in text
