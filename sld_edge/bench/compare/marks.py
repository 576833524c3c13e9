"""What is seen of a pipeline that is not ours: its network and its decoder are wrapped and leave marks.

The picture is taken where the decoder made it. What comes after differs between pipelines and releases: one blanks
what its checker flagged, another puts it elsewhere and gives black pictures for what it did not flag.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Marks:
    """When the network was called, and when the decoder was: a step lasts from one call to the next.

    Args:
        on_card: Let the card note the time: its work goes on after a call has returned.
    """

    def __init__(self, *, on_card: bool = False) -> None:
        self._now: Callable[[], Any] = _event if on_card else time.perf_counter
        self._calls: list[Any] = []
        self._decoding: Any = None
        self._decoded: NDArray[np.float32] | None = None

    def watch(self, pipeline: Any) -> None:
        """Wrap ``unet`` and ``vae`` of a diffusers-like pipeline, past the pipeline's own bookkeeping."""
        object.__setattr__(pipeline, "unet", _Called(pipeline.unet, self._call))
        object.__setattr__(pipeline, "vae", _Decoded(pipeline.vae, self._decode, self._keep))

    def clear(self) -> None:
        """Forget the last picture."""
        self._calls.clear()
        self._decoded = None

    def steps(self) -> list[float]:
        """Seconds of every step of the last picture."""
        ends = [*self._calls[1:], self._decoding]
        return [_between(start, end) for start, end in zip(self._calls, ends, strict=False)]

    def pictures(self) -> NDArray[np.uint8]:
        """What the decoder made of the last latents: uint8 ``[B, H, W, 3]``.

        Raises:
            RuntimeError: the pipeline went past its decoder.
        """
        if self._decoded is None:
            raise RuntimeError("the pipeline did not call its decoder, so its picture was not seen")
        return pixels_from_decoded(self._decoded)

    def _call(self) -> None:
        self._calls.append(self._now())

    def _decode(self) -> None:
        self._decoding = self._now()

    def _keep(self, answer: Any) -> None:
        """Copy the decoder's answer, a tensor ``[B, 3, H, W]``, alone or first of several."""
        tensor = answer if hasattr(answer, "shape") else answer[0]
        if hasattr(tensor, "detach"):
            tensor = tensor.detach().float().cpu().numpy()
        # A checker blanks what it flags in the very tensor that the decoder gave.
        self._decoded = np.array(tensor, np.float32)


def _event() -> Any:
    """A mark among the card's work."""
    import torch

    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(start: Any, end: Any) -> float:
    if isinstance(start, float):
        return float(end - start)
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def pixels_from_decoded(decoded: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Decoded ``[B, 3, H, W]`` in -1…1 as 8-bit pixels ``[B, H, W, 3]``."""
    unit = np.clip(decoded / 2.0 + 0.5, 0.0, 1.0)
    pixels: NDArray[np.uint8] = (unit.transpose(0, 2, 3, 1) * 255.0).round().astype(np.uint8)
    return pixels


def verdicts_of(output: Any) -> list[bool] | None:
    """A pipeline's verdicts, which is None without a checker, and of some pipelines one bool for all."""
    found = getattr(output, "nsfw_content_detected", None)
    if found is None:
        return None
    return [bool(found)] if isinstance(found, (bool, np.bool_)) else [bool(one) for one in found]


class _Wrapper:
    def __init__(self, inner: Any, mark: Callable[[], None]) -> None:
        self._inner = inner
        self._mark = mark

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Called(_Wrapper):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._mark()
        return self._inner(*args, **kwargs)


class _Decoded(_Wrapper):
    def __init__(self, inner: Any, mark: Callable[[], None], keep: Callable[[Any], None]) -> None:
        super().__init__(inner, mark)
        self._keep = keep

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        self._mark()
        answer = self._inner.decode(*args, **kwargs)
        self._keep(answer)
        return answer
