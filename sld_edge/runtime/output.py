"""What a call returns: images, verdicts, and the record of what was done."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sld_edge import __version__
from sld_edge.bundle import Bundle
from sld_edge.manifest import RAW_MEAN, GraphKind
from sld_edge.runtime.call import Call
from sld_edge.runtime.memories.space import Floats
from sld_edge.runtime.notes import CallNote
from sld_edge.runtime.origin import Origin, origins_of
from sld_edge.runtime.png import recorded
from sld_edge.runtime.request import Request

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class SafeOutput:
    """Result of one call, with diffusers' names.

    Args:
        images: PIL images; for ``output_type="np"`` one float32 array ``[B, H, W, 3]`` in 0…1, for ``"pt"`` a torch
            tensor ``[B, 3, H, W]`` of the same, for ``"latent"`` the float32 latents ``[B, C, h, w]``. An image that
            the safety head flagged is black here, and its latents are zeros.
        nsfw_content_detected: One verdict for each image; None when the bundle has no safety head.
        unsafe_images: For each image the flagged picture itself, or None where nothing was flagged. The whole
            is None when there is no safety head, or when the bundle's policy withholds flagged pictures.
        applied_safety_concept: The concept that was suppressed, a list when there were several, None with
            safety off.
        record: Everything needed to tell what was done and to do it again; ``record["images"]`` has an
            entry for each image.
        notes: What the caller should know about the call, as data; ``record["notes"]`` has them in words.

    >>> from sld_edge import SafePipeline
    >>> pipe = SafePipeline.from_pretrained("bundle")
    >>> out = pipe(["a castle", "a lake"], seed=[1, 2], num_inference_steps=2, output_type="np")
    >>> out.images.dtype.name, out.images.shape[0], len(out.nsfw_content_detected)
    ('float32', 2, 2)
    >>> [record["seed"] for record in out.records()]
    [1, 2]
    """

    images: Any
    nsfw_content_detected: list[bool] | None
    unsafe_images: list[Any] | None
    applied_safety_concept: str | list[str] | None
    record: dict[str, Any]
    notes: tuple[CallNote, ...] = ()

    def to_tuple(self) -> tuple[Any, Any, Any, Any]:
        """The tuple that diffusers returns for ``return_dict=False``."""
        return (
            self.images,
            self.nsfw_content_detected,
            self.applied_safety_concept,
            self.unsafe_images,
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """One flat record for each image, as its PNG carries it."""
        shared = {key: value for key, value in self.record.items() if key != "images"}
        for image in self.record["images"]:
            yield {**shared, **image}


def images_from_pixels(pixels: list[Pixels], output_type: str) -> Any:
    """uint8 ``[H, W, 3]`` arrays as PIL images or as one float array in 0…1; latents as they are."""
    if output_type == "pil":
        return [Image.fromarray(array) for array in pixels]
    stacked = np.stack(pixels)
    if output_type == "latent":
        return stacked
    images = stacked.astype(np.float32) / np.float32(255.0)
    if output_type == "pt":
        torch = import_module("torch")  # the caller asked for its tensors
        return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return images


def optional_images(pixels: list[Pixels | None], output_type: str) -> Any:
    """As :func:`images_from_pixels`, image by image, with None where there is none."""
    return [
        None if array is None else images_from_pixels([array], output_type)[0] for array in pixels
    ]


def output_from_pixels(
    bundle: Bundle,
    call: Call,
    engines: dict[str, str],
    pixels: list[Pixels],
    flags: list[bool] | None,
    *,
    latents: Floats,
    origins: Sequence[Origin],
) -> SafeOutput:
    """The result of a call: flagged pictures are black, and the record says what was done.

    Args:
        pixels: uint8 ``[H, W, 3]``, one for each image.
        flags: The safety head's verdicts, None when the bundle has no head.
        latents: ``[B, C, h, w]``, handed out where the call asks for them.
        origins: Where each image's noise came from.
    """
    verdicts = flags or [False] * len(pixels)
    output_type = call.request.output_type
    made: list[Any] = list(latents) if output_type == "latent" else pixels
    pairs = list(zip(made, verdicts, strict=True))
    record = {
        **_run_record(bundle, call, engines),
        "seed_device": _common(origin["seed_device"] for origin in origins),
        "images": _image_records(call, flags, verdicts, origins),
    }
    unsafe = None
    if flags is not None and bundle.manifest.safety.policy.unsafe_images == "return":
        unsafe = optional_images([array if bad else None for array, bad in pairs], output_type)
    concepts = list(call.guard.concepts)
    output = SafeOutput(
        images=images_from_pixels(
            [np.zeros_like(array) if bad else array for array, bad in pairs], output_type
        ),
        nsfw_content_detected=flags,
        unsafe_images=unsafe,
        applied_safety_concept=(concepts[0] if len(concepts) == 1 else concepts) or None,
        record=record,
        notes=call.notes,
    )
    if output_type == "pil":
        _give_records(output)
    return output


def expected_records(bundle: Bundle, call: Call) -> list[dict[str, Any]]:
    """One flat record for each image of a call that was not made: what is only known afterwards is None or empty."""
    request = call.request
    origins = origins_of(request.generators, request.batch)
    shared = _run_record(bundle, call, {})
    return [
        {**shared, **image}
        for image in _image_records(call, None, [False] * request.batch, origins)
    ]


def _give_records(output: SafeOutput) -> None:
    """Let every picture carry its record, however it is saved."""
    for index, record in enumerate(output.records()):
        recorded(output.images[index], record)
        if output.unsafe_images is not None and output.unsafe_images[index] is not None:
            recorded(output.unsafe_images[index], unsafe_record(record))


def unsafe_record(record: dict[str, Any]) -> dict[str, Any]:
    """The record of a flagged picture itself, made from the one of the black picture in its place."""
    return {**record, "withheld": False, "unsafe": True}


def _run_record(bundle: Bundle, call: Call, engines: dict[str, str]) -> dict[str, Any]:
    request, schedule = call.request, call.schedule
    return {
        "sld_edge": __version__,
        "width": request.width,
        "height": request.height,
        "steps": schedule.steps,
        "scheduler": schedule.name,
        "scheduler_config": schedule.config,
        "guidance_scale": request.guidance_scale,
        "batch_size": request.batch,
        "latents_given": request.latents is not None,
        "latents_sha256": _digest(request.latents),
        "safety": _safety_record(call),
        "safety_head": bundle.manifest.safety.head,
        "finite": _finite_record(bundle, request),
        "notes": [str(note) for note in call.notes],
        "bundle": _bundle_record(bundle),
        "engine": engines,
    }


def _safety_record(call: Call) -> dict[str, Any]:
    """What was asked of safety, and what the loop was told for it."""
    if call.guard.config is None:
        return call.guard.record()
    return {**call.guard.record(), **call.steering.record(), "harmful_words": call.words}


def _finite_record(bundle: Bundle, request: Request) -> dict[str, bool | None]:
    """Whether each network's own values were seen to be finite; None where the graph of an older bundle cannot say.

    A head's scores are judged in any case.
    """
    kinds: tuple[GraphKind, ...] = (
        ("decode", "safety") if bundle.manifest.safety.head else ("decode",)
    )
    graphs = [bundle.graph(kind, height=request.height, width=request.width) for kind in kinds]
    says = [any(tensor.name == RAW_MEAN for tensor in graph.outputs) for graph in graphs]
    return {kind: True if there else None for kind, there in zip(kinds, says, strict=True)}


def _bundle_record(bundle: Bundle) -> dict[str, Any]:
    """Which bundle it was, how its files were compared with the manifest, and who vouched for that."""
    return {
        "digest": bundle.digest,
        "name": bundle.manifest.source.name,
        "checked": bundle.checked,
        "pinned": list(bundle.pins),
        "signed_by": None if bundle.key is None else f"sha256:{bundle.key.fingerprint}",
    }


def _common(devices: Iterable[str]) -> str:
    """What all pictures' generators are of; each picture's own record says its own."""
    different = set(devices)
    return different.pop() if len(different) == 1 else "mixed"


def _digest(latents: NDArray[np.float32] | None) -> str | None:
    """sha256 (hex) of given latents' bytes, so that one can tell whether one has them; None where none were given."""
    return None if latents is None else hashlib.sha256(latents.tobytes()).hexdigest()


def _image_records(
    call: Call,
    flags: list[bool] | None,
    verdicts: list[bool],
    origins: Sequence[Origin],
) -> list[dict[str, Any]]:
    request = call.request
    return [
        {
            "image_index": index,
            "prompt": request.prompts[index],
            "negative_prompt": request.negative_prompts[index],
            **origins[index],
            "nsfw_detected": None if flags is None else flags[index],
            "withheld": bad,
            "words_left_out": list(call.removed[index]),
        }
        for index, bad in enumerate(verdicts)
    ]
