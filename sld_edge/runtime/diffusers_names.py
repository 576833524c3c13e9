"""What callers of diffusers' pipelines name and ours has not or has otherwise: each is one line with the way out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

import numpy as np

from sld_edge.errors import InvalidInput
from sld_edge.plain import plain_list, plain_text
from sld_edge.runtime.memories.space import Floats

_FROM_TEXT = "pictures are made from text only; start from given noise with latents="
_EXPORT = "change the checkpoint with diffusers, save_pretrained it, and export that"

#: Arguments of diffusers' calls → values that ask for nothing, and what to do instead of the others.
_ARGUMENTS: Final[Mapping[str, tuple[tuple[object, ...], str]]] = {
    "prompt_embeds": (
        (None,),
        "the text graph takes tokens, not embeddings: give the text as prompt=",
    ),
    "negative_prompt_embeds": (
        (None,),
        "the text graph takes tokens, not embeddings: give the text as negative_prompt=",
    ),
    "clip_skip": (
        (None, 0),
        "the bundle has the text encoder's last layer only; export a checkpoint whose text encoder has fewer layers",
    ),
    "ip_adapter_image": ((None,), _FROM_TEXT),
    "ip_adapter_image_embeds": ((None,), _FROM_TEXT),
    "image": ((None,), _FROM_TEXT),
    "mask_image": ((None,), _FROM_TEXT),
    "strength": ((None,), _FROM_TEXT),
    "cross_attention_kwargs": ((None, {}), _EXPORT),
    "guidance_rescale": (
        (None, 0.0),
        "lower guidance_scale, or use a scheduler with rescale_betas_zero_snr and trailing spacing",
    ),
}

#: Arguments of diffusers' ``from_pretrained`` → as above.
_OPENING: Final[Mapping[str, tuple[tuple[object, ...], str]]] = {
    **dict.fromkeys(
        ("torch_dtype", "dtype"), ((None,), "what arithmetic may use is compute_precision=")
    ),
    **dict.fromkeys(
        ("device_map", "provider", "device"), ((None,), "name the engine with engine=")
    ),
    **dict.fromkeys(
        ("safety_checker", "requires_safety_checker", "feature_extractor"),
        (
            (),
            "what a bundle checks is fixed when it is exported (sld-export --without-safety-head)",
        ),
    ),
    **dict.fromkeys(("unet", "vae", "text_encoder", "tokenizer"), ((), _EXPORT)),
    "scheduler": (
        (),
        'set it afterwards, pipe.scheduler = "dpmpp_2m_karras", or name it in a call',
    ),
    "local_files_only": ((True,), "nothing is ever downloaded here: name a folder"),
    **dict.fromkeys(
        ("revision", "token", "cache_dir", "proxies", "mirror"),
        ((None,), "nothing is ever downloaded here: name a folder"),
    ),
    **dict.fromkeys(
        ("force_download", "resume_download"), ((False, None), "nothing is ever downloaded here")
    ),
    "use_safetensors": ((True, None), "a bundle's weights are none of diffusers' files"),
    "variant": ((None,), "a bundle has one precision, which sld-export --precision chose"),
    "low_cpu_mem_usage": ((True, False, None), 'use memory="low"'),
}

#: Parts of diffusers' pipelines that callers replace.
_PARTS: Final = {
    "safety_checker": "what a bundle checks is fixed when it is exported (sld-export --without-safety-head)",
    "feature_extractor": "what a bundle checks is fixed when it is exported",
    "requires_safety_checker": "what a bundle checks is fixed when it is exported",
    **dict.fromkeys(("unet", "vae", "text_encoder", "tokenizer"), _EXPORT),
}
_ENGINE = "the engine is chosen when a bundle is opened: from_pretrained(bundle, engine=…)"
_MEMORY = 'use from_pretrained(bundle, memory="low")'
#: Methods of diffusers' pipelines that callers use.
_METHODS: Final = {
    **dict.fromkeys(("to", "cuda", "cpu", "half", "float"), _ENGINE),
    **dict.fromkeys(
        (
            "enable_attention_slicing",
            "enable_model_cpu_offload",
            "enable_sequential_cpu_offload",
            "enable_vae_slicing",
            "enable_vae_tiling",
            "enable_xformers_memory_efficient_attention",
        ),
        _MEMORY,
    ),
    **dict.fromkeys(
        ("load_lora_weights", "load_textual_inversion", "load_ip_adapter", "fuse_lora"), _EXPORT
    ),
    **dict.fromkeys(("device", "dtype"), "print(pipe) says what runs each network"),
    "components": _EXPORT,
    "save_pretrained": "a bundle is a folder: copy it",
    "encode_prompt": "the text graph takes tokens and gives keys and values, there are no embeddings to hand out",
}


def check_foreign(arguments: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse arguments that the call does not have, but for values that ask for nothing.

    Args:
        arguments: What was given beside the call's own.
        known: The call's own.

    Raises:
        InvalidInput: naming the first of them, and the alternative.
    """
    _check("the call", arguments, known, _ARGUMENTS, "see help(SafePipeline.__call__)")


