"""The same picture by every pipeline that this machine has, in turns, on the card."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sld_edge.bench.card.child import Tell
from sld_edge.bench.card.peers import RULE, by_the_rule, compiled, eager, ours, references
from sld_edge.bench.card.settings import Settings
from sld_edge.bench.compare.common import PROMPT, task_for
from sld_edge.bench.compare.interleave import Outcome, Turns, run_in_turns
from sld_edge.bench.compare.peers import PEERS_FOLDER, Peer
from sld_edge.bench.compare.report import contrast, result_of
from sld_edge.bench.compare.task import Task
from sld_edge.bench.gpu_check.backends import Backend, backends
from sld_edge.bench.memory import everybodys_bytes
from sld_edge.bench.stats import ratio_interval
from sld_edge.bundle import Bundle
from sld_edge.errors import SldError, one_line
from sld_edge.runtime.safety import PRESETS

#: Seconds for one answer of a worker; the part's own limit ends it earlier.
_ANSWER = 3600.0
#: ``strong`` waits seven evaluations; shorter runs would not see it act.
_PRESET, _ENOUGH_STEPS = "strong", 14
_SEED = 0


def compare(settings: Settings, tell: Tell) -> None:
    """References, eager and ONNX Runtime first; then what has to be built or compiled."""
    bundle = Bundle.open(settings.models / "bundle")
    task = _task(settings, bundle)
    run = _Comparison(settings, task, tell)
    run.turn(references(), repeats=1, warm_steps=1)
    libraries = _libraries(settings)
    quick = [name for name in libraries if name.startswith("onnxruntime")]
    run.turn([*eager(), *(peer for name in quick for peer in ours(name))])
    for name, backend in libraries.items():
        if name not in quick and (backend is None or run.built(name, backend, bundle)):
            run.turn(ours(name))
    if settings.compiled:
        run.turn(compiled())
    else:
        run.leave_out(compiled(), "left out by --skip compile")


def _libraries(settings: Settings) -> dict[str, Backend | None]:
    """Name → what builds for it."""
    if settings.dry_run:
        return {"onnxruntime-cpu": None}
    return {one.name: one for one in backends()}


class _Comparison:
    """Everything measured so far, told anew after each picture."""

    def __init__(self, settings: Settings, task: Task, tell: Tell) -> None:
        self._settings, self._task, self._tell = settings, task, tell
        self._done: list[Outcome] = []

    def turn(
        self, peers: Sequence[Peer], *, repeats: int | None = None, warm_steps: int | None = None
    ) -> None:
        """Measure some peers in turns."""
        turns = Turns(
            repeats=repeats or self._settings.repeats,
            limit=_ANSWER,
            room=0,
            seed=_SEED,
            peers_folder=Path(PEERS_FOLDER),
            warm_steps=warm_steps or self._task.steps,
            used=(lambda: None) if self._settings.dry_run else everybodys_bytes,
        )
        before = list(self._done)

        def after(outcomes: list[Outcome]) -> None:
            self._done = [*before, *outcomes]
            self._say()

        run_in_turns(peers, self._task, turns, self._tell.say, after)

    def leave_out(self, peers: Sequence[Peer], reason: str) -> None:
        """Name what was not tried."""
        self._done += [Outcome(peer=peer, skipped=reason) for peer in peers]
        self._say()

    def built(self, name: str, backend: Backend, bundle: Bundle) -> bool:
        """Build what a library needs; a refusal is the reason of a skip."""
        reason = backend.unavailable()
        if not reason:
            self._tell.say(f"building for {name}")
            try:
                backend.prepare(bundle, bundle.manifest.shapes[0], lambda _: nullcontext())
            except SldError as error:
                reason = one_line(str(error))
        if reason:
            self.leave_out(ours(name), reason)
        return not reason

    def _say(self) -> None:
        found = by_the_rule([one for one in self._done if one.skipped or one.images])
        task = self._task
        entries = result_of(found)
        for entry, outcome in zip(entries, found, strict=True):
            if not outcome.skipped:
                entry |= _costs(outcome, found)
        contrasts = {
            entry["name"]: contrast(found, entry["name"], f"{entry['name']}-off")
            for entry in entries
            if entry["name"].startswith("ours-") and not entry["name"].endswith("-off")
        }
        self._tell.found({
            "rule": RULE, "steps": task.steps, "size": f"{task.height}x{task.width}",
            "dtype": task.dtype, "safety": {"preset": _PRESET, **task.safety}, "peers": entries,
            "safe_against_off_psnr_db": contrasts,
            "measured": any("skipped" not in entry for entry in entries),
        })  # fmt: skip


def _costs(outcome: Outcome, found: Sequence[Outcome]) -> dict[str, Any]:
    """Memory, energy, and how many times as long diffusers' eager pipeline of as many rows took."""
    name = "safe-eager" if outcome.peer.branches == 3 else "plain-eager"
    eager_one = next((one for one in found if one.peer.name == name and one.images), None)
    meters = {meter for joules in outcome.joules for meter in joules}
    return {
        "device_bytes": outcome.device_bytes,
        "joules": {
            meter: statistics.median(joules[meter] for joules in outcome.joules if meter in joules)
            for meter in sorted(meters)
        },
        "faster_than_eager": asdict(ratio_interval(eager_one.images, outcome.images))
        if eager_one
        else None,
    }


def _task(settings: Settings, bundle: Bundle) -> Task:
    preset = asdict(PRESETS[_PRESET])
    safety = {name: value for name, value in preset.items() if name in _SAFE_ARGUMENTS}
    if settings.steps < _ENOUGH_STEPS:
        safety["sld_warmup_steps"] = 0
    return task_for(
        bundle,
        settings.models / "checkpoint",
        Path(settings.work) / "compare",
        seed=_SEED,
        threads=settings.threads,
        prompt=PROMPT,
        steps=settings.steps,
        guidance_scale=7.5,
        safety=safety,
        device=settings.device,
        dtype="bfloat16" if settings.dry_run else "float16",
        compiler="eager" if settings.dry_run else "inductor",
    )


_SAFE_ARGUMENTS = {
    "sld_guidance_scale", "sld_warmup_steps", "sld_threshold", "sld_momentum_scale", "sld_mom_beta",
}  # fmt: skip
