"""``sld-bench safety --sweep`` with real bundles: of random weights, and, slowly, of the tiny world's model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sld_edge.bench.cli import main
from sld_edge.bench.safety.report import read_report


def run(bundle: Path, out: Path, *options: str) -> int:
    """The exit status of a run in a folder."""
    with pytest.raises(SystemExit) as caught:
        main(["safety", str(bundle), "--out", str(out), "--threads", "1", *options])
    return int(caught.value.code or 0)


def test_a_sweep_from_end_to_end(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--sweep", "--steps", "2,3", "--scheduler", "ddim,euler", "--guidance-scale", "5, 7.5",
               "--setting", "max", "--prompts", "tinyworld:ambiguous=1,concept=2", "--batch", "3"]  # fmt: skip
    out = tmp_path / "a"
    assert run(tiny_bundle, out, *options) == 0
    assert "max" in capsys.readouterr().out
    report = read_report(out / "results.json")
    assert report.sweep is not None
    # Two kinds, off and max, two of each axis; off was added.
    assert len(report.sweep.points) == 2 * 2 * 2**3
    assert {point.strength for point in report.sweep.points} == {"off", "max"}
    assert len((out / "sweep.csv").read_text().splitlines()) == 1 + len(report.sweep.points)
    assert "unsafe against steps" in (out / "report.html").read_text()
    assert len(list((out / "images").rglob("*.png"))) == report.job.total == 3 * 2 * 2**3

    # The same command has nothing to do, another sweep in the same folder is refused.
    lines = (out / "images.jsonl").read_bytes()
    assert run(tiny_bundle, out, *options, "--json") == 0
    assert json.loads(capsys.readouterr().out)["sweep"]["points"]
    assert (out / "images.jsonl").read_bytes() == lines
    assert run(tiny_bundle, out, *options, "--steps", "2,4") == 2
    assert "holds another job" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", "2,3"], "--steps takes several values only in a sweep: '2,3'"),
        (["--scheduler", "ddim,euler"], "--scheduler takes several values only in a sweep"),
        (["--guidance-scale", "5,7.5"], "--guidance-scale takes several values only in a sweep"),
        (["--sweep", "--steps", "8,0"], "--steps takes whole numbers above 0"),
        (["--sweep", "--steps", "8,"], "--steps takes whole numbers above 0"),
        (["--steps", "8.5"], "--steps takes whole numbers above 0"),
        (["--sweep", "--guidance-scale", "nan"], "--guidance-scale takes numbers above 0"),
        (["--sweep", "--guidance-scale", ""], "--guidance-scale takes numbers above 0"),
        (["--sweep", "--scheduler", "ddim,,euler"], "--scheduler takes names"),
        (["--sweep", "--steps", "3", "--scheduler", "dim"], "dim"),
        # What only one combination cannot do is told by its name, before anything is made.
        (["--sweep", "--steps", "3,60", "--scheduler", "lcm"], "off@lcm-60-7.5"),
    ],
)
def test_faults_are_one_line_before_anything_is_made(
    tmp_path: Path,
    tiny_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    short = ["--prompts", "tinyworld:ambiguous=1", "--setting", "max"]
    assert run(tiny_bundle, tmp_path / "a", *short, *options) == 2
    err = capsys.readouterr().err
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "a").exists()


def test_a_csvs_own_guidance_scales_are_refused(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.csv"
    file.write_text("prompt,sd_guidance_scale\na house,5\n")
    options = ["--sweep", "--prompts", str(file), "--csv-settings", "honour"]
    assert run(tiny_bundle, tmp_path / "a", *options) == 2
    assert "a sweep sets guidance scales" in capsys.readouterr().err


@pytest.mark.slow
def test_a_small_sweep_of_the_tiny_world(tmp_path: Path, world_bundle: Path) -> None:
    """The measurement in a reduced form: a handful of prompts shows that max acts in few steps as in 50."""
    options = ["--sweep", "--steps", "10,50", "--scheduler", "ddim", "--setting", "max",
               "--prompts", "tinyworld:ambiguous=6", "--batch", "6"]  # fmt: skip
    assert run(world_bundle, tmp_path / "a", *options, "--quiet") == 0
    sweep = read_report(tmp_path / "a" / "results.json").sweep
    assert sweep is not None
    found = {(p.kind, p.strength, p.steps): p for p in sweep.points}
    for steps in (10, 50):
        off, most = found["ambiguous", "off", steps], found["ambiguous", "max", steps]
        assert off.unsafe.yes >= 3
        assert most.left.value is not None
        assert most.left.value <= 0.34
    (drift,) = [drift for drift in sweep.drifts if drift.kind == "ambiguous"]
    assert (drift.strength, drift.reference, drift.steps) == ("max", 50, 10)
    assert drift.difference.low <= 0.0 <= drift.difference.high
