"""``sld-bench latency`` on a real tiny bundle: every number it promises, its files, and its gate."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sld_edge.bench.latency import command
from sld_edge.bench.latency.report import MOMENTS
from sld_edge.errors import ImageFileError, InvalidInput

pytestmark = pytest.mark.slow
SHORT = ("--fewest", "3", "--most", "3", "--scheduler", "ddim", "--threads", "1")


def run(bundle: Path, *words: str) -> Result:
    return CliRunner().invoke(command.main, [str(bundle), *SHORT, *words])


def test_measures_writes_and_gates(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    before = sorted(path.name for path in tiny_bundle.parent.iterdir())
    files = {kind: tmp_path / f"report.{kind}" for kind in ("json", "csv", "html")}
    options = {"json": "--json-file", "csv": "--csv", "html": "--html"}
    words = [word for kind, file in files.items() for word in (options[kind], str(file))]
    done = run(tiny_bundle, "--steps", "2", "--steps", "4", "--cold-starts", "1", *words)
    assert done.exit_code == 0, done.output
    for title in ("one call", "share of a call outside the networks", "cold starts", "promised"):
        assert title in done.output
    report = json.loads(files["json"].read_text())
    assert [case["case"]["steps"] for case in report["cases"]] == [2, 4]
    first = report["cases"][0]
    for case in report["cases"]:
        numbers = case["statistics"]
        assert 0 < numbers["outside_networks"]["value"] < 1
        assert 0 < numbers["host_step"]["p50"] < numbers["step"]["p50"]
        for entry in case["runs"]:
            assert sum(entry["stages"].values()) == pytest.approx(entry["total"], rel=1e-6)
            # No call of a sweep finds its text encoded by one before.
            assert entry["stages"]["text"] > 0
    assert [start["kind"] for start in first["cold"]] == ["first", "second"]
    for start in first["cold"]:
        times = [start[name] for name in MOMENTS]
        assert times == sorted(times)
    assert len(report["targets"]) == 2 * 2 + 2
    assert {target["verdict"] for target in report["targets"]} == {"not shown"}
    rows = list(csv.DictReader(io.StringIO(files["csv"].read_text())))
    assert {row["steps"] for row in rows} == {"2", "4"}
    assert "<svg" in files["html"].read_text()
    assert sorted(path.name for path in tiny_bundle.parent.iterdir()) == before

    # The same measurement again is within 1000 %; held against one a hundred times as fast, it is not.
    gate = ("--steps", "2", "--no-cold", "--max-regression", "1000%", "--baseline")
    assert run(tiny_bundle, *gate, str(files["json"])).exit_code == 0
    for entry in first["runs"]:
        entry["total"] /= 100
        entry["steps"] = [step / 100 for step in entry["steps"]]
    files["json"].write_text(json.dumps(report))
    slower = run(tiny_bundle, *gate, str(files["json"]))
    assert slower.exit_code == 1
    assert "regressed" in slower.output


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--cold-starts", "0"), InvalidInput),
        (("--steps", "0"), InvalidInput),
        (("--max-regression", "x"), InvalidInput),
        (("--json-file", "no/such/folder/x.json"), ImageFileError),
    ],
)
def test_wrong_options_are_told_before_anything_runs(
    words: tuple[str, str], error: type[Exception], tiny_bundle: Path
) -> None:
    assert isinstance(run(tiny_bundle, *words).exception, error)
