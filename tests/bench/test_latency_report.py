"""Cases, stages and reports of ``sld-bench latency`` on made-up timings."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from sld_edge.bench.latency.case import Case, cases_from_sweep, names_of, size_from_text
from sld_edge.bench.latency.clock import (
    STAGES,
    Span,
    host_time_of_step,
    outside_share,
    run_from_spans,
)
from sld_edge.bench.latency.files import csv_from_report, json_from_report
from sld_edge.bench.latency.numbers import start_ratio, statistics_of, targets_of
from sld_edge.bench.latency.page import page_from_report
from sld_edge.bench.latency.report import (
    VERSION,
    Report,
    compare_reports,
    read_report,
)
from sld_edge.bench.latency.table import print_report
from sld_edge.bench.tables import seconds
from sld_edge.errors import InvalidInput
from tests.bench.reports import made_report

CASE = Case(height=64, width=64)


def test_sweep_is_the_product_of_its_axes_without_repeats() -> None:
    cases = cases_from_sweep({"steps": (2, 4, 4), "size": [(64, 64), (64, 96)], "safety": ("off",)})
    assert [(case.steps, case.size) for case in cases] == [
        (2, "64x64"), (4, "64x64"), (2, "64x96"), (4, "64x96"),
    ]  # fmt: skip
    assert names_of(cases)[3] == "64x96, 4 steps"
    assert names_of(cases[:1]) == ["64x64, safety off, 2 steps"]


def test_every_repeat_has_its_own_text_and_seed() -> None:
    first, second, warm = CASE.call(0), CASE.call(1), CASE.call(-1)
    assert len({call["prompt"] for call in (first, second, warm)}) == 3
    assert first["seed"] != second["seed"]
    assert "scheduler" not in first
    assert msgspec.structs.replace(CASE, scheduler="ddim").call(0)["scheduler"] == "ddim"


@pytest.mark.parametrize(
    ("text", "size"), [("512", (512, 512)), ("512x768", (512, 768)), (" 64X96 ", (64, 96))]
)
def test_sizes(text: str, size: tuple[int, int]) -> None:
    assert size_from_text(text) == size


@pytest.mark.parametrize("text", ["", "big", "64x", "-64", "64x64x64", "999999"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(InvalidInput, match="not a size"):
        size_from_text(text)


def test_stages_sum_up_to_the_total_and_nothing_is_counted_twice() -> None:
    spans = [
        Span("tokenise", 0.0, 1.0), Span("noise", 1.0, 1.5), Span("graph:text", 2.0, 3.0),
        Span("text", 2.0, 4.0), Span("graph:unet", 5.0, 7.0), Span("graph:advance", 7.0, 7.5),
        Span("graph:unet", 8.0, 9.0), Span("graph:advance", 9.0, 9.5), Span("denoise", 4.5, 10.0),
        Span("graph:decode", 10.0, 12.0), Span("graph:safety", 12.0, 13.0),
        Span("pictures", 10.0, 13.5), Span("png", 14.0, 15.0),
    ]  # fmt: skip
    run = run_from_spans(spans, total=15.0)
    assert list(run.stages) == list(STAGES)
    assert sum(run.stages.values()) == pytest.approx(15.0)
    assert run.stages["unet"] == 3.0
    assert run.stages["loop"] == pytest.approx(5.5 - 3.0 - 1.0)
    # What surrounds the text encoder in its stage is not the network's own.
    assert run.stages["text"] == 1.0
    assert run.stages["other"] == pytest.approx(15 - 1 - 0.5 - 1 - 3 - 1 - 1.5 - 2 - 1 - 1)
    assert run.steps == [3.0, 2.0]
    assert run.unet == [2.0, 1.0]
    assert outside_share(run) == pytest.approx(1 - (3 + 1 + 2 + 1) / 15)
    assert host_time_of_step(run) == pytest.approx((5.5 - 3.0) / 2)


def test_a_loop_that_runs_on_the_device_has_mean_steps() -> None:
    run = run_from_spans([Span("denoise", 0.0, 8.0)], total=9.0)
    report = made_report([msgspec.structs.replace(CASE, steps=4)])
    case = msgspec.structs.replace(report.cases[0], runs=[run])
    assert run.steps == []
    assert host_time_of_step(run) is None
    assert "host_step" not in statistics_of(case)
    assert case.series("step") == [2.0]


def test_statistics_have_the_planted_numbers() -> None:
    found = statistics_of(made_report().cases[0])
    assert found["step"]["p50"] == pytest.approx(0.01, rel=0.01)
    assert found["step"]["count"] == 48
    assert found["image"]["count"] == 12
    assert found["steps_per_second"] == pytest.approx(100.0, rel=0.01)
    assert set(found["stages"]) == set(STAGES)
    # tokenise, advance, loop, png and the rest, of a call of 4 steps of 10 ms
    outside = 0.0002 + 0.00004 + 0.00004 + 0.0003 + 0.0003
    assert found["outside_networks"]["value"] == pytest.approx(outside / 0.0488, rel=0.02)
    assert found["outside_networks"]["low"] <= found["outside_networks"]["value"]
    assert sum(found["outside_networks_by_stage"].values()) == pytest.approx(
        outside / 0.0488, rel=0.02
    )
    assert found["host_step"]["p50"] == pytest.approx(0.002 * 0.01, rel=0.01)


def test_json_says_what_it_is_and_comes_back(tmp_path: Path) -> None:
    report = made_report()
    data = json_from_report(report)
    tree = json.loads(data)
    assert (tree["format"], tree["version"]) == ("sld-edge-latency", VERSION)
    assert set(tree) == {"format", "version", "created", "command", "bundle", "machine", "activity",
                         "cases", "warnings", "targets"}  # fmt: skip
    statistics = tree["cases"][0]["statistics"]
    assert set(statistics["image"]) == {"count", "mean", "p50", "p90", "p99", "min", "max", "low",
                                        "high"}  # fmt: skip
    assert len(tree["cases"][0]["runs"]) == 12
    (tmp_path / "x.json").write_bytes(data)
    assert read_report(tmp_path / "x.json") == report


def test_a_noise_that_cannot_be_told_is_null_in_json() -> None:
    tree = json.loads(json_from_report(made_report(repeats=2)))
    assert tree["cases"][0]["statistics"]["noise"]["resolution"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "not a latency report"), ("[]", "not a latency report"), ("{}", "not a latency report")],
)
def test_wrong_baselines(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_report(tmp_path / "x.json")
    with pytest.raises(InvalidInput, match="cannot read"):
        read_report(tmp_path / "y.json")


def test_a_baseline_of_another_version_is_refused(tmp_path: Path) -> None:
    newer = msgspec.structs.replace(made_report(), version=VERSION + 1)
    (tmp_path / "x.json").write_bytes(json_from_report(newer))
    with pytest.raises(InvalidInput, match=f"version {VERSION}"):
        read_report(tmp_path / "x.json")


def test_csv_has_a_row_for_each_case_and_series() -> None:
    report = made_report([CASE, msgspec.structs.replace(CASE, batch=2)])
    rows = list(csv.DictReader(io.StringIO(csv_from_report(report))))
    assert len(rows) == 2 * (len(STAGES) + 5)
    image = next(row for row in rows if row["series"] == "image" and row["batch"] == "2")
    assert float(image["low_s"]) <= float(image["p50_s"]) <= float(image["high_s"])


def test_gate_sees_a_planted_slowdown_in_reports() -> None:
    base = made_report(seed=1)
    verdicts = {
        factor: {d.verdict for d in compare_reports(made_report(slow_down=factor, seed=2), base,
                                                    max_regression=0.05)}
        for factor in (0.9, 1.0, 1.1)
    }  # fmt: skip
    assert verdicts == {0.9: {"passed"}, 1.0: {"passed"}, 1.1: {"regressed"}}
    names = [decision.name for decision in compare_reports(base, base, max_regression=0.05)]
    assert [name.split(", ")[-1] for name in names] == ["image", "step", "host_step"]


def test_gate_refuses_what_cannot_be_compared() -> None:
    base = made_report()
    machine = {**base.machine, "cpu": "another"}
    with pytest.raises(InvalidInput, match="another machine"):
        compare_reports(base, msgspec.structs.replace(base, machine=machine), max_regression=0.05)
    with pytest.raises(InvalidInput, match="none of these cases"):
        compare_reports(
            base, made_report([msgspec.structs.replace(CASE, steps=9)]), max_regression=0.05
        )


def test_second_start_over_first() -> None:
    cold = made_report().cases[0].cold
    ratio = start_ratio(cold, "to_first_step")
    assert ratio is not None
    assert ratio.value == pytest.approx(2.1 / 4.2)
    assert 2.0 / 4.4 <= ratio.low <= ratio.value <= ratio.high <= 2.2 / 4.0
    done = start_ratio(cold, "first_step")
    assert done is not None
    assert done.value == pytest.approx(4.1 / 6.2)
    assert start_ratio(cold[:1], "first_step") is None


def promised(report: Report) -> dict[str, tuple[Any, str]]:
    """The measured value and verdict of every promise, by what follows the case's name."""
    found: dict[str, tuple[Any, str]] = {}
    for target in targets_of(report):
        assert target.measured is not None
        found[target.name] = (target.measured.value, target.verdict)
    return found


