"""Run the peers in turns: workers that are started when needed, limited in time, and stopped when memory is short."""

from __future__ import annotations

import json
import random
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.bench import extra
from sld_edge.bench.compare.peers import Peer, command_for, process_of
from sld_edge.bench.compare.task import Task, Unavailable
from sld_edge.bench.energy import energy_meter
from sld_edge.bench.processes import child_environment, last_line

_WARMUP_STEPS = 1


@dataclass(kw_only=True)
class Outcome:
    """What one peer gave: a reason why it was skipped, or samples in seconds and a picture for each round."""

    peer: Peer
    skipped: str = ""
    description: str = ""
    images: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    loading: float = 0.0
    pictures: list[NDArray[np.uint8]] = field(default_factory=list)
    flags: list[bool | None] = field(default_factory=list)
    joules: list[dict[str, float]] = field(default_factory=list)
    device_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Turns:
    """How the peers take turns.

    Args:
        repeats: Measured pictures of each peer.
        limit: Seconds a peer may take for one answer, loading and compiling included.
        room: Bytes that must be free before a worker is started; others are stopped to get there.
        seed: Of the order, which is another one in every round.
        warm_steps: Steps of the picture that is made before any is measured; a recorded loop is recorded for its steps.
        used: Bytes in use on the card, None where nothing tells; what it grew by since a
            worker's start is the worker's.
    """

    repeats: int
    limit: float
    room: int
    seed: int = 0
    peers_folder: Path
    warm_steps: int = _WARMUP_STEPS
    used: Callable[[], int | None] = lambda: None


def run_in_turns(
    peers: Sequence[Peer],
    task: Task,
    turns: Turns,
    say: Callable[[str], None],
    after: Callable[[list[Outcome]], None] = lambda _: None,
) -> list[Outcome]:
    """Measure all peers, one picture each round.

    Args:
        after: Told of everything so far after each picture.
    """
    outcomes = {peer.name: Outcome(peer=peer) for peer in peers}
    order = random.Random(turns.seed)
    with _Workers(task, turns) as workers:
        for turn in range(turns.repeats):
            ready = [outcome for outcome in outcomes.values() if not outcome.skipped]
            order.shuffle(ready)
            # Peers of one process follow each other, so that little is restarted when memory is short.
            places = [process_of(outcome.peer) for outcome in ready]
            for outcome in sorted(ready, key=lambda one: places.index(process_of(one.peer))):
                say(f"round {turn + 1} of {turns.repeats}: {outcome.peer.title}")
                try:
                    _measure(workers, outcome, task, turn)
                except Unavailable as reason:
                    outcome.skipped = str(reason)
                after(list(outcomes.values()))
    return list(outcomes.values())


def _measure(workers: _Workers, outcome: Outcome, task: Task, turn: int) -> None:
    worker = workers.of(outcome.peer)
    name = outcome.peer.name
    if name not in worker.warm:
        # With a text of its own: the measured ones must not find theirs encoded already.
        warm = worker.ask(name, workers.turns.warm_steps, task.text(-1))
        outcome.loading = warm["loading"] + warm["total"]
        worker.warm.add(name)
    with energy_meter() as energy:
        answer = worker.ask(name, task.steps, task.text(turn))
    outcome.joules.append(energy.joules)
    outcome.device_bytes = workers.grown(worker)
    outcome.images.append(answer["total"])
    outcome.steps += answer["steps"]
    outcome.description = answer["description"]
    outcome.flags.append(any(answer["flags"]) if answer["flags"] is not None else None)
    outcome.pictures.append(np.load(worker.out))


class _Workers:
    """The running processes by name."""

    def __init__(self, task: Task, turns: Turns) -> None:
        self._task, self.turns = task, turns
        self._running: dict[str, _Worker] = {}

    def of(self, peer: Peer) -> _Worker:
        """The peer's process, started if need be, after making room."""
        name = process_of(peer)
        worker = self._running.get(name)
        if worker is None or not worker.alive:
            command = command_for(peer, peers_folder=self.turns.peers_folder)
            self._make_room()
            before = self.turns.used()
            worker = _Worker(command, self._task, self.turns.limit, name)
            worker.before = before
            self._running[name] = worker
        return worker

    def grown(self, worker: _Worker) -> int | None:
        """What the card holds more than before a worker was started; the others hold what they held then, or less."""
        after = self.turns.used()
        if after is None or worker.before is None or worker is not self._newest():
            return worker.grown
        worker.grown = max(after - worker.before, worker.grown or 0)
        return worker.grown

    def _newest(self) -> _Worker:
        return list(self._running.values())[-1]

    def _make_room(self) -> None:
        memory = extra.psutil().virtual_memory
        while self._running and memory().available < self.turns.room:
            oldest = next(iter(self._running))
            self._running.pop(oldest).stop()

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        workers = list(self._running.values())
        try:
            for worker in workers:
                worker.dismiss()
            for worker in workers:
                worker.stop()
        finally:
            # A second Ctrl-C does not wait, and leaves nobody behind either.
            for worker in workers:
                worker.kill()


class _Worker:
    """One process and its line-by-line conversation."""

    def __init__(self, command: Sequence[str], task: Task, limit: float, name: str) -> None:
        self.warm: set[str] = set()
        self.before: int | None = None
        self.grown: int | None = None
        self.out = Path(task.latents).parent / f"{name}.npy"
        self._limit = limit
        self._log = (Path(task.latents).parent / f"{name}.log").open("a+", encoding="utf-8")
        threads = str(task.threads)
        self._process = subprocess.Popen(
            [*command, task.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            encoding="utf-8",
            errors="replace",
            env=child_environment(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads),
        )

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def ask(self, peer: str, steps: int, prompt: str) -> dict[str, Any]:
        """One picture.

        Raises:
            Unavailable: the peer cannot run here, died, or took longer than the limit.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        late = threading.Timer(self._limit, self._process.kill)
        late.start()
        try:
            request = {"peer": peer, "steps": steps, "prompt": prompt, "out": str(self.out)}
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            in_time = late.is_alive()
            late.cancel()
        if not line:
            self._process.wait()
            reason = self._last_words() if in_time else f"took longer than {self._limit:.0f} s"
            raise Unavailable(reason)
        answer: dict[str, Any] = json.loads(line)
        if "skip" in answer:
            raise Unavailable(answer["skip"])
        return answer

    def dismiss(self) -> None:
        """Let the process end: it finds no more requests."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def stop(self) -> None:
        """End the process and wait for it."""
        self.dismiss()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()
        self._log.close()

    def kill(self) -> None:
        """End the process at once if it still runs."""
        if self.alive:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _last_words(self) -> str:
        self._log.flush()
        self._log.seek(0)
        last = last_line(self._log.read())[:200]
        return f"its process ended with status {self._process.returncode} ({last})"
