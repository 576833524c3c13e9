"""Turns, limits, skips, picture matching and ratios of ``sld-bench compare``, with made-up peers."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from sld_edge.bench.compare import interleave
from sld_edge.bench.compare.interleave import Outcome, Turns, run_in_turns
from sld_edge.bench.compare.marks import Marks
from sld_edge.bench.compare.page import page_from_report
from sld_edge.bench.compare.peers import BY_NAME, PEERS, command_for, process_of
from sld_edge.bench.compare.picture import IDENTICAL, is_flat, psnr
from sld_edge.bench.compare.report import contrast, noise_warnings, result_of
from sld_edge.bench.compare.table import print_comparison
from sld_edge.bench.compare.targets import targets_of
from sld_edge.bench.compare.task import Task, Unavailable
from sld_edge.bench.targets import not_promised_of, unet_bytes_of
from sld_edge.bundle import Bundle
from sld_edge.errors import InvalidInput
from sld_edge.manifest import File
from tests.bench.browser import count_of, draw, overflow_of
from tests.bench.test_page import drawings_of

PICTURE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)

FAKE = """
import time
import msgspec
import numpy as np
from sld_edge.bench.compare.task import Picture, Unavailable

class Fake:
    description = "fake"
    def __init__(self, peer):
        self.peer = peer
    def image(self, steps, prompt):
        print("noise on standard output")
        if self.peer == "safe-compiled":
            raise SystemExit(3)
        if self.peer == "safe-bf16":
            time.sleep(60)
        if self.peer == "safe-openvino":
            raise ValueError("two\\nlines")
        time.sleep({"ours": 0.01}.get(self.peer, 0.04))
        rng = np.random.default_rng(len(prompt) + int(prompt.split()[-1]))
        return Picture(pixels=rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), flags=[self.peer == "ours"])
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
        # Every round has its own text, so its own picture.
        assert len({picture.tobytes() for picture in found[name].pictures}) == 3
    entries = {
        entry["name"]: entry for entry in json.loads(json.dumps(result_of(list(found.values()))))
    }
    assert entries["ours"]["counts"]
    assert entries["ours"]["flagged"] == [True] * 3
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