def test_promises_have_the_planted_numbers_and_verdicts() -> None:
    found = promised(made_report())
    share, host = (found[name] for name in ("time of a call outside the networks",
                                            "host time of a step outside the network"))  # fmt: skip
    assert share == (pytest.approx(0.018, rel=0.03), "missed")
    assert host == (pytest.approx(20e-6, rel=0.02), "met")
    assert found["second start up to the first step, of the first start's"] == (0.5, "missed")
    memory = found["peak memory of a fresh process, of the weights on disk"]
    assert memory == (pytest.approx(1.25 * 0.8), "met")
    # Half a second a step: what surrounds the networks is a smaller part, but more than a millisecond.
    slow = promised(made_report(slow_down=100.0))
    assert slow["time of a call outside the networks"][1] == "missed"
    assert slow["host time of a step outside the network"] == (
        pytest.approx(2e-3, rel=0.02),
        "missed",
    )


@pytest.mark.parametrize(
    ("unet_bytes", "precision", "side"),
    [
        (3_300_000_000, "fp32", 64),
        (3_300_000_000, "fp32", 768),
        (400_000, "fp32", 512),
        (1_650_000_000, "fp32", 512),
        (3_300_000_000, "fp16", 512),
        (0, "fp32", 512),
    ],
)
def test_nothing_is_met_or_missed_by_another_network_or_size(
    unet_bytes: int, precision: str, side: int
) -> None:
    case = msgspec.structs.replace(CASE, height=side, width=side)
    report = made_report([case], unet_bytes=unet_bytes)
    report = msgspec.structs.replace(report, bundle={**report.bundle, "precision": precision})
    targets = targets_of(report)
    assert len(targets) == (4 if precision == "fp32" else 3)
    assert {target.verdict for target in targets} == {"not shown"}
    assert all(f"weights at {side}x{side}, promised for SD 1.5" in t.why for t in targets)
    page, console = page_from_report(report), Console(width=400, record=True, file=io.StringIO())
    print_report(report, console)
    for text in (page, console.export_text(), json_from_report(report).decode()):
        assert "not shown" in text
        assert not re.search(r"\b(met|missed)\b", text)


