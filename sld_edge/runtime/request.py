"""A call's arguments, checked once at the door and then plain data without None in it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.errors import InvalidInput, MissingDependency
from sld_edge.manifest import Manifest
from sld_edge.plain import LONGEST_LIST, is_listed, is_text, plain_list, plain_text
from sld_edge.runtime.arguments import CallArguments
from sld_edge.runtime.checks import float_array, real_number, texts, whole_number
from sld_edge.runtime.noise import Generator, random_seed

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
#: Far above any sense; prompts of I2P come with up to 255.
MOST_GUIDANCE = 1000.0
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


def request_from_call(manifest: Manifest, given: CallArguments) -> Request:
    """Check everything that does not depend on the scheduler or the safety settings.

    Raises:
        InvalidInput: naming the argument, its value and what to do.
    """
    prompts = texts("prompt", given.prompt)
    negatives = _negatives(given.negative_prompt, len(prompts))
    repeat = whole_number(
        "num_images_per_prompt", given.num_images_per_prompt, low=1, high=_MOST_IMAGES
    )
    batch = len(prompts) * repeat
    if batch > _MOST_IMAGES:
        raise InvalidInput(
            "too many images in one call", value=batch, hint=f"at most {_MOST_IMAGES}"
        )
    first = manifest.shapes[0]
    height = first.height if given.height is None else whole_number("height", given.height, low=1)
    width = first.width if given.width is None else whole_number("width", given.width, low=1)
    scale = real_number(
        "guidance_scale", given.guidance_scale, "a number from 1 on, usually 5 to 15"
    )
    # Below 1 a picture goes towards the unconditional row, which a negative prompt sets: that means nothing.
    if not 1.0 <= scale <= MOST_GUIDANCE:
        raise InvalidInput(
            "guidance_scale is out of range",
            value=scale,
            hint=f"use 1 to {MOST_GUIDANCE:g}",
        )
    output_type = plain_text("output_type", given.output_type, f"use {' or '.join(OUTPUT_TYPES)}")
    if output_type not in OUTPUT_TYPES:
        raise InvalidInput(
            "unknown output_type", value=output_type, hint=f"use {', '.join(OUTPUT_TYPES)}"
        )
    if output_type == "pt" and find_spec("torch") is None:
        raise MissingDependency(
            'output_type "pt" needs torch, which is not installed', hint='use "np"'
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
        generators=_generators(given.generator, given.seed, batch),
        latents=None if given.latents is None else _latents(given.latents, shape),
        output_type=output_type,
        callback_steps=whole_number("callback_steps", given.callback_steps, low=1),
    )


def _negatives(value: str | Sequence[str] | None, count: int) -> tuple[str, ...]:
    if value is None:
        return ("",) * count
    negatives = texts("negative_prompt", value)
    if is_text(value):
        return negatives * count
    if len(negatives) != count:
        raise InvalidInput(
            f"negative_prompt has {len(negatives)} texts for {count} prompts",
            hint="give one for all, or one for each prompt",
        )
    return negatives


def _generators(generator: Any, seed: int | Sequence[int] | None, batch: int) -> Any:
    """One generator for all images, or a list with one for each."""
    if generator is not None and seed is not None:
        raise InvalidInput("seed and generator were given together", hint="use one or the other")
    generator = _unwrapped(generator if seed is None else seed)
    if generator is None:
        generator = random_seed()
    if is_listed(generator):
        given = plain_list("generator", generator)
        if len(given) != batch:
            raise InvalidInput(
                f"{len(given)} seeds or generators were given for {batch} images",
                hint="give one for all, or one for each image",
            )
        return [_generator(one) for one in given]
    return _generator(generator)


def _generator(value: Any) -> Any:
    torch = sys.modules.get("torch")
    if type(value) is Generator or (torch is not None and type(value) is torch.Generator):
        return value
    if issubclass(type(value), Generator):
        raise InvalidInput(
            "a generator is of a class derived from sld_edge.Generator", hint="give a Generator"
        )
    return Generator(_unwrapped(value))


def _unwrapped(seeds: Any) -> Any:
    """Whole numbers out of a NumPy array or a torch tensor, anything else as it is."""
    if issubclass(type(seeds), np.ndarray):
        fits = seeds.dtype.kind in "iu" and seeds.size <= LONGEST_LIST
        return np.ndarray.tolist(seeds) if fits else seeds
    if _is_tensor(seeds) and str(seeds.dtype).removeprefix("torch.").startswith(("int", "uint")):
        return seeds.tolist()
    return seeds


def _is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of a torch that is loaded, or of a class derived from one."""
    torch = sys.modules.get("torch")
    return torch is not None and issubclass(type(value), torch.Tensor)


def _off_torch(values: Any) -> Any:
    """A torch tensor as something NumPy reads: without gradients, on the CPU, half precisions as float32."""
    if not _is_tensor(values):
        return values
    values = values.detach().cpu()
    return values.float() if values.is_floating_point() and values.element_size() < 4 else values


def _latents(latents: Any, shape: tuple[int, int, int, int]) -> NDArray[np.float32]:
    array = float_array("latents", _off_torch(latents), f"use float32 {list(shape)}")
    if array.shape != shape:
        raise InvalidInput(
            "latents have the wrong shape", value=list(array.shape), hint=f"use {list(shape)}"
        )
    with np.errstate(over="ignore"):  # what is beyond float32 is refused below
        result = np.array(array, dtype=np.float32, order="C")  # a copy: the caller may write on
    if not np.isfinite(result).all():
        raise InvalidInput("latents hold values that are not finite")
    return result
