"""What the commands' own processes have in common, and folders that they build beside their place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sld_edge


def child_environment(**more: str) -> dict[str, str]:
    """This process' environment for a child that finds this package, stays offline and prints nothing of its own."""
    package = str(Path(sld_edge.__file__).parent.parent)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **more,
    }


def last_line(log: str) -> str:
    """The last words of a process."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


@contextmanager
def built_beside(out: Path) -> Iterator[Path]:
    """A path beside ``out`` that gets its name when the block ends well: a half-made folder is never found."""
    unfinished = out.with_name(f"unfinished-{out.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    yield unfinished
    unfinished.rename(out)
