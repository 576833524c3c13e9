"""A bundle calibrated for 8 bits: what is in it, who may use it, and when it is refused."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from sld_edge import SafePipeline
from sld_edge.bundle import Bundle
from sld_edge.calibration.config import CalibrationConfig
from sld_edge.calibration.ranges import Range, RangeRecorder
from sld_edge.errors import CalibrationError, InvalidInput
from sld_edge.manifest import Int8
from sld_edge.manifest_versions import VERSION
from tests.calibration.conftest import QUICK
from tests.likeness import psnr

pytest.importorskip("openvino")

CALL: dict[str, Any] = {"num_inference_steps": 12, "seed": 4, "output_type": "np"}


def int8_of(bundle: Bundle) -> Int8:
    graph = bundle.graph("unet", height=64, width=64)
    assert isinstance(graph.int8, Int8)
    return graph.int8


def test_the_manifest_says_what_was_done_and_every_file_is_digested(
    calibrated: Bundle, tiny_bundle: Path
) -> None:
    calibrated.verify(full=True)
    int8, before = int8_of(calibrated), Bundle.open(tiny_bundle).manifest
    assert before.version == calibrated.manifest.version == VERSION
    assert {int8.file, *int8.weights} == set(calibrated.manifest.files) - set(before.files)
    assert int8.calibrated_on == 2 * (QUICK["steps"] + 1)  # PNDM runs its second step twice
    assert all(proof.holds for proof in int8.proofs)
    assert len(int8.layers) > 20
    sizes = calibrated.manifest.files
    assert sizes[int8.weights[0]].size < 0.5 * sizes["graphs/unet.weights"].size
    assert not list((calibrated.path / "graphs").glob("draft*"))


def test_the_card_gives_the_figures(calibrated: Bundle, tiny_bundle: Path) -> None:
    card = (calibrated.path / "CARD.md").read_text("utf-8")
    assert "## Computing in 8 bits" in card
    assert "correction kept" in card
    assert "8 bits" not in (tiny_bundle / "CARD.md").read_text("utf-8")


def test_pictures_in_8_bits_are_alike_and_the_record_says_so(calibrated: Bundle) -> None:
    texts = ["a portrait of a knight", "two dogs"]
    with (
        SafePipeline.from_pretrained(calibrated.path, "openvino") as full,
        SafePipeline.from_pretrained(calibrated.path, "openvino", compute_precision="int8") as low,
    ):
        a, b = (pipe(texts, safety="strong", **CALL) for pipe in (full, low))
        assert ", fp32, " in full.engines["unet"]
        assert ", int8, the rest " in low.engines["unet"]
        assert ", fp32, " in low.engines["text"]
        assert ", fp32, " in low.engines["safety"]
    assert 20 < psnr(np.asarray(a.images), np.asarray(b.images)) < 60
    assert "int8" in b.record["engine"]["unet"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_8_bits_are_not_used_unless_allowed(calibrated: Bundle, precision: Any) -> None:
    with SafePipeline.from_pretrained(
        calibrated.path, "openvino", compute_precision=precision
    ) as pipe:
        assert "int8" not in pipe.engines["unet"]


def test_where_there_is_no_8_bit_graph_the_next_best_is_used_and_said(tiny_bundle: Path) -> None:
    with SafePipeline.from_pretrained(tiny_bundle, "openvino", compute_precision="int8") as pipe:
        assert "(int8 was allowed, there is no 8-bit graph of it)" in pipe.engines["unet"]


def test_onnx_runtime_says_that_8_bits_are_not_its_own(calibrated: Bundle) -> None:
    with SafePipeline.from_pretrained(
        calibrated.path, "onnxruntime:cpu", compute_precision="int8"
    ) as pipe:
        assert "fp32 (int8 was allowed, 8-bit graphs run on" in pipe.engines["unet"]


def test_a_planted_bad_range_is_refused_by_name_and_leaves_nothing(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sld_edge.calibration.calibrate import calibrate_bundle

    ranges = RangeRecorder.ranges

    def far_too_narrow(self: RangeRecorder) -> dict[str, Range]:
        narrow = np.float32(1 / 50)
        return {
            name: Range(low=r.low * narrow, high=r.high * narrow)
            for name, r in ranges(self).items()
        }

    monkeypatch.setattr(RangeRecorder, "ranges", far_too_narrow)
    config = CalibrationConfig(
        bundle=tiny_bundle, out=tmp_path / "out", **{**QUICK, "noise_budget": 1e9}
    )
    with pytest.raises(CalibrationError, match=r"safety would not act .*direction_cosine") as error:
        calibrate_bundle(config)
    assert error.value.exit_code == 11
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_calibration_leaves_nothing_and_the_bundle_as_it_was(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("sld_edge.calibration.calibrate")

    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.UnetRuns, "ranges", interrupt)
    before = Bundle.open(tiny_bundle).digest
    with pytest.raises(KeyboardInterrupt):
        module.calibrate_bundle(
            CalibrationConfig(bundle=tiny_bundle, out=tmp_path / "out", **QUICK)
        )
    assert list(tmp_path.iterdir()) == []
    bundle = Bundle.open(tiny_bundle)
    bundle.verify(full=True)
    assert bundle.digest == before


def test_a_list_of_prompts_is_read_as_its_editor_shows_it(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    from sld_edge.calibration.trajectories import prompts_from

    file = tmp_path / "prompts.txt"
    file.write_text("\ufeff# ours\r\na castle\u2028at night\r\n", "utf-8")
    *prompts, _ = prompts_from(file, Bundle.open(tiny_bundle))
    assert prompts == ["a castle\u2028at night"]


def test_wrong_bundles_and_numbers_are_clear_errors(
    calibrated: Bundle, tiny_bundle: Path, tmp_path: Path
) -> None:
    from sld_edge.calibration.calibrate import calibrate_bundle

    def refused(match: str, **changes: Any) -> None:
        given = {"bundle": tiny_bundle, "out": tmp_path / "out", **QUICK, **changes}
        with pytest.raises(InvalidInput, match=match):
            calibrate_bundle(CalibrationConfig(**given))

    refused("8 bits already", bundle=calibrated.path)
    refused("exists already", out=tmp_path)
    refused("steps is too small", steps=1)
    refused("noise budget", noise_budget=float("nan"))
    dangling = tmp_path / "link"
    dangling.symlink_to(tmp_path / "nowhere")
    refused("is a link to nothing", out=dangling)
    refused("cannot read .*none.txt", prompts=tmp_path / "none.txt")
    empty = tmp_path / "empty.txt"
    empty.write_text("# nothing\n", "utf-8")
    refused("0 prompts", prompts=empty)
    empty.write_text("a knight in a forest\n", "utf-8")
    refused("compared on", prompts=empty)


def test_the_command_reports_as_json_and_has_help(
    calibrated: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from sld_edge import shell
    from sld_edge.calibration.cli import main

    module = import_module("sld_edge.calibration.calibrate")
    monkeypatch.setattr(shell, "quiet_logging", lambda: None)
    monkeypatch.setattr(module, "calibrate_bundle", lambda config, stage: calibrated)
    with pytest.raises(SystemExit) as left:
        main.main(["bundle", str(tmp_path / "out"), "--json"])
    assert not left.value.code
    report = json.loads(capsys.readouterr().out)
    int8 = int8_of(calibrated)
    assert report["digest"] == calibrated.digest
    assert report["graphs"][int8.file]["proofs"] == json.loads(msgspec.json.encode(int8.proofs))
    with pytest.raises(SystemExit):
        main.main(["--help"])
    assert "Examples:" in capsys.readouterr().out
