"""One compared runtime in a process of its own: ``python -m sld_edge.bench.compare.worker ADAPTER TASK``.

Reads one JSON request a line, answers one JSON object a line. Runs in the peers' environments, where this package is
only on the path and not installed, so nothing here needs more than the standard library and NumPy.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from sld_edge.bench.compare.task import Picture, Task, Unavailable


class Built(Protocol):
    """A pipeline that is ready to run."""

    description: str

    def image(self, steps: int, prompt: str) -> Picture:
        """Make the task's picture of a prompt."""
        ...

    def steps(self) -> list[float]:
        """Seconds of every step of the last picture."""
        ...


Builder = Callable[[Task, str], Built]


def main(adapter: str, task: Task) -> None:
    """Serve requests until the input ends."""
    # Libraries print; the answers need a channel of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    built: dict[str, Built] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = _serve(adapter, task, built, request)
        except Unavailable as reason:
            answer = {"skip": str(reason)}
        except Exception as error:
            if os.environ.get("SLD_BENCH_TRACE"):
                raise
            answer = {
                "skip": f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _serve(
    adapter: str, task: Task, built: dict[str, Built], request: dict[str, Any]
) -> dict[str, Any]:
    import numpy as np

    peer = request["peer"]
    if peer not in built:
        begin = time.perf_counter()
        built[peer] = import_module(adapter).build(task, peer)
        loading = time.perf_counter() - begin
    else:
        loading = 0.0
    pipeline = built[peer]
    start = time.perf_counter()
    picture = pipeline.image(request["steps"], request["prompt"])
    total = time.perf_counter() - start
    np.save(request["out"], picture.pixels)
    return {
        "total": total,
        "loading": loading,
        "steps": pipeline.steps(),
        "flags": picture.flags,
        "description": pipeline.description,
    }


if __name__ == "__main__":
    main(sys.argv[1], Task.from_json(sys.argv[2]))
