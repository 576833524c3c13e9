"""Step times of a pipeline that is not ours: its network and its decoder are wrapped and leave marks."""

from __future__ import annotations

import time
from typing import Any


class Marks:
    """When the network was called, and when the decoder was: a step lasts from one call to the next."""

    def __init__(self) -> None:
        self._calls: list[float] = []
        self._decoding = 0.0

    def watch(self, pipeline: Any) -> None:
        """Wrap ``unet`` and ``vae`` of a diffusers-like pipeline, past the pipeline's own bookkeeping."""
        object.__setattr__(pipeline, "unet", _Called(pipeline.unet, self._call))
        object.__setattr__(pipeline, "vae", _Decoded(pipeline.vae, self._decode))

    def clear(self) -> None:
        """Forget the last picture."""
        self._calls.clear()

    def steps(self) -> list[float]:
        """Seconds of every step of the last picture."""
        ends = [*self._calls[1:], self._decoding]
        return [end - start for start, end in zip(self._calls, ends, strict=False)]

    def _call(self) -> None:
        self._calls.append(time.perf_counter())

    def _decode(self) -> None:
        self._decoding = time.perf_counter()


class _Wrapper:
    def __init__(self, inner: Any, mark: Any) -> None:
        self._inner = inner
        self._mark = mark

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Called(_Wrapper):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._mark()
        return self._inner(*args, **kwargs)


class _Decoded(_Wrapper):
    def decode(self, *args: Any, **kwargs: Any) -> Any:
        self._mark()
        return self._inner.decode(*args, **kwargs)
