"""The text that other tools read, taken apart again as they do it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sld_edge import SafePipeline
from sld_edge.runtime.infotext import parameters_from_record, sampler_label
from sld_edge.runtime.schedulers import build_schedule, scheduler_names

RECORD: dict[str, Any] = {
    "sld_edge": "1",
    "prompt": "a castle",
    "negative_prompt": "",
    "steps": 20,
    "scheduler": "ddim",
    "scheduler_config": {"eta": 0.25},
    "guidance_scale": 7.5,
    "seed": 5,
    "seed_device": "cpu",
    "seed_offset": 0,
    "width": 512,
    "height": 768,
    "batch_size": 1,
    "image_index": 0,
    "bundle": {"name": "sd, 1.5: mine"},
    "safety": {"preset": "off"},
    "nsfw_detected": None,
}
_FIELD = re.compile(r'\s*([^:,]+):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')


def read(text: str) -> tuple[str, str, dict[str, str]]:
    """Prompt, negative prompt and settings: the last line holds the settings, a marked line begins the negative one."""
    *lines, last = text.split("\n")
    marks = [number for number, line in enumerate(lines) if line.startswith("Negative prompt:")]
    end = marks[-1] if marks else len(lines)
    negative = "\n".join(lines[end:]).removeprefix("Negative prompt:").strip()
    fields = {
        name: json.loads(value) if value.startswith('"') else value.strip()
        for name, value in _FIELD.findall(last)
    }
    return "\n".join(lines[:end]), negative, fields


def fields_of(**changes: Any) -> dict[str, str]:
    return read(parameters_from_record({**RECORD, **changes}))[2]


def test_every_setting_is_found_again() -> None:
    prompt, negative, fields = read(parameters_from_record({**RECORD, "negative_prompt": "a, b"}))
    assert (prompt, negative) == ("a castle", "a, b")
    assert fields["Model"] == "sd, 1.5: mine"
    assert fields["Size"] == "512x768"
    assert fields["Sampler"] == "DDIM"
    assert fields["Eta"] == "0.25"
    assert "Eta" not in fields_of(scheduler="euler", scheduler_config={})


@pytest.mark.parametrize(
    "prompt",
    [
        "a\nb",
        "Steps: 20, Sampler: x, CFG scale: 3",
        '"quoted", and: more',
        "(a:1.2)",
        "日本 🙂",
        "",
        "<lora:x:0.8> a",
        r"a\b \"c\"",
        "[a|b], {c}",
        "Seed: 7, Size: 1x1",
        "a\n\nb\n",
        "a, ",
        "x: y\nSteps: 3",
    ],
)
def test_odd_prompts_stay_whole(prompt: str) -> None:
    got, negative, fields = read(parameters_from_record({**RECORD, "prompt": prompt}))
    assert (got, negative, fields["Seed"]) == (prompt, "", "5")


@given(st.floats(1e-6, 1e3))
def test_the_guidance_scale_keeps_every_digit(scale: float) -> None:
    assert float(fields_of(guidance_scale=scale)["CFG scale"]) == scale
    assert fields_of(guidance_scale=7.0)["CFG scale"] == "7"


def test_pictures_of_one_call_can_be_told_apart() -> None:
    two = [fields_of(batch_size=2, image_index=index) for index in range(2)]
    assert [(one["Batch size"], one["Batch pos"]) for one in two] == [("2", "0"), ("2", "1")]
    assert "Batch size" not in fields_of()


def test_a_seed_that_does_not_make_the_picture_alone_says_so() -> None:
    assert "Seed offset" not in fields_of()
    assert fields_of(seed_offset=256)["Seed offset"] == "256"
    assert "Seed" not in fields_of(seed=None)


@pytest.mark.parametrize("name", scheduler_names())
def test_every_scheduler_has_a_label_of_its_own(name: str) -> None:
    label = sampler_label(name)
    assert label != name
    assert "_" not in label
    assert [one for one in scheduler_names() if sampler_label(one) == label] == [name]
    assert build_schedule(label, {}, steps=10).name == name  # what a PNG says can be asked for


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("dpmpp_2m_sde", "DPM++ 2M SDE"),
        ("dpmpp_2m_sde_karras", "DPM++ 2M SDE Karras"),
        ("dpmpp_2m_karras", "DPM++ 2M Karras"),
        ("euler_ancestral", "Euler a"),
        ("euler_exponential", "Euler Exponential"),
        ("unipc", "UniPC"),
        ("edm_dpmpp_2m", "EDM DPM++ 2M"),
        ("edm_euler", "EDM Euler"),
        ("something_new", "Something New"),
    ],
)
def test_labels_are_those_of_other_tools(name: str, label: str) -> None:
    assert sampler_label(name) == label


@pytest.mark.parametrize(
    ("safety", "scaled"), [("off", False), ("strong", True), ("adaptive", False)]
)
def test_every_method_of_safety_is_told(tiny_bundle: Path, safety: str, scaled: bool) -> None:
    with SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu") as pipe:
        output = pipe("a castle", num_inference_steps=2, safety=safety, seed=1)
    fields = read(output.images[0].info["parameters"])[2]
    assert fields["SLD"] == safety
    assert ("SLD scale" in fields) == scaled
    assert fields.get("SLD method") == ("adaptive" if safety == "adaptive" else None)