def test_of_a_sweep_over_sizes_the_promised_one_counts() -> None:
    cases = [msgspec.structs.replace(CASE, height=side, width=side) for side in (512, 768)]
    verdicts = {
        target.case: target.verdict
        for target in targets_of(made_report(cases))
        if target.name.startswith("host time")
    }
    assert verdicts == {"512x512": "met", "768x768": "not shown"}


def test_half_precision_of_the_promised_network_counts() -> None:
    report = made_report(unet_bytes=1_650_000_000)
    half = msgspec.structs.replace(report, bundle={**report.bundle, "precision": "fp16"})
    assert "not shown" not in {target.verdict for target in targets_of(half)}


def test_promises_are_in_the_json() -> None:
    targets = json.loads(json_from_report(made_report()))["targets"]
    assert {target["verdict"] for target in targets} == {"met", "missed"}
    assert targets[0]["measured"]["low"] <= targets[0]["measured"]["high"]


def test_memory_is_promised_for_fp32_bundles_only() -> None:
    report = made_report()
    half = msgspec.structs.replace(report, bundle={**report.bundle, "precision": "fp16"})
    assert len(targets_of(half)) == len(targets_of(report)) - 1


def test_the_table_has_every_number_that_is_promised() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    print_report(made_report(), console)
    text = console.export_text()
    for words in ("share of a call outside the networks", "tokenise", "advance", "loop", "host a step",
                  "cold starts", "50%", "missed", "met", "warning: other processes"):  # fmt: skip
        assert words in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(12.346, "12.35 s"), (0.0123, "12.3 ms"), (4.2e-5, "42 µs"), (0.9997e-3, "1 ms")],
)
def test_durations(value: float, shown: str) -> None:
    assert seconds(value) == shown
