"""The dry run, from the command line to both files, every part really done."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from sld_edge.bench.card.part_check import small_bundle
from sld_edge.bench.card.report import DRY, Report
from sld_edge.bench.card.settings import PARTS, settings_for
from sld_edge.bench.cli import main


@pytest.mark.slow
def test_a_dry_run_walks_the_whole_way(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    work, json_file, html_file = tmp_path / "work", tmp_path / "card.json", tmp_path / "card.html"
    work.mkdir()
    settings = settings_for(dry_run=True, checkpoint=str(tiny_checkpoint), work=str(work))
    shutil.copytree(tiny_bundle, small_bundle(settings, "fp16"))  # one export is enough
    result = CliRunner().invoke(
        main,
        ["card", "--dry-run", "--time", "30m", "--checkpoint", str(tiny_checkpoint), "--work", str(work),
         "--json-file", str(json_file), "--html", str(html_file)],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    report = msgspec.json.decode(json_file.read_bytes(), type=Report)
    assert [part.name for part in report.parts] == list(PARTS)
    assert {part.status for part in report.parts} == {"done"}
    assert all(part.result["measured"] for part in report.parts[1:])
    assert report.dry_run
    assert report.device == DRY
    assert DRY in result.output
    for check in ("tiny-check", "model-check"):
        [bundle] = report.part(check).result["bundles"]
        assert {one["status"] for one in bundle["outcomes"]} <= {"passed", "skipped"}
        assert any(one["check"] == "whole run" for one in bundle["outcomes"])
    peers = {one["name"]: one for one in report.part("compare").result["peers"]}
    assert len(peers) == 8
    for name, one in peers.items():
        # What bf16 makes of random weights may be another picture: then it has to be told, not hidden.
        assert one["counts"] or one["reason"], one
        assert one["counts"] or not name.startswith(("ours", "safe-fp32", "plain-fp32")), one
        assert one["image"]["p50"] > 0
    assert (
        peers["ours-onnxruntime-cpu"]["psnr_db"] >= peers["ours-onnxruntime-cpu"]["least_psnr_db"]
    )
    [table] = report.part("kernels").result["tables"]
    assert sum(table["kinds"].values()) == pytest.approx(1.0)
    assert {"convolution", "GEMM"} <= set(table["kinds"])
    bundle = json.loads((settings.models / "bundle" / "manifest.json").read_text())
    checked = {graph["kind"]: graph["check"]["metric"] for graph in bundle["graphs"]}
    assert checked["unet"] == checked["decode"] == checked["text"] == "unchecked"
    assert "| unchecked | – | – |" in (settings.models / "bundle" / "CARD.md").read_text()
    page = html.unescape(html_file.read_text())
    assert DRY in page
    assert "A dry run without a card" in page
