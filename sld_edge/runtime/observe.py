"""What a measurement may see of a run; nothing is recorded, and nothing costs time, when nobody looks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from sld_edge.engines.base import Engine


class Observer:
    """Sees nothing. A measurement derives from it and overrides what it wants to see."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Entered around one stage of a call: ``tokenise``, ``noise``, ``text``, ``denoise``, ``pictures``."""
        del name
        return _NOTHING

    def engine(self, engine: Engine) -> Engine:
        """Given every engine before it is acquired; returns the one to use in its place."""
        return engine


_NOTHING = nullcontext()
UNOBSERVED = Observer()
