"""Two exports into one target, begun at once: what they made, said and reached for, for several tests to look at."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tests.tracing import environment, watched

_EXPORT = "from sld_edge.export.cli import main; main()"
#: They differ in everything that the interpreter decides, so the bundle must not depend on which one wins.
_INTERPRETERS: tuple[tuple[list[str], str], ...] = (
    (["-O", "-W", "error"], "1"),
    ([], "2"),
)


class Ended(msgspec.Struct, frozen=True):
    """How a process ended."""

    returncode: int
    stderr: str


@dataclass(frozen=True)
class TwoExports:
    """The folder that both were made in."""

    folder: Path

    @property
    def home(self) -> Path:
        """The home that both were given."""
        return self.folder / "home"

    @property
    def target(self) -> Path:
        """Where both were to write, alone in its folder."""
        return self.folder / "target" / "out"

    @property
    def logs(self) -> Sequence[Path]:
        """What strace saw of each, where it is installed."""
        return [self.folder / f"{number}.log" for number in range(len(_INTERPRETERS))]

    @property
    def ended(self) -> tuple[Ended, ...]:
        """How each ended, the better one first."""
        text = (self.folder / "ended.json").read_bytes()
        found = msgspec.json.decode(text, type=tuple[Ended, ...])
        return tuple(sorted(found, key=lambda one: one.returncode))

    def make(self, checkpoint: Path) -> None:
        """Run both."""
        self.home.mkdir(parents=True)
        self.target.parent.mkdir()

        def export(number: int) -> Ended:
            options, seed = _INTERPRETERS[number]
            changed: dict[str, Any] = {"PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
            done = subprocess.run(
                [*watched(self.logs[number]), sys.executable, *options, "-c", _EXPORT,
                 str(checkpoint), str(self.target), "-q"],
                capture_output=True, text=True, check=False,
                env={**environment(self.home), **changed}, cwd=self.folder,
            )  # fmt: skip
            return Ended(done.returncode, done.stderr)

        with ThreadPoolExecutor(len(_INTERPRETERS)) as pool:
            ended = list(pool.map(export, range(len(_INTERPRETERS))))
        (self.folder / "ended.json").write_bytes(msgspec.json.encode(ended))
