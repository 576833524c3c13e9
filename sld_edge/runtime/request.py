"""A call's arguments, checked once at the door and then plain data without None in it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.errors import InvalidInput
from sld_edge.manifest import Manifest
from sld_edge.runtime.checks import real_number, whole_number
from sld_edge.runtime.noise import Generator, random_seed

OUTPUT_TYPES = ("pil", "np")
_MOST_IMAGES = 1024


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be made: ``B`` images of ``height × width`` pixels, prompts already repeated."""

    prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...]
    height: int
    width: int
    latent_shape: tuple[int, int, int, int]
    guidance_scale: float
    generators: Any
    latents: NDArray[np.float32] | None
    output_type: str
    callback_steps: int

    @property
    def batch(self) -> int:
        """Number of images."""
        return len(self.prompts)


def request_from_call(
    manifest: Manifest,
    *,
    prompt: str | Sequence[str],
    negative_prompt: str | Sequence[str] | None,
    height: int | None,
    width: int | None,
    num_images_per_prompt: int,
    guidance_scale: float,
    generator: Any,
    seed: int | Sequence[int] | None,
    latents: Any,
    output_type: str,
    callback_steps: int,
) -> Request:
    """Check everything that does not depend on the scheduler or the safety settings.

    Raises:
        InvalidInput: naming the argument, its value and what to do.
    """
    prompts = _texts("prompt", prompt)
    negatives = _negatives(negative_prompt, len(prompts))
    repeat = whole_number("num_images_per_prompt", num_images_per_prompt, low=1, high=_MOST_IMAGES)
    batch = len(prompts) * repeat
    if batch > _MOST_IMAGES:
        raise InvalidInput(
            "too many images in one call", value=batch, hint=f"at most {_MOST_IMAGES}"
        )
    first = manifest.shapes[0]
    height = first.height if height is None else whole_number("height", height, low=1)
    width = first.width if width is None else whole_number("width", width, low=1)
    scale = real_number("guidance_scale", guidance_scale, "a number above 0, usually 5 to 15")
    if not 0.0 < scale <= 100.0:
        raise InvalidInput(
            "guidance_scale is out of range", value=scale, hint="use a number above 0 and up to 100"
        )
    if output_type not in OUTPUT_TYPES:
        raise InvalidInput(
            "unknown output_type", value=output_type, hint=f"use {' or '.join(OUTPUT_TYPES)}"
        )
    factor = manifest.model.vae_scale_factor
    shape = (batch, manifest.model.latent_channels, height // factor, width // factor)
    return Request(
        prompts=tuple(text for text in prompts for _ in range(repeat)),
        negative_prompts=tuple(text for text in negatives for _ in range(repeat)),
        height=height,
        width=width,
        latent_shape=shape,
        guidance_scale=scale,
        generators=_generators(generator, seed, batch),
        latents=None if latents is None else _latents(latents, shape),
        output_type=output_type,
        callback_steps=whole_number("callback_steps", callback_steps, low=1),
    )


def _texts(name: str, value: str | Sequence[str]) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise InvalidInput(f"{name} is neither text nor a list of texts", value=value)
    if not texts:
        raise InvalidInput(f"{name} is an empty list", hint="give at least one text")
    return tuple(texts)


def _negatives(value: str | Sequence[str] | None, count: int) -> tuple[str, ...]:
    if value is None:
        return ("",) * count
    if isinstance(value, str):
        return (value,) * count
    texts = _texts("negative_prompt", value)
    if len(texts) != count:
        raise InvalidInput(
            f"negative_prompt has {len(texts)} texts for {count} prompts",
            hint="give one for all, or one for each prompt",
        )
    return texts


def _generators(generator: Any, seed: int | Sequence[int] | None, batch: int) -> Any:
    """One generator for all images, or a list with one for each."""
    if generator is not None and seed is not None:
        raise InvalidInput("seed and generator were given together", hint="use one or the other")
    generator = _unwrapped(generator if seed is None else seed)
    if generator is None:
        generator = random_seed()
    if isinstance(generator, (list, tuple)):
        if len(generator) != batch:
            raise InvalidInput(
                f"{len(generator)} seeds or generators were given for {batch} images",
                hint="give one for all, or one for each image",
            )
        return [_generator(one) for one in generator]
    return _generator(generator)


def _generator(value: Any) -> Any:
    torch = sys.modules.get(
        "torch"
    )  # a generator of torch's can only come from a torch that is loaded
    if isinstance(value, Generator) or (torch and isinstance(value, torch.Generator)):
        return value
    return Generator(_unwrapped(value))


def _unwrapped(seeds: Any) -> Any:
    """Whole numbers out of a NumPy array or a torch tensor, anything else as it is."""
    kind = str(getattr(seeds, "dtype", "")).removeprefix("torch.")
    return seeds.tolist() if kind.startswith(("int", "uint")) and hasattr(seeds, "ndim") else seeds


def _off_torch(values: Any) -> Any:
    """A torch tensor as something NumPy reads: without gradients, on the CPU, half precisions as float32."""
    if not (type(values).__module__.startswith("torch") and hasattr(values, "detach")):
        return values
    values = values.detach().cpu()
    return values.float() if values.is_floating_point() and values.element_size() < 4 else values


def _latents(latents: Any, shape: tuple[int, int, int, int]) -> NDArray[np.float32]:
    array = np.asarray(_off_torch(latents))
    if array.shape != shape:
        raise InvalidInput(
            "latents have the wrong shape", value=list(array.shape), hint=f"use {list(shape)}"
        )
    if array.dtype.kind != "f":
        raise InvalidInput("latents are not floating point", value=str(array.dtype))
    result = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(result).all():
        raise InvalidInput("latents hold values that are not finite")
    return result
