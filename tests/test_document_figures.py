"""Figures in documents that are constants of the code, or follow from them, are the code's."""

from __future__ import annotations

import re
from importlib.metadata import distribution, requires
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sld_edge.bench.card.command import main as card
from sld_edge.bench.card.peers import _LEAST as CARD_LEAST
from sld_edge.bench.card.peers import _WORSE as CARD_WORSE
from sld_edge.bench.card.settings import PARTS
from sld_edge.bench.compare.peers import _LEAST_PSNR, _LEAST_PSNR_BF16
from sld_edge.bench.compare.targets import _PROMISED as STEPS
from sld_edge.bench.gpu_check.compare import HALF_DB, PICTURE_DB, TIGHT
from sld_edge.bench.gpu_check.run import LEAK
from sld_edge.bench.gpu_check.steps import _DIFFERENT_DB, _ELSEWHERE
from sld_edge.bench.safety.proportions import most_more
from sld_edge.bench.startup.measure import _PROMISED as STARTS
from sld_edge.bench.tinyworld.captions import UNSAFE_SHARE, held_out, sample
from sld_edge.bench.tinyworld.detectors import UNSAFE_AREA, harm_area
from sld_edge.bench.tinyworld.palette import BACKGROUNDS, COLOURS, HARMS, SHAPES, SIZE
from sld_edge.bench.tinyworld.scenes import draw
from sld_edge.calibration.proof import LIMITS
from sld_edge.manifest import GATE_ALPHA, GATE_MOST
from sld_edge.passes.geglu import WIDTHS
from sld_edge.runtime.memory_plan import RESERVE, MemoryMode, MemoryPlan, StageMemory
from sld_edge.runtime.policy import GUIDANCE_SCALES, fewest_steps
from sld_edge.runtime.safety import PRESETS
from sld_edge.runtime.schedulers import build_schedule, scheduler_names
from sld_edge.runtime.steering import COSINES
from tests.passes.test_counts import DECODER, UNET
from tests.test_arrows import GROUND, ORDER
from tests.test_documents import PYPROJECT, blocks
from tests.test_readme import README, ROOT


def page(name: str) -> str:
    """A document on one line, without marks of bold text."""
    return " ".join((ROOT / name).read_text("utf-8").replace("**", "").split())


def table(name: str, after: str) -> list[list[str]]:
    """The cells of the first table behind a text, which may be in its head, without head and marks."""
    text = (ROOT / name).read_text("utf-8").split(after, 1)[1].split("\n|---", 1)[1]
    rows = re.match(r".*\n((?:\|.*\n)+)", text)
    assert rows is not None
    plain = rows[1].replace("**", "").replace("`", "").replace("‖", "").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in plain]


def test_the_limits_of_a_calibration() -> None:
    rows = {row[0]: row[3] for row in table("docs/safety.md", "| figure | worst of 4 pictures")}
    signs = {True: "≥", False: "≤"}
    said = {
        "prediction_error": "prediction error", "direction_cosine": "cosine of the safety directions",
        "correction_kept": "share of the correction", "correction_cosine": "cosine of the corrections",
        "correction_excess": "length of the correction", "picture_psnr": "PSNR of whole pictures",
    }  # fmt: skip
    assert set(said) == set(LIMITS)
    assert len(rows) == len(LIMITS)
    for name, (limit, at_least) in LIMITS.items():
        (cell,) = (cell for title, cell in rows.items() if title.startswith(said[name]))
        sign, number = cell.replace(" dB", "").split()
        assert (sign, float(number)) == (signs[at_least], limit), name
    kept = LIMITS["correction_kept"][0]
    assert f"less than {kept:.0%}".replace("%", " %") in page("README.md")


def test_the_gate_of_a_precision() -> None:
    text = page("docs/safety.md")
    assert f"one-sided, {GATE_ALPHA:.0%}".replace("%", " %") in text
    assert f"at most {GATE_MOST:.0%} more".replace("%", " %") in text
    for turned, said in ((0, "53 pictures show it if none turns"), (1, "109 if one turns unsafe")):
        fewest = next(n for n in range(10, 1000) if most_more(turned, 0, n) <= GATE_MOST)
        assert said in text
        assert said.startswith(f"{fewest} ")


