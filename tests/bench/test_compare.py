"""Turns, limits, skips, picture matching and ratios of ``sld-bench compare``, with made-up peers."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sld_edge.bench.compare import interleave
from sld_edge.bench.compare.interleave import Outcome, Turns, run_in_turns
from sld_edge.bench.compare.marks import Marks
from sld_edge.bench.compare.peers import BY_NAME, PEERS, command_for, process_of
from sld_edge.bench.compare.picture import IDENTICAL, is_flat, psnr
from sld_edge.bench.compare.report import result_of
from sld_edge.bench.compare.task import Task, Unavailable
from sld_edge.errors import InvalidInput

PICTURE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)

FAKE = """
import time
import numpy as np
from sld_edge.bench.compare.task import Unavailable

class Fake:
    description = "fake"
    def __init__(self, peer):
        self.peer = peer
    def image(self, steps):
        print("noise on standard output")
        if self.peer == "safe-compiled":
            raise SystemExit(3)
        if self.peer == "safe-bf16":
            time.sleep(60)
        if self.peer == "safe-openvino":
            raise ValueError("two\\nlines")
        time.sleep({"ours": 0.01}.get(self.peer, 0.04))
        return np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    def steps(self):
        return [0.01 if self.peer == "ours" else 0.04] * 3

def build(task, peer):
    if peer == "plain-eager":
        raise Unavailable("not here")
    return Fake(peer)
"""


def task_in(folder: Path) -> Task:
    np.save(folder / "latents.npy", np.zeros((1, 4, 8, 8), np.float32))
    return Task(checkpoint="c", bundle="b", prompt="p", concept="s", steps=3, height=64, width=64,
                latents=str(folder / "latents.npy"), guidance_scale=7.5, threads=1, safety={})  # fmt: skip


def test_task_survives_its_json(tmp_path: Path) -> None:
    task = task_in(tmp_path)
    assert Task.from_json(task.to_json()) == task
    assert "\n" not in task.to_json()


def test_psnr_of_known_errors() -> None:
    flat = np.full((4, 4, 3), 100, np.uint8)
    assert psnr(flat, flat) == IDENTICAL
    assert psnr(flat, flat + 1) == pytest.approx(48.13, abs=0.01)
    assert psnr(flat * 0, flat * 0 + 255) == pytest.approx(0.0)
    assert is_flat(flat)
    assert not is_flat(PICTURE)
    with pytest.raises(InvalidInput, match="different sizes"):
        psnr(flat, PICTURE)


def test_every_peer_has_a_reference_with_as_many_branches() -> None:
    for peer in PEERS:
        reference = BY_NAME[peer.reference]
        assert reference.branches == peer.branches
        assert reference.reference == reference.name


def test_a_missing_environment_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="make peers"):
        command_for(BY_NAME["optimum-onnx"], peers_folder=tmp_path)


def test_peers_take_turns_and_bad_ones_are_skipped_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fake_adapter.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = [sys.executable, "-m", "sld_edge.bench.compare.worker", "fake_adapter"]
    monkeypatch.setattr(interleave, "command_for", lambda peer, peers_folder: worker)
    names = ("ours", "safe-eager", "plain-eager", "safe-compiled", "safe-bf16", "safe-openvino")
    said: list[str] = []
    turns = Turns(repeats=3, limit=8.0, room=0, peers_folder=tmp_path)
    found = {
        outcome.peer.name: outcome
        for outcome in run_in_turns(
            [BY_NAME[n] for n in names], task_in(tmp_path), turns, said.append
        )
    }
    assert found["plain-eager"].skipped == "not here"
    assert "ended with status 3" in found["safe-compiled"].skipped
    assert found["safe-bf16"].skipped == "took longer than 8 s"
    assert found["safe-openvino"].skipped == "failed: ValueError: two lines"
    for name in ("ours", "safe-eager"):
        assert len(found[name].images) == 3
        assert len(found[name].steps) == 9
    entries = {
        entry["name"]: entry for entry in json.loads(json.dumps(result_of(list(found.values()))))
    }
    assert entries["ours"]["counts"]
    assert entries["safe-eager"]["psnr_db"] == IDENTICAL
    assert entries["safe-eager"]["against_ours"]["step"]["value"] == pytest.approx(4.0)
    assert "against_ours" not in entries["safe-bf16"]
    assert len(said) >= 3 * 2 + 4


def test_memory_for_one_only_stops_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fake_adapter.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = [sys.executable, "-m", "sld_edge.bench.compare.worker", "fake_adapter"]
    monkeypatch.setattr(interleave, "command_for", lambda peer, peers_folder: worker)
    turns = Turns(repeats=2, limit=20.0, room=1 << 60, peers_folder=tmp_path)
    peers = [BY_NAME["ours"], BY_NAME["safe-eager"]]
    outcomes = run_in_turns(peers, task_in(tmp_path), turns, lambda _: None)
    assert [len(outcome.images) for outcome in outcomes] == [2, 2]


def outcome_of(name: str, step: float, picture: np.ndarray = PICTURE) -> Outcome:
    return Outcome(peer=BY_NAME[name], images=[4 * step] * 3, steps=[step] * 6, picture=picture)


def test_ratios_have_the_planted_values() -> None:
    entries = {
        entry["name"]: entry
        for entry in result_of([
            outcome_of("ours", 3.0), outcome_of("ours-off", 2.0), outcome_of("safe-eager", 12.0),
            outcome_of("plain-eager", 8.0), outcome_of("optimum-onnx", 3.0),
        ])
    }  # fmt: skip
    assert entries["safe-eager"]["against_ours"]["step"]["value"] == pytest.approx(4.0)
    assert entries["plain-eager"]["against_ours"]["image"]["value"] == pytest.approx(4.0)
    # Two branches in 3 s against three in 3 s: half as much work a second, 1.5 times as long a row.
    assert entries["optimum-onnx"]["against_ours"]["row_of_step"]["value"] == pytest.approx(1.5)


def test_another_picture_does_not_count() -> None:
    other = np.roll(PICTURE, 1, axis=0)
    flat = np.full_like(PICTURE, 7)
    for ours, reference in ((other, PICTURE), (flat, flat)):
        entries = result_of(
            [outcome_of("ours", 1.0, ours), outcome_of("safe-eager", 4.0, reference)]
        )
        assert not entries[0]["counts"]
    alone = result_of([outcome_of("ours", 1.0)])
    assert alone[0]["psnr_db"] is None
    assert not alone[0]["counts"]


def test_a_lower_precision_may_differ_more() -> None:
    assert BY_NAME["safe-bf16"].least_psnr < replace(BY_NAME["ours"]).least_psnr
    assert process_of(BY_NAME["safe-bf16"]) != process_of(BY_NAME["safe-eager"])
    assert process_of(BY_NAME["ours"]) == process_of(BY_NAME["ours-off"])


def test_marks_give_the_time_between_calls() -> None:
    class Vae:
        def decode(self, latents: object) -> object:
            return latents

    class Pipeline:
        def __init__(self) -> None:
            self.unet, self.vae = (lambda x: x), Vae()

    pipeline, marks = Pipeline(), Marks()
    marks.watch(pipeline)
    for _ in range(3):
        pipeline.unet(1)
    assert pipeline.vae.decode(2) == 2
    assert len(marks.steps()) == 3
    assert all(step >= 0 for step in marks.steps())
    marks.clear()
    assert marks.steps() == []