def test_a_second_interruption_leaves_no_worker_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubborn = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(interleave, "command_for", lambda peer, peers_folder: stubborn)
    turns = Turns(repeats=1, limit=20.0, room=0, peers_folder=tmp_path)
    workers = interleave._Workers(task_in(tmp_path), turns)
    started = [workers.of(BY_NAME[name]) for name in ("ours", "safe-eager")]

    def interrupted(worker: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(interleave._Worker, "stop", interrupted)
    with pytest.raises(KeyboardInterrupt), workers:
        assert all(worker.alive for worker in started)
    assert not any(worker.alive for worker in started)


def outcome_of(name: str, step: float, picture: np.ndarray = PICTURE) -> Outcome:
    return Outcome(peer=BY_NAME[name], images=[4 * step] * 3, steps=[step] * 6, pictures=[picture] * 2,
                   flags=[True, None])  # fmt: skip


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


def reason_of(ours: Outcome, *others: Outcome) -> str:
    entry = result_of([ours, *others])[0]
    assert entry["counts"] == (not entry["reason"])
    return str(entry["reason"])


def test_another_picture_does_not_count() -> None:
    other, flat = np.roll(PICTURE, 1, axis=0), np.full_like(PICTURE, 7)
    good, reference = outcome_of("ours", 1.0), outcome_of("safe-eager", 4.0)
    assert reason_of(good, reference) == ""
    assert "does not match safe-eager's" in reason_of(outcome_of("ours", 1.0, other), reference)
    assert "has another size" in reason_of(outcome_of("ours", 1.0, PICTURE[:4]), reference)
    assert "was not run" in reason_of(good)
    assert "was not run" in reason_of(good, Outcome(peer=BY_NAME["safe-eager"], skipped="died"))
    # Two black pictures are equal, and so is a reference to itself; neither shows anything.
    assert "next to nothing" in reason_of(
        outcome_of("ours", 1.0, flat), outcome_of("safe-eager", 4.0, flat)
    )
    assert "next to nothing" in reason_of(outcome_of("safe-eager", 4.0, flat))


def test_the_worst_round_counts() -> None:
    ours, reference = outcome_of("ours", 1.0), outcome_of("safe-eager", 4.0)
    ours.pictures = [PICTURE, np.roll(PICTURE, 1, axis=0)]
    assert "does not match" in reason_of(ours, reference)


def test_contrast_is_that_of_the_round_that_differs_least() -> None:
    one, other = outcome_of("ours", 1.0), outcome_of("ours-off", 1.0)
    other.pictures = [255 - PICTURE, np.clip(PICTURE, 1, 255)]
    assert contrast([one, other], "ours", "ours-off") == psnr(PICTURE, other.pictures[1])
    other.pictures = [np.full_like(PICTURE, 7)] * 2
    assert contrast([one, other], "ours", "ours-off") is None
    assert contrast([one], "ours", "ours-off") is None


def test_a_lower_precision_may_differ_more() -> None:
    exact, low = BY_NAME["ours"].least_psnr("fp32"), BY_NAME["ours"].least_psnr("bf16")
    assert low < exact
    assert BY_NAME["safe-bf16"].least_psnr("fp32") == low
    for name in ("safe-eager", "optimum-onnx"):  # fp32 whatever the task allows
        assert BY_NAME[name].least_psnr("bf16") == exact


def test_peers_of_one_process_share_its_weights() -> None:
    assert process_of(BY_NAME["safe-bf16"]) != process_of(BY_NAME["safe-eager"])
    assert process_of(BY_NAME["safe-eager"]) == process_of(BY_NAME["plain-eager"])
    # Another number of branches is compiled anew in 8 bits: in one process each would pay for the other.
    assert process_of(BY_NAME["ours"]) != process_of(BY_NAME["ours-off"])


def test_peers_of_one_process_are_started_alike(
    tmp_path: Path,
) -> None:
    for peer in PEERS:
        if peer.environment:
            python = tmp_path / peer.environment / "bin" / "python"
            python.parent.mkdir(parents=True, exist_ok=True)
            python.touch()
    commands: dict[str, list[str]] = {}
    for peer in PEERS:
        command = command_for(peer, peers_folder=tmp_path)
        assert commands.setdefault(process_of(peer), command) == command


def promised(*outcomes: Outcome) -> dict[str, tuple[str, str]]:
    """Measured value and verdict of every promise by the peer's title."""
    found = [target.cells() for target in targets_of(result_of(outcomes))]
    return {cells[0].split("against ")[1]: cells[2:] for cells in found}


@pytest.mark.parametrize(
    ("weights", "precision", "side", "counts"),
    [
        (3_300_000_000, "fp32", 512, True),
        (1_650_000_000, "fp16", 512, True),
        (3_300_000_000, "fp32", 768, False),
        (1_650_000_000, "fp32", 512, False),
        (400_000, "fp32", 64, False),
    ],
)
def test_promises_are_of_one_network_and_size(
    tiny_bundle: Path, weights: int, precision: Any, side: int, counts: bool
) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    files = {**manifest.files, "graphs/unet.weights": File(size=weights, sha256="0" * 64)}
    other = msgspec.structs.replace(manifest, files=files, precision=precision)
    why = not_promised_of(unet_bytes_of(other), precision, side, side)
    assert bool(why) != counts
    entries = result_of([outcome_of("ours", 3.0), outcome_of("safe-eager", 12.0)])
    first = targets_of(entries, why)[0]
    assert first.verdict == ("met" if counts else "not shown")
    assert counts or f"at {side}x{side}" in first.why


def test_promises_are_judged_by_the_ratios_that_count() -> None:
    reference, plain = outcome_of("safe-eager", 12.0), outcome_of("plain-eager", 8.0)
    slow = outcome_of("optimum-onnx", 1.9)
    verdicts = promised(outcome_of("ours", 3.0), reference, plain, slow)
    assert verdicts["diffusers Safe, eager"] == ("4×", "met")
    # 1.9 s for two rows is less than 3 s for three.
    assert verdicts["Optimum ONNX Runtime"] == ("0.95×", "missed")
    assert verdicts["diffusers Safe, eager bf16"][1] == "not shown"
    black = outcome_of("ours", 3.0, np.zeros_like(PICTURE))
    measured, verdict = promised(black, reference)["diffusers Safe, eager"]
    assert verdict == "not shown"
    assert "sld-edge does not count: a picture shows next to nothing" in measured


def test_a_difference_that_noise_may_explain_is_called_out() -> None:
    rough, reference = outcome_of("ours", 3.0), outcome_of("safe-eager", 12.0)
    rough.steps, close = [2.0, 3.0, 4.0], outcome_of("safe-openvino", 3.1)
    (line,) = noise_warnings(result_of([rough, reference, close]))
    assert line.startswith(
        "diffusers Safe, OpenVINO three-row UNet: too noisy for a difference of 3.3%"
    )
    assert noise_warnings(result_of([outcome_of("ours", 3.0), reference, close])) == []
    black = outcome_of("safe-openvino", 3.1, np.zeros_like(PICTURE))
    assert noise_warnings(result_of([rough, reference, black])) == []


def report_of(outcomes: list[Outcome]) -> dict[str, Any]:
    return {"bundle": {"name": "x & <y>"}, "created": "2026-11-25T10:00:00+00:00", "command": "sld-bench compare <a> b",
            "steps": 3, "size": "64x64", "threads": 2, "precision": "fp32", "machine": {"cpu": "a cpu"},
            "activity": {"others": 0.5, "stolen": 0.0}, "peers": result_of(outcomes),
            "safe_against_off_psnr_db": IDENTICAL, "not_promised": "", "warnings": ["a warning"]}  # fmt: skip


def mixed_outcomes() -> list[Outcome]:
    """Some that count, one that is black, one that is missing."""
    black = outcome_of("safe-openvino", 3.0, np.zeros_like(PICTURE))
    return [outcome_of("ours", 3.0), outcome_of("safe-eager", 12.0), black,
            Outcome(peer=BY_NAME["optimum-onnx"], skipped="not installed")]  # fmt: skip


def bars_of(page: str) -> dict[str, float]:
    """Length in pixels of the bar of each colour."""
    found = {}
    for mark in drawings_of(page)[0].iter("g"):
        if mark.find("title") is not None and (bar := mark.find("path")) is not None:
            ends = [float(x) for x in re.findall(r"[ML] ([\d.]+)", bar.get("d", ""))]
            found[re.findall(r"var\(--(\w+)\)", bar.get("style", ""))[0]] = max(ends) - min(ends)
    return found


def test_chromium_draws_the_page(tmp_path: Path) -> None:
    page = page_from_report(report_of(mixed_outcomes()))
    assert "<script" not in page
    assert "x &amp; &lt;y&gt;" in page
    assert "50.0% of all cores" in page
    assert "does not count: diffusers Safe, OpenVINO three-row UNet: a picture shows" in page
    dom, pixels = draw(page, tmp_path, height=1500)
    assert overflow_of(page, tmp_path) == "wide: 0, cut: 0"
    assert dom.count("<svg") == 1
    bars = bars_of(page)
    # Ours, 3 s; the reference, 12 s, as long as the axis; black, 3 s in the colour of what does not count.
    assert bars["grey"] == pytest.approx(4 * bars["blue"], abs=0.1)
    assert bars["red"] == bars["blue"]
    for colour in ("2f7fd1", "7b8790", "c9503c"):
        assert count_of(pixels, colour) > 500


def test_the_table_says_what_does_not_count() -> None:
    outcomes = mixed_outcomes()
    report = report_of(outcomes)
    console = Console(width=200, record=True, file=io.StringIO())
    print_comparison(report, console)
    text = console.export_text()
    for words in ("4.00 (4.00–4.00)", "reference", "flat (!)", "unsafe", "the same picture (!)",
                  "skipped Optimum ONNX Runtime: not installed", "warning: a warning",
                  "does not count: diffusers Safe, OpenVINO three-row UNet: a picture shows"):  # fmt: skip
        assert words in text


def test_marks_give_the_time_between_calls() -> None:
    class Vae:
        def decode(self, latents: object) -> object:
            return latents

    class Pipeline:
        def __init__(self) -> None:
            self.unet: Callable[[int], int] = lambda x: x
            self.vae = Vae()

    pipeline, marks = Pipeline(), Marks()
    marks.watch(pipeline)
    for _ in range(3):
        pipeline.unet(1)
    latents = np.zeros((1, 3, 2, 2), np.float32)
    assert pipeline.vae.decode(latents) is latents
    assert len(marks.steps()) == 3
    assert all(step >= 0 for step in marks.steps())
    marks.clear()
    assert marks.steps() == []