def test_the_least_numbers_of_steps_under_a_policy() -> None:
    seen: set[str] = set()
    for names, _, least in table("docs/safety.md", "| schedulers | right | least under a policy"):
        suffix = re.match(r"(_\w+)(?:, (_\w+))? ?(?:\((.*)\))?$", names)
        listed = [name for name in names.split(", ") if not name.startswith("_")]
        if suffix:
            curves = [curve for curve in suffix.groups()[:2] if curve]
            listed = [name for name in scheduler_names() if name.endswith(tuple(curves))
                      and "kdpm2_ancestral" not in name]  # fmt: skip
            assert listed, names
        for name in listed:
            assert fewest_steps(name) == int(least.split()[0]), name
            seen.add(name)
    assert {"pndm", "lcm", "kdpm2", "ddim", "dpmpp_2m_karras", "euler_beta"} <= seen
    low, high = GUIDANCE_SCALES
    assert f"takes guidance scales from {low:g} to {high:g}" in page("docs/safety.md")


def test_the_numbers_of_the_adaptive_method() -> None:
    low, high = COSINES
    assert f"c₀ = {low:g}, c₁ = {high:g}" in page("docs/guidance.md")


def test_the_presets_that_a_call_takes() -> None:
    cell = README.split("| `safety=` |")[1].split("|")[0]
    assert set(re.findall(r'"(\w+)"', cell)) == {"off", *PRESETS, "adaptive"}


def test_schedulers_that_evaluate_the_network_twice() -> None:
    assert (
        "`heun`, `kdpm2…` and `dpmpp_sde` evaluate the network twice in every step but the last"
        in page("README.md")
    )
    config = {"_class_name": "PNDMScheduler", "num_train_timesteps": 1000, "beta_start": 0.00085,
              "beta_end": 0.012, "beta_schedule": "scaled_linear", "skip_prk_steps": True}  # fmt: skip
    for name in scheduler_names():
        if name.startswith("edm"):
            continue  # for checkpoints of another kind; one evaluation a step
        twice = re.match(r"(heun|kdpm2|dpmpp_sde)(_|$)", name)
        found = build_schedule(name, config, steps=6).evaluations
        assert found == (11 if twice else 7 if name == "pndm" else 6), name


def test_what_is_promised() -> None:
    rows = {row[0]: row[1] for row in table("docs/performance.md", "## What is promised")}
    peers = {"safe-eager": "diffusers Safe in eager fp32", "safe-bf16": "diffusers Safe in bf16",
             "safe-openvino": "OpenVINO on a plain", "optimum-onnx": "Optimum ONNX Runtime",
             "optimum-openvino": "Optimum Intel"}  # fmt: skip
    for name, _, limit, _ in STEPS:
        (cell,) = (cell for title, cell in rows.items() if peers[name] in title)
        assert cell == f"≥ {limit:g}×"
    for name, seconds in STARTS.items():
        assert rows[name] == f"≤ {seconds:g} s"
    source = (ROOT / "sld_edge/bench/latency/numbers.py").read_text("utf-8")
    for name, number, shown in [("time of a call outside the networks", "0.005", "≤ 0.5 %"),
                                ("second start up to the first step", "0.4", "≤ 40 %"),
                                ("peak memory of a fresh process", "1.25", "≤ 1.25×"),
                                ("host time of a step outside the network", "1e-3", "≤ 1 ms")]:  # fmt: skip
        (cell,) = (cell for title, cell in rows.items() if title.startswith(name))
        assert cell == shown
        assert re.search(rf'"{name}.*?\b{number}\b', source, re.DOTALL)


def test_make_bench_runs_the_lines_of_the_page() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    values = dict(re.findall(r"^(\w+) :?= (.*)$", makefile, re.MULTILINE))
    text = (ROOT / "docs" / "performance.md").read_text("utf-8")
    shown = text.split("each line can be run by itself:")[1].split("`compare`, `latency`")[0]
    named = re.findall(r"`(\w+)=…", text.split("## What is promised")[0])
    named += re.findall(r" (\w+)=…", text.split("## What is promised")[0])
    assert {"SD15", "PEERS", "BENCH_STEPS"} <= set(named) <= set(values)

    def plain(line: str) -> list[str]:
        line = re.sub(r"\s--peers-folder \S+", "", line.replace("$(BENCH)/", ""))
        for name, said in (
            ("SD15", "sd15"),
            ("SD15_BUNDLE", "sd15-bundle"),
            ("SD15_INT8", "sd15-int8"),
        ):
            line = line.replace(f"$({name})", said)
        return re.sub(r"\$\((BENCH_\w+)\)", lambda one: values[one[1]], line).split()

    recipe = makefile.split("\nbench:")[1].split("\n\n")[0].replace("\\\n", " ")
    made = [
        plain(one) for one in re.findall(r"\$\(BIN\)/(sld-(?:calibrate|bench (?!make)).*)", recipe)
    ]
    page_lines = shown.replace("\\\n", " ").splitlines()
    assert made == [plain(line) for line in page_lines if line.strip().startswith("sld-")]
    assert len(made) == 6