def check_opening(arguments: Mapping[str, Any], known: Collection[str]) -> None:
    """As :func:`check_foreign`, for what ``from_pretrained`` was given beside its own arguments."""
    _check("from_pretrained", arguments, known, _OPENING, "see help(SafePipeline.from_pretrained)")


def _check(
    what: str,
    arguments: Mapping[str, Any],
    known: Collection[str],
    foreign: Mapping[str, tuple[tuple[object, ...], str]],
    otherwise: str,
) -> None:
    for name, value in sorted(arguments.items()):
        if name not in foreign:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else otherwise
            raise InvalidInput(f"{what} has no argument {name}", value=value, hint=hint)
        neutral, hint = foreign[name]
        if not any(value is one or (type(value) is type(one) and value == one) for one in neutral):
            raise InvalidInput(f"{name} is not supported", value=value, hint=hint)


def check_part(name: str, arguments: Collection[str]) -> None:
    """Refuse to set an attribute that a pipeline does not have.

    Args:
        name: The attribute; private ones may be set.
        arguments: Names of a call's arguments, for the hint.

    Raises:
        InvalidInput: it is a part of diffusers' pipelines, or nothing that is there.
    """
    if name in _PARTS:
        raise InvalidInput(f"{name} of a bundle cannot be replaced", hint=_PARTS[name])
    hint = "safety_concept and scheduler can be set"
    if name in arguments:
        hint = f"give it to each call: pipe(…, {name}=…)"
    elif name == "_safety_text_concept":
        hint = "set safety_concept"
    elif name.startswith("_"):
        return
    raise InvalidInput(f"a pipeline has no attribute {name} to set", hint=hint)


def missing_attribute(name: str) -> AttributeError:
    """The error for an attribute that is not there, with the alternative where diffusers has it."""
    hint = _METHODS.get(name) or _PARTS.get(name)
    return AttributeError(f"SafePipeline has no {name}{f' — {hint}' if hint else ''}", name=name)


@dataclass(frozen=True, kw_only=True)
class SchedulerInUse:
    """What ``pipe.scheduler`` is: ``config`` goes into ``from_config`` of diffusers' scheduler classes."""

    name: str
    config: dict[str, Any]


def config_of_scheduler(value: Any) -> dict[str, Any]:
    """The configuration of a diffusers scheduler, or of what ``pipe.scheduler`` gave.

    Raises:
        InvalidInput: it is neither.
    """
    config = getattr(value, "config", None)
    if not isinstance(config, Mapping):
        raise InvalidInput(
            "a scheduler is neither a name nor a diffusers scheduler",
            value=value,
            hint='pipe.scheduler = "dpmpp_2m_karras"',
        )
    own = {} if isinstance(value, SchedulerInUse) else {"_class_name": type(value).__name__}
    return {**config, **own}


def step_tensors(asked: Any) -> tuple[str, ...]:
    """``callback_on_step_end_tensor_inputs``: latents are all there is.

    Raises:
        InvalidInput: something else is asked for.
    """
    if asked is None:
        return ("latents",)
    name, hint = "callback_on_step_end_tensor_inputs", 'use ["latents"] or []'
    names = tuple(plain_text(name, one, hint) for one in plain_list(name, asked, hint))
    if not set(names) <= {"latents"}:
        raise InvalidInput(f"{name} asks for more than latents", value=asked, hint=hint)
    return names


def step_callback(
    pipeline: Any, function: Any, names: Collection[str]
) -> Callable[[int, float, Floats], None]:
    """diffusers' ``callback_on_step_end`` as a plain callback.

    Args:
        pipeline: Its first argument.
        function: Called as ``function(pipeline, step, timestep, {"latents": array})`` after every evaluation.
        names: What is in the dictionary, as :func:`step_tensors` gave it.

    Raises:
        InvalidInput: it cannot be called; later, when it changes the latents.
    """
    if not callable(function):
        raise InvalidInput("callback_on_step_end cannot be called", value=function)

    def callback(step: int, timestep: float, latents: Floats) -> None:
        before = latents.copy()
        given = dict.fromkeys(names, latents)
        returned = function(pipeline, step, timestep, given)
        kept = returned if isinstance(returned, Mapping) else {}
        for array in (latents, kept.get("latents", latents)):
            if not np.array_equal(np.asarray(array), before):
                raise InvalidInput(
                    "callback_on_step_end cannot change the latents",
                    hint="give other starting noise with latents=",
                )

    return callback
