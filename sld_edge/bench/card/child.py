"""One part of ``sld-bench card``: ``python -m sld_edge.bench.card.child PART SETTINGS``.

Answers with JSON objects, one a line: ``say`` for a person, ``result`` with all that was found so far, and at last
``status``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import msgspec

from sld_edge.bench.card.settings import Settings
from sld_edge.errors import MissingDependency, SldError, one_line
from sld_edge.shell import terminable


class Skipped(Exception):
    """A part cannot be done here; the message says why."""


class Tell(Protocol):
    """How a part speaks."""

    def say(self, text: str) -> None:
        """Tell a person what is being done."""
        ...

    def found(self, result: dict[str, Any]) -> None:
        """Everything that was found so far."""
        ...


Run = Callable[[Settings, Tell], None]

_MODULES = {
    "machine": "sld_edge.bench.card.part_machine:machine",
    "tiny-check": "sld_edge.bench.card.part_check:tiny_check",
    "model": "sld_edge.bench.card.part_model:model",
    "compare": "sld_edge.bench.card.part_compare:compare",
    "kernels": "sld_edge.bench.card.part_kernels:kernels",
    "model-check": "sld_edge.bench.card.part_check:model_check",
}


class _Lines:
    def __init__(self) -> None:
        # Libraries print; the answers need a channel of their own.
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def send(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def say(self, text: str) -> None:
        self.send({"say": text})

    def found(self, result: dict[str, Any]) -> None:
        self.send({"result": result})


def main(name: str, settings: Settings) -> None:
    """Run one part; how it ended is the last line."""
    lines = _Lines()
    module, _, function = _MODULES[name].partition(":")
    end: dict[str, Any] = {"status": "done"}
    try:
        with terminable():
            run: Run = getattr(import_module(module), function)
            run(settings, lines)
    except KeyboardInterrupt:
        return
    except (Skipped, MissingDependency) as reason:
        end = {"status": "skipped", "reason": one_line(str(reason))}
    except ImportError as error:
        end = {"status": "skipped", "reason": f"{error.name or error} is not installed"}
    except (SldError, MemoryError, OSError, RuntimeError) as error:
        text = one_line(str(error)) or "out of memory"
        end = {"status": "failed", "reason": f"{type(error).__name__}: {text[:400]}"}
    lines.send(end)


if __name__ == "__main__":
    main(sys.argv[1], msgspec.json.decode(sys.argv[2], type=Settings))
