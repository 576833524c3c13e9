"""The supervision of ``sld-bench card``: limits, cut-off, skips, options and exit statuses, with played parts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from sld_edge.bench.card import command, supervise
from sld_edge.bench.card.report import DRY, Part, Report
from sld_edge.bench.card.settings import PARTS, Clock, seconds_from_text, settings_for
from sld_edge.bench.cli import main
from sld_edge.errors import InvalidInput

#: A child's stand-in: each part does what the environment says of it.
CHILD = """
import json, os, signal, subprocess, sys, time
part = sys.argv[1]
play = json.loads(os.environ["CARD_PLAY"]).get(part, "done")
def send(**message):
    print(json.dumps(message), flush=True)
if part == "machine":
    found = {"device": "played", "machine": {"cpu": "played"}}
    send(result=found | ({"no_card": "none"} if play == "no card" else {}))
else:
    send(result={"measured": True, "failed": play == "check failed"})
if play == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open(os.environ["CARD_PID"], "w").write(str(child.pid))
    time.sleep(600)
if play == "die":
    print("last words", file=sys.stderr)
    sys.exit(3)
send(status="skipped" if play == "skip" else "done", reason="because" if play == "skip" else "")
"""


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``played(compare="hang")``: parts in processes of their own that do as they are told."""
    (tmp_path / "played_child.py").write_text(CHILD)
    monkeypatch.setattr(supervise, "_CHILD", "played_child")
    monkeypatch.setattr(supervise, "_GRACE", 0.2)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("CARD_PID", str(tmp_path / "pid"))

    def run(*options: str, **plays: str) -> tuple[Result, dict[str, Any]]:
        monkeypatch.setenv(
            "CARD_PLAY", json.dumps({n.replace("_", "-"): p for n, p in plays.items()})
        )
        json_file = tmp_path / "card.json"
        arguments = ["card", "--json-file", str(json_file), "--html", str(tmp_path / "card.html")]
        result = CliRunner().invoke(main, [*arguments, *options])
        return result, json.loads(json_file.read_text()) if json_file.exists() else {}

    return run


def statuses(report: dict[str, Any]) -> dict[str, str]:
    return {part["name"]: part["status"] for part in report["parts"]}


def test_every_part_runs_and_is_written(played: Any, tmp_path: Path) -> None:
    result, report = played()
    assert result.exit_code == 0, result.output
    assert set(statuses(report).values()) == {"done"}
    assert report["device"] == "played"
    assert not report["dry_run"]
    assert msgspec.json.decode((tmp_path / "card.json").read_bytes(), type=Report).exit_status == 0
    assert "played" in (tmp_path / "card.html").read_text()


def test_a_skipped_and_a_dead_part_are_named(played: Any, tmp_path: Path) -> None:
    result, report = played("--work", str(tmp_path / "w"), tiny_check="skip", compare="die")
    parts = {part["name"]: part for part in report["parts"]}
    assert parts["tiny-check"]["status"] == "skipped"
    assert parts["tiny-check"]["reason"] == "because"
    assert parts["compare"]["status"] == "failed"
    assert parts["compare"]["reason"] == "its process ended with status 3 (last words)"
    assert parts["compare"]["result"]["measured"]
    assert parts["kernels"]["status"] == "done"
    assert result.exit_code == 1


def test_a_failed_check_is_status_1(played: Any) -> None:
    result, report = played(model_check="check failed")
    assert statuses(report)["model-check"] == "done"
    assert result.exit_code == 1


def test_without_a_card_nothing_else_is_begun(played: Any) -> None:
    result, report = played(machine="no card")
    assert result.exit_code == 10
    assert set(statuses(report).values()) == {"done", "skipped"}
    assert {part["reason"] for part in report["parts"][1:]} == {"no card: none"}