def test_how_pictures_and_a_card_are_judged() -> None:
    text = page("docs/performance.md")
    assert (
        f"in fp32 must reach {_LEAST_PSNR:g} dB to count, one in bf16 {_LEAST_PSNR_BF16:g} dB"
        in text
    )
    assert f"at most {CARD_WORSE:g} dB below" in text
    assert f"at least {CARD_LEAST:g} dB" in text
    assert TIGHT == 1e-3
    assert "fp32 graphs must be within 10⁻³ of the largest value" in text
    assert f"fp16 graphs within {HALF_DB:g} dB of it" in text
    assert f"an fp32 bundle must be within {PICTURE_DB['fp32']:g} dB" in text
    assert f"may be {_ELSEWHERE:g}√n times as far off" in text
    assert f"never below {_DIFFERENT_DB:g} dB" in text
    assert f"may grow by {LEAK / 1e6:g} MB" in text


def test_the_parts_of_a_run_on_a_card() -> None:
    (minutes,) = (one.default for one in card.params if one.name == "time_text")
    assert minutes == "8m"
    assert "`--time` (8 minutes unless said)" in page("docs/performance.md")
    assert "one command, eight minutes" in page("README.md")
    assert PARTS["model"][1] == 0.5
    assert "`model` may take half of the time" in page("docs/performance.md")
    assert f"Parts, in this order: {', '.join(PARTS)}" in " ".join((card.epilog or "").split())


def test_the_counts_of_the_passes() -> None:
    rows = {row[0]: row[1:] for row in table("docs/passes.md", "## Counts")}
    kinds = {kind for counts in (*UNET.values(), *DECODER.values()) for kind in counts}
    assert set(rows) == kinds
    for kind, cells in rows.items():
        forms = [model[form] for model in (UNET, DECODER) for form in ("before", "fused", "last")]
        assert [int(cell) for cell in cells] == [counts.get(kind, 0) for counts in forms], kind
    assert f"widths other than {', '.join(map(str, WIDTHS))}" in page("docs/passes.md")


def test_what_signing_needs() -> None:
    wanted = re.search(r"pip install '(cryptography>=\d+)'", page("docs/threat-model.md"))
    assert wanted is not None
    assert f'sign = ["{wanted[1]}"]' in PYPROJECT


def test_the_rooms_of_the_house() -> None:
    rows = table("CONTRIBUTING.md", "## The house")
    assert [row[0].removeprefix("sld_edge/") for row in rows[:-1]] == ORDER
    assert {name.strip() for name in rows[-1][0].split(",")} == GROUND - {"__init__"}


def test_most_files_are_short() -> None:
    files = [file.read_text("utf-8").count("\n") for file in (ROOT / "sld_edge").rglob("*.py")]
    assert "nine in ten files of `sld_edge` are below 300 lines" in page("CONTRIBUTING.md")
    assert np.mean(np.array(files) < 300) >= 0.9


def test_the_tiny_worlds_figures() -> None:
    text = page("docs/tinyworld.md")
    least = int(np.ceil(UNSAFE_AREA * SIZE * SIZE))
    assert f"at least {UNSAFE_AREA:.1%} of its pixels ({least};".replace("%", " %") in text
    assert f"bring it in {UNSAFE_SHARE:.0%} of".replace("%", " %") in text
    every = [held_out(a, b, c) for a in SHAPES for b in COLOURS for c in BACKGROUNDS]
    assert f"{sum(every)} of the {len(every)} combinations" in text


def test_the_tiny_worlds_example_gives_what_its_comments_say() -> None:
    (code,) = (text for name, text in blocks("python") if name == "tinyworld.md")
    made: dict[str, Any] = {}
    exec(code, made)
    assert [list(map(bool, row)) for row in made["detect"](made["picture"])] == [
        [False, True, False]
    ]
    assert "# [[False, True, False]]: blood, weapons, arson" in code
    (seen,) = made["read"](made["picture"])
    said = re.search(r"# (Reading\(.*), \.\.\.\)", code)
    assert said is not None
    assert repr(seen).startswith(said[1])
    assert made["ambiguous"](1)[0].prompt == made["ambiguous"](100)[0].prompt


def test_the_tiny_worlds_harm_covers_what_the_page_says() -> None:
    said = re.search(r"own harm covers (\d+) to (\d+) %", page("docs/tinyworld.md"))
    assert said is not None
    rng, areas = np.random.default_rng(3), []
    for _ in range(120):
        scene = sample(rng).scene
        area = harm_area(draw(scene))[0]
        areas += [
            float(share) for harm, share in zip(HARMS, area, strict=True) if harm in scene.harms
        ]
    assert len(areas) > 30
    assert float(said[1]) <= 100 * min(areas)
    assert 100 * max(areas) <= float(said[2])


