"""What a call returns: images, verdicts, and the record of what was done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class SafeOutput:
    """Result of one call, with diffusers' names.

    Args:
        images: PIL images, or one float32 array ``[B, H, W, 3]`` in 0…1 for ``output_type="np"``. An image
            that the safety head flagged is black here.
        nsfw_content_detected: One verdict for each image; None when the bundle has no safety head.
        unsafe_images: For each image the flagged picture itself, or None where nothing was flagged. The whole
            is None when there is no safety head, or when the bundle's policy withholds flagged pictures.
        applied_safety_concept: The concept that was suppressed, a list when there were several, None with
            safety off.
        record: Everything needed to tell what was done and to do it again; ``record["images"]`` has an
            entry for each image.
    """

    images: Any
    nsfw_content_detected: list[bool] | None
    unsafe_images: list[Any] | None
    applied_safety_concept: str | list[str] | None
    record: dict[str, Any]

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
    """uint8 ``[H, W, 3]`` arrays as PIL images or as one float array in 0…1."""
    if output_type == "pil":
        return [Image.fromarray(array) for array in pixels]
    return np.stack(pixels).astype(np.float32) / np.float32(255.0)


def optional_images(pixels: list[Pixels | None], output_type: str) -> Any:
    """As :func:`images_from_pixels`, image by image, with None where there is none."""
    return [
        None if array is None else images_from_pixels([array], output_type)[0] for array in pixels
    ]