def test_parts_are_skipped_with_what_needs_them(played: Any) -> None:
    _, report = played("--skip", "model", "--skip", "tiny-check")
    assert statuses(report) == {name: "done" if name == "machine" else "skipped" for name in PARTS}
    reasons = {part["name"]: part["reason"] for part in report["parts"]}
    assert reasons["model"] == reasons["tiny-check"] == "left out by --skip"
    assert reasons["compare"] == "it needs what model makes, which is not there"


def test_time_is_a_limit_and_what_was_found_is_kept(played: Any, tmp_path: Path) -> None:
    start = time.monotonic()
    result, report = played("--time", "16s", model="hang")
    assert time.monotonic() - start < 60
    part = report["parts"][1]
    assert part["name"] == "model"
    assert part["status"] == "cut off"
    assert "took longer than its" in part["reason"]
    assert part["result"] == {"measured": True, "failed": False}
    assert result.exit_code == 0
    assert gone(int((tmp_path / "pid").read_text()))


def gone(pid: int) -> bool:
    """Whether a process ends within seconds."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_it_had(played: Any, tmp_path: Path, number: int) -> None:
    del played
    json_file = tmp_path / "card.json"
    code = (
        "from sld_edge.bench.card import supervise; supervise._CHILD = 'played_child'; supervise._GRACE = 0.2;"
        f"from sld_edge.bench.cli import main; main(['card', '--json-file', {str(json_file)!r}, '-q'])"
    )
    import sld_edge

    path = os.pathsep.join([str(Path(sld_edge.__file__).parent.parent), str(tmp_path)])
    environment = {**os.environ, "PYTHONPATH": path, "CARD_PLAY": '{"model": "hang"}'}
    run = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        for _ in range(600):
            if (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text():
                break
            time.sleep(0.1)
        run.send_signal(number)
        _, error = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 130, error
    assert error.count("error: interrupted") == 1
    report = json.loads(json_file.read_text())
    assert statuses(report) == {
        name: "done" if name == "machine" else "interrupted" for name in PARTS
    }
    assert report["parts"][1]["result"] == {"measured": True, "failed": False}
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--time", "soon"], "the time is no duration: 'soon'"),
        (["--time", "0s"], "out of range"),
        (["--time", "1000h"], "out of range"),
        (["--time", ""], "no duration"),
        (["--skip", "cards"], "unknown part: 'cards'"),
        ([word for name in PARTS for word in ("--skip", name)], "every part is skipped"),
        (["--checkpoint", "nowhere"], "no diffusers checkpoint here"),
        (["--html", "nowhere/x.html"], "no such folder"),
        (["--work", "nowhere/x"], "no such folder"),
        (["--steps", "1"], "--steps"),
    ],
)
def test_bad_options_are_one_line(options: list[str], words: str) -> None:
    result = CliRunner().invoke(main, ["card", *options])
    assert result.exit_code in (2, 9)
    assert words in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "seconds"), [("8m", 480), ("90s", 90), ("1h30m", 5400), ("1.5m", 90), ("45", 45)]
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_from_text(text) == seconds


@pytest.mark.parametrize("text", ["m", "8 m", "-3s", "s", "8m8m", "nan"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidInput):
        seconds_from_text(text)


def test_parts_share_all_of_the_time() -> None:
    clock = Clock(480.0)
    ends = [clock.end_of(name) for name in PARTS]
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(480.0)


def test_a_dry_run_says_so_everywhere() -> None:
    settings = settings_for(dry_run=True, checkpoint="", work="w")
    report = command._new_report(settings, list(PARTS))
    assert report.dry_run
    assert report.device == DRY
    assert report.warnings == [DRY]
    assert settings.device == "cpu"
    assert settings_for(dry_run=False, checkpoint="", work="w").device == "cuda"
    assert Part(name="x", title="y").result == {}


def test_help_has_examples() -> None:
    result = CliRunner().invoke(main, ["card", "--help"])
    assert result.exit_code == 0
    assert "sld-bench card --dry-run" in result.output