def test_the_loop_of_the_jetson_page_has_as_many_launches() -> None:
    said = re.search(r"one CUDA graph of (\d+) launches\" \((\w+)\)", page("docs/jetson.md"))
    assert said is not None
    config = {"_class_name": f"{said[2]}Scheduler", "num_train_timesteps": 1000, "skip_prk_steps": True,
              "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}  # fmt: skip
    # every evaluation is one launch of ``unet`` and one of ``advance``
    assert 2 * build_schedule(None, config, steps=50).evaluations == int(said[1])


def test_the_plan_on_the_jetson_page_is_what_the_command_prints() -> None:
    text = (ROOT / "docs" / "jetson.md").read_text("utf-8")
    block = text.split("```\n512x512")[1].split("```")[0]
    numbers = [
        (words[0], [round(float(word.lstrip("~").replace(",", "")) * 1e6) for word in words[1:]])
        for line in block.splitlines()
        if (words := line.split()) and words[0] in ("text", "denoise", "decode", "safety")
    ]
    stages = tuple(
        StageMemory(
            name=name, weights=weights, activations=activations, buffers=buffers, source="estimate"
        )
        for name, (weights, activations, buffers, _) in numbers
    )
    plan = MemoryPlan(height=512, width=512, batch=1, branches=3, steps=50, precision="fp16",
                      memory="normal", library="", stages=stages)  # fmt: skip
    printed = "\n".join(plan.lines())
    # sums of rounded numbers may differ in the last digit
    assert re.sub(r"\d\.\d", "#", printed) == re.sub(r"\d\.\d", "#", f"512x512{block}".rstrip())
    modes: tuple[tuple[MemoryMode, float], ...] = (("normal", 5027.1), ("low", 3343.4))
    for mode, shown in modes:
        assert plan.peak_of(mode) / 1e6 == pytest.approx(shown, abs=0.3)
    assert 6675.9e6 + RESERVE > 8e9  # fp32, one stage at a time: not for an 8 GB board


def test_what_tokenizers_brings() -> None:
    """The README says that ``tokenizers`` brings huggingface-hub, hf-xet and an HTTP client, and how large they are."""

    def named(text: str) -> str:
        return re.split(r"[ ;<>=!~\[(]", text)[0].lower().replace("_", "-")

    def closure(names: set[str]) -> set[str]:
        from packaging.requirements import Requirement

        found: set[str] = set()
        while names:
            name = names.pop()
            found.add(name)
            needed = [Requirement(line) for line in requires(name) or []]
            live = {
                named(one.name)
                for one in needed
                if not one.marker or one.marker.evaluate({"extra": ""})
            }
            names |= live - found
        return found

    base = set(re.findall(r'"([\w-]+)', PYPROJECT.split("\ndependencies = [")[1].split("]")[0]))
    extra = closure({"tokenizers"}) - closure(base - {"tokenizers"}) - {"tokenizers"}
    assert {"huggingface-hub", "hf-xet"} <= extra
    assert any(name.startswith("httpx") for name in extra)
    size = sum(
        Path(str(distribution(name).locate_file(file))).stat().st_size
        for name in extra
        for file in distribution(name).files or []
        if Path(str(distribution(name).locate_file(file))).is_file()
    )
    said = re.search(r"together about (\d+) MB on disk", page("README.md"))
    assert said is not None
    assert size / 1e6 == pytest.approx(float(said[1]), rel=0.25)


def test_every_package_of_an_extra_is_imported_somewhere() -> None:
    """An extra that brings more than is used would be a false promise; these are used by others' code or by name."""
    section = PYPROJECT.split("[project.optional-dependencies]")[1].split("\ndocs = ")[0]
    packages = {
        name for name in re.findall(r'"([a-z][\w-]*)[><=;]', section) if not name.startswith("sld-")
    }
    by_others = {
        "accelerate": "diffusers",
        "onnxscript": "torch.onnx",
        "safetensors": "safetensors",
    }
    imported = {
        "cuda-bindings": "cuda.bindings",
        "onnxruntime-gpu": "onnxruntime",
        "onnxruntime-ep-nv-tensorrt-rtx-cu13": "onnxruntime_ep_nv_tensorrt_rtx",
        "tensorrt-rtx": "tensorrt_rtx",
    }
    code = " ".join(file.read_text("utf-8") for file in (ROOT / "sld_edge").rglob("*.py"))
    for package in packages:
        name = by_others.get(package) or imported.get(package) or package.replace("-", "_")
        assert re.search(rf"\b{re.escape(name)}\b", code), package
