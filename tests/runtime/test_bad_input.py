"""Everything a call can get wrong: one clear line, nothing written, and never an unprotected image."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from sld_edge import PolicyError, SafePipeline, SldError
from sld_edge.bundle import Bundle
from sld_edge.errors import EngineError, InvalidInput
from sld_edge.runtime.cli import main
from sld_edge.runtime.generate import _stem

PROMPT = "a portrait of a knight"


@pytest.fixture(scope="module")
def pipe(tiny_bundle: Path) -> Iterator[SafePipeline]:
    with SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu") as opened:
        yield opened


BAD_CALLS: list[dict[str, Any]] = [
    {"prompt": []},
    {"prompt": None},
    {"prompt": 7},
    {"prompt": b"bytes"},
    {"prompt": "word " * 10_000},
    {"prompt": "\udcff\udcfe"},
    {"negative_prompt": ["a", "b"]},
    {"negative_prompt": 3},
    {"negative_prompt": "\ud800"},
    {"num_inference_steps": 0},
    {"num_inference_steps": -3},
    {"num_inference_steps": 10**6},
    {"num_inference_steps": 2.5},
    {"num_inference_steps": "20"},
    {"num_inference_steps": True},
    {"guidance_scale": -1.0},
    {"guidance_scale": 0.0},
    {"guidance_scale": math.nan},
    {"guidance_scale": math.inf},
    {"guidance_scale": "7"},
    {"height": 72},
    {"width": 63},
    {"height": 0},
    {"height": -64},
    {"width": 64.0},
    {"num_images_per_prompt": 0},
    {"num_images_per_prompt": 10**9},
    {"eta": math.nan, "scheduler": "ddim"},
    {"eta": 2.0, "scheduler": "ddim"},
    {"seed": -(2**70)},
    {"seed": 1.5},
    {"seed": "7"},
    {"seed": [1, 2, 3]},
    {"seed": 1, "generator": 1},
    {"latents": np.zeros((1, 4, 3, 3), np.float32)},
    {"latents": np.full((1, 4, 8, 8), np.nan, np.float32)},
    {"latents": np.zeros((1, 4, 8, 8), np.int64)},
    {"output_type": "jpeg"},
    {"output_type": None},
    {"guidance_scale": 1001.0},
    {"clip_skip": 1},
    {"prompt_embeds": np.zeros((1, 77, 32), np.float32)},
    {"negative_prompt_embeds": np.zeros((1, 77, 32), np.float32)},
    {"cross_attention_kwargs": {"scale": 0.5}},
    {"guidance_rescale": 0.7},
    {"image": np.zeros((64, 64, 3), np.uint8)},
    {"ip_adapter_image": 1},
    {"negativ_prompt": "blurry"},
    {"callback_on_step_end": 5},
    {"callback_on_step_end": print, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]},
    {"callback_on_step_end": print, "callback": print},
    {"callback_steps": 0},
    {"scheduler": "heun9000"},
    {"scheduler": ""},
    {"scheduler": 5},
    {"timesteps": [1, 2, 3]},
    {"timesteps": [900, 500, 5000]},
    {"safety": "of"},
    {"safety": None, "sld_guidance_scale": -1.0},
    {"sld_guidance_scale": 0.0},
    {"sld_threshold": math.nan},
    {"sld_momentum_scale": 1.5},
    {"sld_mom_beta": -0.1},
    {"sld_warmup_steps": 10**6},
    {"sld_warmup_steps": -1},
    {"safety": "off", "sld_threshold": 0.01},
    {"safety_concept": ""},
    {"safety_concept": "\x00"},
    {"safety_concept": "violence " * 500},
    {"safety_concept": ["violence", "violence"]},
    {"safety_concept": 5},
]


@pytest.mark.parametrize("call", BAD_CALLS, ids=lambda call: str(call)[:60])
def test_a_bad_call_is_one_clear_line(pipe: SafePipeline, call: dict[str, Any]) -> None:
    with pytest.raises(SldError) as caught:
        pipe(**{"prompt": PROMPT, "num_inference_steps": 12, **call})
    text = str(caught.value)
    assert "\n" not in text
    assert 10 < len(text) < 500
    assert text.encode("utf-8")


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
@pytest.mark.parametrize("preset", ["weak", "medium", "strong", "max"])
def test_with_few_steps_a_preset_still_acts(pipe: SafePipeline, preset: str, steps: int) -> None:
    call: dict[str, Any] = {"num_inference_steps": steps, "seed": 1, "output_type": "np"}
    out = pipe(PROMPT, safety=preset, scheduler="ddim", **call)
    assert out.record["safety"]["steered_share"] > 0.5
    off = pipe(PROMPT, safety="off", scheduler="ddim", **call)
    if preset != "weak":  # weak's term is small, one step of it may stay below one level of a pixel
        assert not np.array_equal(out.images, off.images)


def test_latents_that_go_wrong_give_no_image(
    pipe: SafePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = np.full((1, 4, 8, 8), 3e38, np.float32)
    with pytest.raises(EngineError, match="not finite"):
        pipe(PROMPT, num_inference_steps=12, latents=huge)


def test_a_failing_callback_does_not_spoil_the_next_run(pipe: SafePipeline) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("mine")

    call: dict[str, Any] = {"num_inference_steps": 12, "seed": 1, "output_type": "np"}
    before = pipe(PROMPT, **call).images
    with pytest.raises(RuntimeError, match="mine"):
        pipe(PROMPT, callback=fail, **call)
    np.testing.assert_array_equal(pipe(PROMPT, **call).images, before)


def test_a_callback_cannot_change_the_latents(pipe: SafePipeline) -> None:
    def vandal(step: int, timestep: float, latents: Any) -> None:
        latents[...] = 0

    call: dict[str, Any] = {"num_inference_steps": 12, "seed": 1, "output_type": "np"}
    np.testing.assert_array_equal(
        pipe(PROMPT, callback=vandal, **call).images, pipe(PROMPT, **call).images
    )


def shell(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    "extra",
    [
        ["--steps", "0"],
        ["--steps", "abc"],
        ["--steps", "1000000"],
        ["--safety", "mild"],
        ["--scheduler", "nope"],
        ["--guidance-scale", "nan"],
        ["--sld-threshold", "-1"],
        ["--height", "72"],
        ["--seed", "1", "--seed", "2", "--seed", "3"],
        ["--engine", "abacus"],
        ["--engine", "onnxruntime:abacus"],
        ["--threads", "-1"],
        ["--digest", "00"],
        ["--safety", "off", "--compare"],
        ["--prompts-file", "/no/such/file"],
        ["--nonsense"],
    ],
    ids=" ".join,
)
def test_the_command_fails_with_one_line_and_a_status(
    tiny_bundle: Path, tmp_path: Path, extra: list[str]
) -> None:
    out = tmp_path / "out"
    done = shell(tiny_bundle, PROMPT, "--out", out, *extra)
    assert done.exit_code not in (0, 1)
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert not out.exists() or list(out.iterdir()) == []


def test_a_prompt_file_that_is_not_utf8_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes(b"a castle\n\xff\xfe\n")
    done = shell(tiny_bundle, "--prompts-file", file, "--out", tmp_path / "out")
    assert done.exit_code == InvalidInput.exit_code
    assert "UTF-8" in done.stderr


def test_bytes_that_are_no_utf8_on_the_command_line_are_refused(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from sld_edge.runtime.cli import main; main()",
            tiny_bundle,
            b"caf\xe9",
            "--out",
            tmp_path / "out",
        ],
        capture_output=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == InvalidInput.exit_code
    assert len(done.stderr.strip().splitlines()) == 1
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_found_before_any_work(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    done = shell(tiny_bundle, PROMPT, "--out", tmp_path / "out")
    assert done.exit_code == 9


def test_an_out_that_is_a_file_is_found_before_any_work(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    done = shell(tiny_bundle, PROMPT, "--out", tmp_path / "out")
    assert done.exit_code == 9
    assert (tmp_path / "out").read_text() == "mine"


def test_a_checkpoint_instead_of_a_bundle_says_what_to_run(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    done = shell(tiny_checkpoint, PROMPT, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "sld-export" in done.stderr


def test_ctrl_c_stops_with_one_line_and_no_picture(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from sld_edge.runtime.cli import main; main()",
            str(tiny_bundle),
            PROMPT,
            "--steps",
            "900",
            "--out",
            str(out),
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "loaded in" in line:
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert list(out.iterdir()) == []


def test_a_policy_that_forbids_it_makes_nothing(
    tiny_bundle: Path, tmp_path: Path, with_policy: Any
) -> None:
    strict = with_policy(tiny_bundle, minimum="strong", concept="required")
    for extra in (
        ["--safety", "off"],
        ["--safety", "medium"],
        ["--concept", "flowers"],
        ["--concept", Bundle.open(strict).manifest.safety.concept, "--concept", PROMPT],
        ["--compare"],
    ):
        done = shell(strict, PROMPT, "--out", tmp_path / "out", "--steps", "12", *extra)
        assert done.exit_code == PolicyError.exit_code, extra
        assert len(done.stderr.strip().splitlines()) == 1
        assert list((tmp_path / "out").iterdir()) == []


def test_json_has_one_record_a_picture(tiny_bundle: Path, tmp_path: Path) -> None:
    done = shell(
        tiny_bundle, PROMPT, "a dog", "--steps", 12, "--seed", 3, "--out", tmp_path, "--json"
    )
    assert done.exit_code == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["prompt"] for record in records] == [PROMPT, "a dog"]
    assert all(Path(record["file"]).is_file() for record in records)
    assert records[0]["safety"]["preset"] == "medium"


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a castle, by a lake", "a-castle-by-a-lake"),
        ("城と湖", "城と湖"),
        ("замок у озера", "замок-у-озера"),
        ("झील के पास महल", "झील-के-पास-महल"),
        ("Schloß im Süden", "Schloß-im-Süden"),
        ("🏰🌊", "picture"),
        ("../../etc/passwd", "etc-passwd"),
        ("... -- ...", "picture"),
    ],
)
def test_a_picture_is_named_after_its_prompt_in_any_script(prompt: str, name: str) -> None:
    assert _stem({"prompt": prompt}) == name


@pytest.mark.parametrize("letter", ["a", "é", "城", "𒀀"])
def test_a_name_fits_any_file_system(letter: str) -> None:
    assert 0 < len(_stem({"prompt": letter * 5000}).encode()) <= 180
