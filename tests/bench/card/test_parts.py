"""Pieces of the card's parts: whose picture is right, and what a step's kernels are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sld_edge.bench import nvml
from sld_edge.bench.card.page import page_from_report
from sld_edge.bench.card.part_kernels import kind_of, nodes_from_events, one_step, table_of
from sld_edge.bench.card.peers import by_the_rule, compiled, eager, ours, references
from sld_edge.bench.card.report import Part, Report
from sld_edge.bench.card.settings import PARTS
from sld_edge.bench.compare.adapters.ours import ENGINES
from sld_edge.bench.compare.interleave import Outcome
from sld_edge.bench.compare.peers import Peer, process_of
from sld_edge.bench.compare.report import result_of
from sld_edge.bench.gpu_check.backends import backends

PICTURE = np.random.default_rng(0).integers(60, 190, (16, 16, 3), dtype=np.uint8)


def outcome(peer: Peer, off: float) -> Outcome:
    noise = np.random.default_rng(1).normal(0.0, 1.0, PICTURE.shape) * off
    picture = np.clip(np.round(PICTURE + noise), 0, 255).astype(np.uint8)
    return Outcome(peer=peer, images=[1.0], steps=[0.1], pictures=[picture], flags=[None])


def judged(eager_off: float, ours_off: float) -> dict[str, Any]:
    outcomes = [outcome(references()[0], 0.0), outcome(eager()[0], eager_off)]
    entries = result_of(by_the_rule([*outcomes, outcome(ours("tensorrt")[0], ours_off)]))
    return {one["name"]: one for one in entries}["ours-tensorrt"]


@pytest.mark.parametrize(
    ("eager_off", "ours_off", "right"),
    [(2, 2, True), (2, 3.5, True), (2, 6, False), (20, 20, True), (60, 60, False), (0, 3, False)],
)
def test_a_picture_is_right_by_what_eager_reached(
    eager_off: float, ours_off: float, right: bool
) -> None:
    found = judged(eager_off, ours_off)
    assert found["counts"] is right, found


def test_without_a_reference_nothing_counts() -> None:
    [found] = result_of(by_the_rule([outcome(ours("tensorrt")[0], 1.0)]))
    assert not found["counts"]
    assert "safe-fp32" in found["reason"]


def test_every_library_of_gpu_check_has_a_pipeline() -> None:
    for backend in backends():
        for peer in ours(backend.name):
            name = peer.name.removesuffix("-off").removeprefix("ours-")
            assert ENGINES[name] is not None
    every = [*references(), *eager(), *compiled(), *ours("a"), *ours("b")]
    assert len({peer.name for peer in every}) == len(every)
    assert process_of(ours("a")[0]) != process_of(ours("b")[0])
    assert process_of(ours("a")[0]) == process_of(ours("a")[1])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("void cudnn::cnn::conv2d_grouped_direct_kernel<false>", "convolution"),
        ("sm80_xmma_fprop_implicit_gemm_f16f16", "convolution"),
        ("sm90_xmma_gemm_f16f16_tn_n", "GEMM"),
        ("pytorch_flash::flash_fwd_kernel<cutlass::half_t>", "attention"),
        ("Memcpy DtoD (Device -> Device)", "copy"),
        ("GroupNormNHWCSumKernel", "normalisation"),
        ("elementwise_kernel", "other"),
        ("Conv", "convolution"),
        ("MatMul", "GEMM"),
        ("Softmax", "attention"),
        ("Transpose", "copy"),
    ],
)
def test_kinds_of_kernels(name: str, kind: str) -> None:
    assert kind_of(name) == kind


@given(
    st.dictionaries(
        st.sampled_from(["text", "conv", "decode"]),
        st.tuples(st.floats(0, 1), st.integers(1, 50), st.floats(0, 1), st.integers(0, 50)),
    ),
    st.integers(2, 5),
    st.integers(1, 9),
)
def test_a_step_is_what_more_steps_add(
    parts: dict[str, tuple[float, int, float, int]], few: int, more: int
) -> None:
    def run(steps: int) -> dict[str, tuple[float, float]]:
        return {
            name: (once + steps * each, float(calls + steps * repeats))
            for name, (once, calls, each, repeats) in parts.items()
        }

    found = one_step(run(few), run(few + more), more)
    assert set(found) == {name for name, part in parts.items() if part[3]}
    for name, (seconds, launches) in found.items():
        assert seconds == pytest.approx(parts[name][2], abs=1e-9)
        assert launches == pytest.approx(parts[name][3])


def test_nodes_leave_the_first_run_out() -> None:
    events: list[dict[str, Any]] = [{"cat": "Session", "name": "model_run", "dur": 1}]
    for duration in (900, 100, 200):
        args = {"op_name": "Conv"}
        events.append({"cat": "Node", "name": "c_kernel_time", "dur": duration, "args": args})
    found = nodes_from_events(events, 3)
    assert list(found) == ["Conv"]
    assert found["Conv"] == pytest.approx((150e-6, 1.0))


def test_a_table_of_nothing() -> None:
    assert table_of("x", {})["kinds"] == {}


def test_the_page_shows_what_is_there_and_escapes_it() -> None:
    parts = [Part(name=name, title="t") for name in PARTS]
    report = Report(
        created="now", command="c", dry_run=False, device="<card>", settings={}, machine={}, parts=parts
    )  # fmt: skip
    report.part("kernels").result = {"tables": [table_of("<loop>", {"<gemm>": (0.5, 2.0)})]}
    report.part("machine").reason = "<why>"
    page = page_from_report(report)
    assert "&lt;card&gt;" in page
    assert "&lt;gemm&gt;" in page
    assert "<why>" not in page


class PlayedNvml:
    """cuda.bindings.nvml with one card that tells little."""

    def __getattr__(self, name: str) -> Any:
        if name in ("init_v2", "device_get_count_v2", "device_get_handle_by_index_v2"):
            return lambda *_: 1
        if name == "device_get_total_energy_consumption":
            return lambda _: 2500
        raise AttributeError(name)


def test_nvml_by_cuda_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Any:
        if name == "pynvml":
            raise ImportError(name)
        return PlayedNvml()

    monkeypatch.setattr(nvml, "import_module", load)
    found = nvml.cards()
    assert not isinstance(found, str), found
    [card] = found
    assert card.joules() == 2.5
    assert card.facts() == {}


def test_least_is_a_peers_own() -> None:
    peer = eager()[0]
    assert peer.least_psnr("fp32") == 15.0
    assert replace(peer, least=None).least_psnr("fp32") == 50.0
