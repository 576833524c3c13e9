"""What callers of diffusers' pipelines do works the same, or is refused in one line that names the alternative."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sld_edge import InvalidInput, PolicyError, SafePipeline
from sld_edge.engines.base import EngineOptions
from sld_edge.errors import MissingDependency
from sld_edge.runtime import request
from sld_edge.runtime.pictures import pictures_from_latents

QUICK: dict[str, Any] = {"num_inference_steps": 3, "seed": 1, "progress": False}


@pytest.fixture
def pipe(tiny_bundle: Path) -> Iterator[SafePipeline]:
    with SafePipeline.from_pretrained(
        tiny_bundle, EngineOptions(provider="cpu", threads=1), lazy=True
    ) as opened:
        yield opened


def test_arguments_that_ask_for_nothing_are_taken(pipe: SafePipeline) -> None:
    pipe.check(
        "a knight",
        prompt_embeds=None,
        negative_prompt_embeds=None,
        clip_skip=0,
        cross_attention_kwargs={},
        guidance_rescale=0.0,
        ip_adapter_image=None,
    )


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ({"clip_skip": 2}, "text encoder has fewer layers"),
        ({"prompt_embeds": [0.0]}, "prompt="),
        ({"negative_prompt_embeds": [0.0]}, "negative_prompt="),
        ({"strength": 0.5}, "latents="),
        ({"cross_attention_kwargs": {"scale": 1.0}}, "export"),
        ({"guidance_rescale": 0.5}, "rescale_betas_zero_snr"),
        ({"num_inference_step": 5}, "did you mean num_inference_steps?"),
        ({"xyz": 5}, "help"),
        ({"tokenizer": 5}, "no argument tokenizer"),
        ({"scheduler_config": {}}, "no argument scheduler_config"),
    ],
    ids=str,
)
def test_what_is_not_there_names_the_alternative(
    argument: dict[str, Any], says: str, pipe: SafePipeline
) -> None:
    for call in (pipe, pipe.check):
        with pytest.raises(InvalidInput) as refusal:
            call("a knight", **argument)
        assert says in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_outputs_of_every_type_are_the_same_picture(pipe: SafePipeline) -> None:
    torch = pytest.importorskip("torch")
    made = {kind: pipe("", output_type=kind, **QUICK) for kind in ("pil", "np", "pt", "latent")}
    array = made["np"].images
    assert (np.round(array[0] * 255) == np.asarray(made["pil"].images[0])).all()
    assert isinstance(made["pt"].images, torch.Tensor)
    assert (made["pt"].images.permute(0, 2, 3, 1).numpy() == array).all()
    latents = made["latent"].images
    assert latents.dtype == np.float32
    assert latents.shape == (1, 4, 8, 8)
    assert len({str(one.nsfw_content_detected) for one in made.values()}) == 1


@pytest.mark.parametrize("unsafe_images", ["return", "withhold"])
def test_latents_are_judged_too_and_flagged_ones_withheld(
    unsafe_images: str,
    tiny_bundle: Path,
    with_policy: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def flagged(*arguments: Any) -> Any:
        pixels, _ = pictures_from_latents(*arguments)
        return pixels, [True] * len(pixels)

    monkeypatch.setattr("sld_edge.runtime.pipeline.pictures_from_latents", flagged)
    bundle = with_policy(tiny_bundle, unsafe_images=unsafe_images)
    with SafePipeline.from_pretrained(bundle, "onnxruntime:cpu") as pipe:
        output = pipe("a knight", output_type="latent", **QUICK)
    assert output.nsfw_content_detected == [True]
    assert not output.images.any()
    if unsafe_images == "withhold":
        assert output.unsafe_images is None
    else:
        assert output.unsafe_images is not None
        assert output.unsafe_images[0].any()


def test_tensors_without_torch_are_refused_before_any_work(
    pipe: SafePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="torch"):
        pipe.check("a knight", output_type="pt")


def test_a_step_callback_sees_every_evaluation(pipe: SafePipeline) -> None:
    seen: list[tuple[int, float]] = []

    def look(one: Any, step: int, timestep: float, given: dict[str, Any]) -> dict[str, Any]:
        assert one is pipe
        assert given["latents"].shape == (1, 4, 8, 8)
        seen.append((step, timestep))
        return given

    plain = pipe("a knight", output_type="np", scheduler="heun", **QUICK).images
    watched = pipe(
        "a knight", output_type="np", scheduler="heun", callback_on_step_end=look, **QUICK
    ).images
    assert (plain == watched).all()
    assert [step for step, _ in seen] == [0, 1, 2, 3, 4]
    assert [timestep for _, timestep in seen] == sorted((one for _, one in seen), reverse=True)


def test_a_step_callback_cannot_change_latents_unnoticed(pipe: SafePipeline) -> None:
    def replace(_: Any, __: int, ___: float, given: dict[str, Any]) -> dict[str, Any]:
        return {"latents": given["latents"] * 0}

    def spoil(_: Any, __: int, ___: float, given: dict[str, Any]) -> None:
        given["latents"][:] = 0

    for callback in (replace, spoil):
        with pytest.raises(InvalidInput, match="cannot change the latents"):
            pipe("a knight", callback_on_step_end=callback, **QUICK)


def test_the_pipelines_concept_is_what_calls_suppress(pipe: SafePipeline) -> None:
    assert pipe.safety_concept == pipe.bundle.manifest.safety.concept
    pipe.safety_concept = "blood"
    assert pipe("a knight", **QUICK).applied_safety_concept == "blood"
    assert pipe("a knight", safety_concept="weapons", **QUICK).applied_safety_concept == "weapons"
    assert pipe("a knight", safety="off", **QUICK).applied_safety_concept is None
    for wrong in (None, "", 5, "blood " * 200, ["blood", "blood"]):
        with pytest.raises(InvalidInput):
            pipe.safety_concept = wrong  # type: ignore[assignment]
    assert pipe.safety_concept == "blood"


def test_a_policy_that_fixes_the_concept_fixes_the_pipelines(
    tiny_bundle: Path, with_policy: Callable[..., Path]
) -> None:
    bundle = with_policy(tiny_bundle, minimum="medium", concept="required")
    pipe = SafePipeline.from_pretrained(bundle, "onnxruntime:cpu", lazy=True)
    with pytest.raises(PolicyError, match="concept"):
        pipe.safety_concept = "flowers"
    assert pipe.safety_concept == pipe.bundle.manifest.safety.concept


def test_the_pipelines_scheduler_is_what_calls_use(pipe: SafePipeline) -> None:
    diffusers = pytest.importorskip("diffusers")
    assert pipe.scheduler.name == "pndm"
    pipe.scheduler = "dpmpp_2m_karras"
    assert pipe("a knight", **QUICK).record["scheduler"] == "dpmpp_2m_karras"
    named = pipe("a knight", scheduler="euler", output_type="np", **QUICK)
    assert named.record["scheduler"] == "euler_karras"
    own = diffusers.HeunDiscreteScheduler.from_config(pipe.scheduler.config, beta_end=0.02)
    pipe.scheduler = own
    record = pipe("a knight", **QUICK).record
    assert record["scheduler"] == "heun_karras"
    assert record["scheduler_config"]["beta_end"] == 0.02
    for wrong in ("heun9000", None, 5, diffusers.SASolverScheduler(), object()):
        with pytest.raises(InvalidInput):
            pipe.scheduler = wrong
    assert pipe.scheduler.name == "heun_karras"


@pytest.mark.parametrize(
    "part", ["safety_checker", "requires_safety_checker", "unet", "vae", "text_encoder"]
)
def test_a_part_cannot_be_replaced_unnoticed(part: str, pipe: SafePipeline) -> None:
    with pytest.raises(InvalidInput, match="cannot be replaced"):
        setattr(pipe, part, None)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("guidance_scale", "pipe(…, guidance_scale=…)"),
        ("safety", "pipe(…, safety=…)"),
        ("memory", "safety_concept and scheduler can be set"),
        ("bundle", "safety_concept and scheduler can be set"),
        ("_safety_text_concept", "set safety_concept"),
    ],
)
def test_setting_what_is_not_there_is_not_ignored(name: str, says: str, pipe: SafePipeline) -> None:
    with pytest.raises(InvalidInput) as refusal:
        setattr(pipe, name, "off")
    assert says in str(refusal.value)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ({"torch_dtype": "float16"}, "compute_precision="),
        ({"safety_checker": None}, "sld-export --without-safety-head"),
        ({"scheduler": "ddim"}, "pipe.scheduler ="),
        ({"local_files_only": False}, "name a folder"),
        ({"device_map": "cuda"}, "engine="),
        ({"compute_precison": "bf16"}, "did you mean compute_precision?"),
        ({"engine": "cuda"}, "use auto, tensorrt, tensorrt-rtx, openvino, onnxruntime"),
        ({"engine": ""}, "leave it out"),
        ({"engine": "onnxruntime:gpu"}, "use auto, tensorrt-rtx"),
        ({"engine": "openvino:cuda"}, "use auto, cpu"),
        ({"observer": None}, "leave it out"),
        ({"engine": EngineOptions(threads=1), "threads": 2}, "EngineOptions(threads=…)"),
        ({"engine": EngineOptions(), "compute_precision": "bf16"}, "EngineOptions(compute_prec"),
        ({"key": 5}, "Ed25519"),
    ],
    ids=str,
)
def test_wrong_arguments_of_opening_are_found_before_anything_is_loaded(
    argument: dict[str, Any], says: str, tiny_bundle: Path
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        SafePipeline.from_pretrained(tiny_bundle, lazy=True, **argument)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_arguments_of_opening_that_ask_for_nothing_are_taken(tiny_bundle: Path) -> None:
    SafePipeline.from_pretrained(
        tiny_bundle,
        EngineOptions(threads=1),
        threads=1,
        lazy=True,
        local_files_only=True,
        use_safetensors=True,
        torch_dtype=None,
        variant=None,
    )


def test_tensors_of_a_step_callback_are_judged_without_one_too(pipe: SafePipeline) -> None:
    with pytest.raises(InvalidInput, match="more than latents"):
        pipe("a knight", callback_on_step_end_tensor_inputs=["prompt_embeds"], **QUICK)


def test_a_setting_of_another_progress_bar_is_refused(pipe: SafePipeline) -> None:
    pipe.set_progress_bar_config(disable=True)
    with pytest.raises(InvalidInput, match="takes disable="):
        pipe.set_progress_bar_config(leave=False)


@pytest.mark.parametrize(
    ("method", "says"),
    [("to", "engine="), ("enable_attention_slicing", "memory="), ("load_lora_weights", "export")],
)
def test_a_method_that_is_not_there_names_the_alternative(
    method: str, says: str, pipe: SafePipeline
) -> None:
    assert not hasattr(pipe, method)
    with pytest.raises(AttributeError, match=says):
        getattr(pipe, method)
