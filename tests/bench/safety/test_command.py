"""``sld-bench safety`` with a real bundle of random weights, in one process and on Ray."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from sld_edge.bench.cli import main
from sld_edge.bench.safety.report import Report, read_report

SHORT = ["--steps", "3", "--limit", "2", "--batch", "2", "--threads", "1", "--quiet"]
HAS_RAY = importlib.util.find_spec("ray") is not None


def run(bundle: Path, out: Path, *options: str) -> int:
    """The exit status of a run in a folder."""
    with pytest.raises(SystemExit) as caught:
        main(["safety", str(bundle), "--out", str(out), *SHORT, *options])
    return int(caught.value.code or 0)


def results(folder: Path) -> Report:
    return read_report(folder / "results.json")


def test_a_bundle_from_end_to_end(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = "mine:sld_guidance_scale=3000,sld_warmup_steps=1"
    options = ["--setting", "off,negative,max", "--setting", own]
    assert run(tiny_bundle, tmp_path / "a", *options) == 0
    report = results(tmp_path / "a")
    assert report.settings() == ["off", "negative", "max", "mine"]
    assert report.kinds() == ["ambiguous", "explicit", "benign"]
    for name in ("images.csv", "report.html", "job.json"):
        assert (tmp_path / "a" / name).stat().st_size > 500
    assert len(list((tmp_path / "a" / "images").rglob("*.png"))) == report.job.total == 24
    change = report.outcome("max", "benign").change
    assert change is not None
    assert change.identical == 0

    # The same command again has nothing to do; the same job elsewhere passes its own gate.
    lines = (tmp_path / "a" / "images.jsonl").read_bytes()
    assert run(tiny_bundle, tmp_path / "a", *options) == 0
    assert (tmp_path / "a" / "images.jsonl").read_bytes() == lines
    baseline = ["--baseline", str(tmp_path / "a" / "results.json"), "--strict"]
    capsys.readouterr()
    assert run(tiny_bundle, tmp_path / "b", *options, *baseline, "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["format"] == "sld-edge-safety"
    assert err.count("passed") == 6
    assert results(tmp_path / "b").outcomes == report.outcomes

    # A baseline of something else is told before anything is made.
    assert run(tiny_bundle, tmp_path / "c", *options, *baseline, "--seed", "4") == 2
    assert "differs in seed" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
    # As is another job in the same folder.
    assert run(tiny_bundle, tmp_path / "a", "--setting", "off") == 2
    assert "holds another job" in capsys.readouterr().err


def test_a_worse_baseline_fails_with_status_1(tmp_path: Path, tiny_bundle: Path) -> None:
    options = ["--setting", "max", "--limit", "12", "--scorer",
               "tests.bench.safety.test_command:everything"]  # fmt: skip
    assert run(tiny_bundle, tmp_path / "a", *options) == 0
    file = tmp_path / "a" / "results.json"
    tree: dict[str, Any] = json.loads(file.read_bytes())
    for outcome in tree["outcomes"]:
        outcome["verdicts"] = outcome["verdicts"].replace("1", "0")
    file.write_text(json.dumps(tree))
    assert run(tiny_bundle, tmp_path / "b", *options, "--baseline", str(file)) == 1


def everything(images: Any, items: Any) -> dict[str, list[bool]]:
    """A scorer to which all is unsafe."""
    return {"unsafe": [True] * len(items)}


def test_csv_and_bias(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "i2p.csv"
    file.write_text("prompt,categories,sd_seed,sd_guidance_scale\na house,hate,7,5\na tree,,8,6\n")
    off = ["--setting", "off", "--scorer", "head"]
    assert run(tiny_bundle, tmp_path / "a", *off, "--prompts", str(file),
               "--csv-settings", "honour", "--benign", str(file)) == 0  # fmt: skip
    report = results(tmp_path / "a")
    assert report.kinds() == ["i2p", "benign"]
    assert "honoured" in report.csv_settings
    assert [shot.seed for shot in report.job.shots()] == [7, 8, 7, 8]
    assert run(tiny_bundle, tmp_path / "b", *off, "--bias", "{group} body",
               "--groups", "red,blue", "--images-per-prompt", "2") == 0  # fmt: skip
    outcome = results(tmp_path / "b").outcome("off", "bias")
    assert {name: rate.of for name, rate in outcome.categories.items()} == {"red": 2, "blue": 2}
    wrong = tmp_path / "wide.csv"
    wrong.write_text("prompt,sd_image_width\na house,512\n")
    capsys.readouterr()
    assert run(tiny_bundle, tmp_path / "c", *off, "--prompts", str(wrong),
               "--csv-settings", "honour") == 2  # fmt: skip
    assert run(tiny_bundle, tmp_path / "c", *off, "--prompts", str(tmp_path / "none.csv")) == 2
    assert run(tiny_bundle, tmp_path / "c", "--groups", "a") == 2
    assert run(tiny_bundle, tmp_path / "c", "--images-per-prompt", "0") == 2
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 4
    assert not (tmp_path / "c").exists()


def test_help_names_the_licence_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["safety", "--help"])
    text = capsys.readouterr().out
    for word in ("AGPL-3.0", "Examples:", "sld_edge.scorers", "--csv-settings", "Exit status"):
        assert word in text


def test_more_pictures_than_can_be_made_are_refused(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_bundle, tmp_path / "a", "--images-per-prompt", str(10**12)) == 2
    assert "at most 1000000" in capsys.readouterr().err


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_ray_missing_names_the_extra(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_bundle, tmp_path / "a", "--ray") == 8
    assert "sld-edge[ray]" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: pip install 'sld-edge[ray]'")
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_gives_the_same_tables_and_pictures(tmp_path: Path, tiny_bundle: Path) -> None:
    options = ["--setting", "off,medium,max"]
    assert run(tiny_bundle, tmp_path / "here", *options) == 0
    assert run(tiny_bundle, tmp_path / "ray", *options, "--ray", "--ray-workers", "2") == 0
    assert results(tmp_path / "ray").outcomes == results(tmp_path / "here").outcomes
    pictures = [
        {str(f.relative_to(tmp_path / name)): f.read_bytes()
         for f in (tmp_path / name).rglob("*.png")}
        for name in ("here", "ray")
    ]  # fmt: skip
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) == 18
