"""The arithmetic of every bundle, permission and library: the very table of docs/performance.md."""

from __future__ import annotations

import itertools
import platform
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from sld_edge.bundle import Bundle
from sld_edge.engines.base import COMPUTE_PRECISIONS, ComputePrecision, EngineOptions
from sld_edge.engines.load import load
from sld_edge.engines.onnxruntime import providers
from sld_edge.engines.onnxruntime.plugins import Offer
from sld_edge.engines.precision import EVERYTHING, LibraryProvider, arithmetic_at
from sld_edge.errors import EngineError
from sld_edge.manifest import Precision

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
STORED: tuple[Precision, ...] = get_args(Precision)
#: The provider decides what these compute in, so that there is no row to state.
FREE = {"onnxruntime:coreml", "onnxruntime:dml", "onnxruntime:other"}
Row = tuple[str, str, str, str, str]


def rows() -> list[Row]:
    """LibraryProvider, bundle, one permission, options, statement; a line for several permissions is several rows."""
    section = PAGE.read_text("utf-8").split("## What arithmetic is used")[1].split("\n## ")[0]
    found = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] in get_args(LibraryProvider):
            place, stored, allowed, options, stated = cells
            found += [(place, stored, asked.strip(), options, stated) for asked in allowed.split(",")]  # fmt: skip
    return found


@pytest.fixture(autouse=True)
def _machine_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)


@pytest.mark.parametrize("row", rows(), ids=lambda row: "-".join(row[:3]))
def test_the_page_says_what_the_code_decides(row: Row) -> None:
    place, stored, asked, options, stated = row
    found = arithmetic_at(place, stored, asked)  # type: ignore[arg-type]  # words of the page
    given = dict(pair.split("=") for pair in re.findall(r"`([^`]*)`", options))
    assert {name: str(value) for name, value in found.options.items()} == given
    assert ("refused" if found.refused else found.stated) == stated


def test_the_page_has_every_case_once() -> None:
    cases = [row[:3] for row in rows()]
    places = [place for place in get_args(LibraryProvider) if place not in FREE]
    assert sorted(cases) == sorted(itertools.product(places, STORED, COMPUTE_PRECISIONS))


@pytest.mark.parametrize("place", get_args(LibraryProvider))
@pytest.mark.parametrize("asked", COMPUTE_PRECISIONS)
def test_fp32_is_never_narrowed_without_permission(
    place: LibraryProvider, asked: ComputePrecision
) -> None:
    found = arithmetic_at(place, "fp32", asked)
    if asked == "fp32" and place not in FREE:
        assert found.precision == "fp32" or found.refused
    assert found.stated.split(" ")[0] == found.precision or place in FREE


@pytest.mark.parametrize("asked", COMPUTE_PRECISIONS)
def test_tensor_cores_are_left_to_fp16_graphs(asked: ComputePrecision) -> None:
    assert arithmetic_at("onnxruntime:cuda", "fp16", asked).options == {"use_tf32": "1"}
    assert arithmetic_at("onnxruntime:cuda", "fp16", asked).stated.startswith("fp16")


def test_a_card_without_tf32_computes_in_fp32_and_says_so() -> None:
    old = EVERYTHING - {"TF32"}
    found = arithmetic_at("onnxruntime:cuda", "fp32", "bf16", can=old)
    assert found.stated == "fp32 (bf16 was allowed, this card does not compute fp32 in tf32)"
    found = arithmetic_at("onnxruntime:tensorrt", "fp32", "fp32", can=old)
    assert (found.stated, found.refused) == ("fp32", "")


def test_the_environment_may_turn_tf32_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    found = arithmetic_at("onnxruntime:tensorrt", "fp32", "fp32")
    assert (found.stated, found.refused) == ("fp32", "")
    assert arithmetic_at("onnxruntime:cuda", "fp32", "bf16").precision == "fp32"


def test_what_the_processor_lacks_is_said() -> None:
    found = arithmetic_at("openvino", "fp16", "bf16", can={"FP32", "INT8"})
    assert found.options["INFERENCE_PRECISION_HINT"] == "f32"
    assert found.stated == (
        "fp32 (from fp16 weights; bf16 was allowed, this processor has no arithmetic for it)"
    )
    found = arithmetic_at("openvino", "fp32", "int8", can={"FP32"}, group=32)
    assert found.stated == "fp32 (int8 was allowed, this processor has no arithmetic for it)"


def test_weights_beyond_half_stay_in_fp32_and_it_says_why() -> None:
    found = arithmetic_at("openvino", "fp32", "fp16", half=False)
    assert found.stated.startswith("fp32 (fp16 was allowed, its weights are not finite or beyond")
    assert not found.narrows


def test_8_bits_take_the_rest_as_low_as_they_may() -> None:
    found = arithmetic_at("openvino", "fp32", "int8", group=320)
    assert (found.precision, found.stated) == ("int8", "int8, the rest bf16")
    assert found.options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] == 320


def test_arm_says_that_its_kernels_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert arithmetic_at("onnxruntime:cpu", "fp16", "fp32").stated.startswith("fp16 where")
    assert arithmetic_at("onnxruntime:cpu", "fp32", "fp32").stated == "fp32"


def test_an_engine_built_with_tf32_says_so() -> None:
    assert arithmetic_at("tensorrt", "fp32", "fp32", tf32=True).stated == "tf32 (it was built so)"
    assert arithmetic_at("tensorrt", "fp16", "fp32", tf32=True).stated == "fp16"


def test_sessions_are_given_the_options_of_the_bundles_precision(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    monkeypatch.setattr(providers, "built_in", lambda: present)
    monkeypatch.setattr(providers, "offered", lambda entry: Offer())
    options = EngineOptions(provider="cuda")
    [half] = providers.candidates(options, threads=1, stored="fp16")
    [full] = providers.candidates(options, threads=1, stored="fp32")
    assert (half.options["use_tf32"], full.options["use_tf32"]) == ("1", "0")
    assert half.options["arena_extend_strategy"] == "kSameAsRequested"

    bundle = Bundle.open(tiny_bundle)
    engine: Any = load(bundle, bundle.graph("text"), EngineOptions(provider="tensorrt"))
    with pytest.raises(EngineError, match="it computes fp32 graphs in tf32"):
        engine.__enter__()
