"""What an image processor does to a picture before the safety checker sees it, read from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sld_edge.errors import UnsupportedCheckpoint
from sld_edge.export.pil_resize import FILTERS, short_edge_size

#: What CLIP's image processor takes where the checkpoint says nothing.
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_SIDE = 224
_BICUBIC = 3
_LARGEST = 4096


@dataclass(frozen=True, kw_only=True)
class ImageProcessor:
    """Resize, crop, normalise, in transformers' words.

    Args:
        short_edge: Pixels that the shorter edge is made; None where ``size`` says both or nothing is resized.
        size: Height and width that a picture is made, whatever its shape; None likewise.
        resample: Pillow's number of the filter.
        crop: Height and width of the middle that is kept; None keeps all.
        mean: Of each channel, in 0 … 1.
        std: Likewise.
    """

    short_edge: int | None
    size: tuple[int, int] | None
    resample: int
    crop: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a picture after resizing."""
        if self.size is not None:
            return self.size
        if self.short_edge is None:
            return height, width
        return short_edge_size(height, width, self.short_edge)

    def processed(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what the network sees of a picture.

        Raises:
            UnsupportedCheckpoint: more is cropped than there is, which would be filled with black.
        """
        size = self.resized(height, width)
        if self.crop is None:
            return size
        if self.crop[0] > size[0] or self.crop[1] > size[1]:
            raise UnsupportedCheckpoint(
                "the safety checker crops more than it resizes to",
                value=f"{_words(self.crop)} of {_words(size)}",
            )
        return self.crop

    def check_fits(self, side: int, height: int, width: int) -> None:
        """Refuse pictures that the vision network would not take.

        Raises:
            UnsupportedCheckpoint: what is left of a picture is not ``side`` × ``side``.
        """
        seen = self.processed(height, width)
        if seen != (side, side):
            raise UnsupportedCheckpoint(
                f"the safety checker's network takes {_words((side, side))}, and its image processor makes"
                f" a picture of {_words((height, width))} into",
                value=_words(seen),
                hint="mend size and crop_size in feature_extractor/preprocessor_config.json",
            )


def image_processor_from(config: Mapping[str, Any]) -> ImageProcessor:
    """Read ``preprocessor_config.json``.

    Raises:
        UnsupportedCheckpoint: naming what the exported graph would not follow.
    """
    _check_rescaling(config)
    short_edge, size = _size(config) if _flag(config, "do_resize") else (None, None)
    resample = _get(config, "resample", _BICUBIC)
    if not isinstance(resample, int) or isinstance(resample, bool) or resample not in FILTERS:
        raise UnsupportedCheckpoint(
            "the safety checker's image processor resizes in an unknown way",
            value={"resample": resample},
        )
    normalised = _flag(config, "do_normalize")
    return ImageProcessor(
        short_edge=short_edge,
        size=size,
        resample=int(resample),
        crop=_crop(config) if _flag(config, "do_center_crop") else None,
        mean=_channels(config, "image_mean", _CLIP_MEAN) if normalised else (0.0,) * 3,
        std=_channels(config, "image_std", _CLIP_STD) if normalised else (1.0,) * 3,
    )


def _size(config: Mapping[str, Any]) -> tuple[int | None, tuple[int, int] | None]:
    """The short edge, or height and width: a number, a list, or a mapping of either kind."""
    size = _get(config, "size", {"shortest_edge": _SIDE})
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        size = size["shortest_edge"]
    if _is_pixels(size):
        return int(size), None
    return None, _pair("size", size)


def _crop(config: Mapping[str, Any]) -> tuple[int, int]:
    crop = _get(config, "crop_size", _SIDE)
    return (int(crop), int(crop)) if _is_pixels(crop) else _pair("crop_size", crop)


def _pair(name: str, value: Any) -> tuple[int, int]:
    pair = value
    if isinstance(value, Mapping) and set(value) == {"height", "width"}:
        pair = (value["height"], value["width"])
    if isinstance(pair, (list, tuple)) and len(pair) == 2 and all(map(_is_pixels, pair)):
        return int(pair[0]), int(pair[1])
    raise UnsupportedCheckpoint(
        "the safety checker's image processor resizes in an unknown way",
        value={name: value},
        hint=f"a number, two numbers, shortest_edge, or height and width, of 1 to {_LARGEST}",
    )


def _is_pixels(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LARGEST


def _channels(
    config: Mapping[str, Any], name: str, default: tuple[float, ...]
) -> tuple[float, ...]:
    values = _get(config, name, default)
    numbers = isinstance(values, (list, tuple)) and all(
        isinstance(one, (int, float)) and not isinstance(one, bool) for one in values
    )
    if not numbers or len(values) != 3 or (name == "image_std" and not all(values)):
        raise UnsupportedCheckpoint(
            f"the safety checker's {name} is not three numbers", value=values
        )
    return tuple(float(one) for one in values)


def _check_rescaling(config: Mapping[str, Any]) -> None:
    factor = _get(config, "rescale_factor", 1 / 255)
    usual = isinstance(factor, (int, float)) and abs(factor * 255 - 1) <= 1e-6
    if not _flag(config, "do_rescale") or not usual:
        raise UnsupportedCheckpoint(
            "the safety checker's image processor rescales in an unknown way", value=factor
        )


def _flag(config: Mapping[str, Any], name: str) -> bool:
    return bool(_get(config, name, True))


def _get(config: Mapping[str, Any], name: str, default: Any) -> Any:
    value = config.get(name)
    return default if value is None else value


def _words(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
