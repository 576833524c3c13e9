"""Energy used between two moments, from whatever meter the machine has: RAPL, NVML or Jetson's power rails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sld_edge.bench.nvml import Card, cards

_RAPL = Path("/sys/class/powercap")
_RAILS = Path("/sys/class/hwmon")
#: Jetson's monitors of the whole module's or board's input.
_TOTAL_RAILS = ("VDD_IN", "VIN_SYS_5V0", "POM_5V_IN")
_RAIL_PERIOD = 0.1


@dataclass(kw_only=True)
class Energy:
    """Joules by meter, filled in when the measured block ends; empty where the machine has no meter."""

    joules: dict[str, float] = field(default_factory=dict)


@contextmanager
def energy_meter(root: Path | None = None) -> Iterator[Energy]:
    """Measure the block's energy with every meter that can be read.

    Args:
        root: Stands for ``/`` in tests.
    """
    energy = Energy()
    meters = [*_rapl(_under(root, _RAPL)), *_nvml(), *_rails(_under(root, _RAILS))]
    running = [(name, start()) for name, start in meters]
    try:
        yield energy
    finally:
        for name, finish in running:
            energy.joules[name] = finish()


Finish = Callable[[], float]
Start = Callable[[], Finish]


def _rapl(folder: Path) -> Iterator[tuple[str, Start]]:
    """One meter for each processor package; its counter wraps at ``max_energy_range_uj``."""
    for zone in sorted(folder.glob("intel-rapl:[0-9]*")):
        if zone.name.count(":") != 1:
            continue
        try:
            name = (zone / "name").read_text().strip()
            wrap = int((zone / "max_energy_range_uj").read_text())
            int((zone / "energy_uj").read_text())
        except (OSError, ValueError):
            continue  # readable by root only on most systems

        def start(counter: Path = zone / "energy_uj", wrap: int = wrap) -> Finish:
            begin = int(counter.read_text())
            return lambda: ((int(counter.read_text()) - begin) % wrap) / 1e6

        yield f"cpu {name}", start


def _nvml() -> Iterator[tuple[str, Start]]:
    found = cards()
    for index, card in enumerate([] if isinstance(found, str) else found):
        try:
            card.joules()
        except Exception:
            continue  # a GPU that does not count

        def start(card: Card = card) -> Finish:
            begin = card.joules()
            return lambda: card.joules() - begin

        yield f"gpu {index}", start


def _rails(folder: Path) -> Iterator[tuple[str, Start]]:
    """Jetson's INA3221 channels: millivolts and milliamperes, sampled and summed up."""
    for label in sorted(folder.glob("hwmon*/in*_label")):
        try:
            name = label.read_text().strip()
        except OSError:
            continue
        channel = label.name.removeprefix("in").removesuffix("_label")
        volts = label.with_name(f"in{channel}_input")
        amperes = label.with_name(f"curr{channel}_input")
        if name in _TOTAL_RAILS and volts.is_file() and amperes.is_file():
            yield f"rail {name}", lambda v=volts, a=amperes: _sampled(v, a)  # type: ignore[misc]


def _sampled(volts: Path, amperes: Path) -> Finish:
    stop = threading.Event()
    total = 0.0

    def watts() -> float:
        return int(volts.read_text()) * int(amperes.read_text()) / 1e6

    def sample() -> None:
        nonlocal total
        then, power = time.monotonic(), watts()
        while True:
            stopped = stop.wait(_RAIL_PERIOD)
            now, next_power = time.monotonic(), watts()
            total += (power + next_power) / 2 * (now - then)
            then, power = now, next_power
            if stopped:
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()

    def finish() -> float:
        stop.set()
        thread.join()
        return total

    return finish


def _under(root: Path | None, path: Path) -> Path:
    return path if root is None else root / path.relative_to("/")
