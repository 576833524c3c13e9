"""Everything a call needs to know before a network runs: checked arguments, schedule, safety and token ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.bundle import Bundle
from sld_edge.errors import InvalidInput, PolicyError
from sld_edge.manifest import HarmWords, Safety
from sld_edge.plain import is_listed, is_text, plain_text
from sld_edge.runtime.arguments import CallArguments
from sld_edge.runtime.checks import texts
from sld_edge.runtime.methods import METHODS, PUBLISHED
from sld_edge.runtime.notes import CallNote, NoteKind
from sld_edge.runtime.policy import HarmfulWords, check_policy, harmful_words, has_floor
from sld_edge.runtime.request import Request, request_from_call
from sld_edge.runtime.safety import ADAPTIVE, PRESETS, Guard, SafetyConfig, resolve_guard
from sld_edge.runtime.schedulers import Schedule, build_schedule
from sld_edge.runtime.schedulers.names import family_of
from sld_edge.runtime.steering import (
    REFERENCE_STEPS,
    Steering,
    reference_schedule,
    steer,
    steering_off,
)
from sld_edge.runtime.tokenize import TokenBatch, Tokenizer


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One call of a pipeline, resolved.

    Args:
        steering: What the loop is told about safety at every evaluation.
        ids: Token ids ``[R, B, T]`` of every branch.
        words: What becomes of words that name a harm; ``"allow"`` where the bundle cannot tell them.
        by_words: Whether the prompt's words choose each image's safety concept among the bundle's harms, so that one
            row is enough.
        removed: For each image the words that were left out of its prompt.
        notes: What the user should know about it.
        context: Cross-attention keys and values ``[R, B, …]`` by name, once the texts are encoded.
    """

    request: Request
    schedule: Schedule
    guard: Guard
    steering: Steering
    ids: NDArray[np.int64]
    words: HarmfulWords
    by_words: bool
    removed: tuple[tuple[str, ...], ...]
    notes: tuple[CallNote, ...]
    context: Mapping[str, NDArray[Any]] | None = None


def prepare_call(
    bundle: Bundle,
    tokenizer: Tokenizer,
    arguments: CallArguments,
    scheduler_config: Mapping[str, Any] | None = None,
) -> Call:
    """Check and resolve a call's arguments; no network is touched.

    ``scheduler_config`` stands in the place of the bundle's own.

    Raises:
        InvalidInput: an argument is wrong.
        PolicyError: the bundle's policy forbids it.
    """
    manifest = bundle.manifest
    # Plain before anything is decided: no object is asked again what it is.
    given = _plain(arguments)
    request = request_from_call(manifest, given)
    bundle.graph("unet", height=request.height, width=request.width)
    solver = manifest.scheduler if scheduler_config is None else scheduler_config
    schedule = build_schedule(
        given.scheduler,
        solver,
        steps=given.num_inference_steps,
        eta=given.eta,
        timesteps=given.timesteps,
        sigmas=given.sigmas,
    )
    _check_trained_for(schedule.name, solver)
    guard = resolve_guard(
        given.safety, given.numbers, given.safety_concept, given.method, bundle=manifest.safety
    )
    if not _knows(bundle, guard.method):
        raise InvalidInput(
            f"this bundle was made before the {guard.method} method, its graphs do not know it",
            hint="export the checkpoint again",
        )
    own_levels = given.timesteps is not None or given.sigmas is not None
    reference = None
    if guard.config is not None:
        is_reference = schedule.steps == REFERENCE_STEPS and not own_levels
        reference = schedule if is_reference else reference_schedule(given.scheduler, solver)
    steering, notes = _steered(schedule, reference, guard, request)
    check_policy(
        manifest.safety,
        guard,
        steering,
        _floor(schedule, reference, manifest.safety, request),
        scheduler=schedule.name,
        steps=schedule.steps,
        own_levels=own_levels,
        guidance_scale=request.guidance_scale,
        negative_prompts=request.negative_prompts,
    )
    known = isinstance(manifest.safety.words, HarmWords)
    by_words = known and METHODS[guard.method].by_harm and given.safety_concept is None
    concepts = (manifest.safety.concept,) if by_words else guard.concepts
    ids, cuts = _token_grid(tokenizer, request, concepts)
    return Call(
        request=request,
        schedule=schedule,
        guard=guard,
        steering=steering,
        ids=ids,
        words=harmful_words(manifest.safety, guard) if known else "allow",
        by_words=by_words,
        removed=((),) * request.batch,
        notes=(*notes, *cuts, *_empty_concepts(tokenizer, guard, manifest.safety)),
    )


def _check_trained_for(scheduler: str, config: Mapping[str, Any]) -> None:
    """Refuse EDM's rescaling of what the network sees where the checkpoint was not trained with it.

    Raises:
        InvalidInput: it was not, and nothing of a picture would come out.
    """
    if family_of(scheduler).preconditioned and not str(config.get("_class_name")).startswith("EDM"):
        raise InvalidInput(
            "EDM schedulers are for checkpoints trained with EDM's preconditioning, and this one names another",
            value=scheduler,
            hint="use another scheduler, or export with --scheduler if it was trained so",
        )


def _plain(arguments: CallArguments) -> CallArguments:
    """Texts as plain ``str``, whatever object they came as."""
    safety, concept = arguments.safety, arguments.safety_concept
    if is_text(safety):
        safety = plain_text("safety", safety)
    if concept is not None and (is_text(concept) or is_listed(concept)):
        concept = texts("safety_concept", concept)
    method, scheduler = arguments.method, arguments.scheduler
    return replace(
        arguments,
        safety=safety,
        safety_concept=concept,
        method=None if method is None else plain_text("method", method),
        scheduler=None if scheduler is None else plain_text("scheduler", scheduler),
    )


def knows_adaptive(bundle: Bundle) -> bool:
    """Whether the bundle's ``advance`` graphs know the adaptive method; those of bundles before version 3 do not."""
    return _knows(bundle, ADAPTIVE)


def _knows(bundle: Bundle, method: str) -> bool:
    needed = METHODS[method].port
    return not needed or any(port.name == needed for port in bundle.graph("advance").inputs)


def _steered(
    schedule: Schedule,
    reference: Schedule | None,
    guard: Guard,
    request: Request,
) -> tuple[Steering, tuple[CallNote, ...]]:
    """The run's steering, and a note where it is weaker than the weakest preset's."""
    scale = request.guidance_scale
    if guard.config is None:
        return steering_off(schedule, scale), ()
    steering = steer(
        schedule,
        reference,
        guard.config,
        guidance_scale=scale,
        method=guard.method,
        counted=guard.counted,
    )
    if not METHODS[guard.method].warms_up or (guard.preset is not None and not guard.counted):
        return steering, ()
    notes = []
    nearest = _nearest_preset(guard.config)
    meant = steer(schedule, reference, PRESETS[nearest], guidance_scale=scale, method=PUBLISHED)
    if steering.share < meant.share - _SEEN:
        text = (
            f"safety acts over {steering.share:.0%} of this run, {nearest!r} would over {meant.share:.0%}: "
            f"sld_warmup_steps={guard.config.sld_warmup_steps} counts evaluations, of which there are "
            f"{schedule.evaluations}"
        )
        notes.append(CallNote(kind="short share", text=text))
    weak = PRESETS["weak"]
    if guard.config.sld_guidance_scale < weak.sld_guidance_scale:
        text = (
            f"sld_guidance_scale={guard.config.sld_guidance_scale:g} is weaker than the weakest preset's "
            f"{weak.sld_guidance_scale:g}"
        )
        notes.append(CallNote(kind="weak scale", text=text))
    return steering, tuple(notes)


#: Shares of a run that differ by less are not worth a note.
_SEEN = 0.005


def _nearest_preset(config: SafetyConfig) -> str:
    """The strongest preset whose guidance scale is not above the configuration's; *weak* where all are."""
    fitting = [
        name
        for name, preset in PRESETS.items()
        if preset.sld_guidance_scale <= config.sld_guidance_scale
    ]
    return fitting[-1] if fitting else "weak"


def _floor(
    schedule: Schedule, reference: Schedule | None, bundle: Safety, request: Request
) -> Steering | None:
    """What the policy's minimum would tell the loop on the same schedule."""
    if not has_floor(bundle.policy):
        return None
    return steer(
        schedule,
        reference,
        PRESETS[bundle.policy.minimum],
        guidance_scale=request.guidance_scale,
        method=PUBLISHED,
    )


def _empty_concepts(tokenizer: Tokenizer, guard: Guard, bundle: Safety) -> tuple[CallNote, ...]:
    """A note for each concept that holds no word, such as "."; under a policy with a minimum an error."""
    empty = [
        text
        for text in guard.concepts
        if text != bundle.concept and not tokenizer.is_word(tokenizer.encode_concept(text)[0]).any()
    ]
    if empty and has_floor(bundle.policy):
        raise PolicyError(
            "a safety concept holds no word, so nothing would be steered away from",
            value=empty,
            hint="describe what to suppress",
        )
    what = "a safety concept holds no word, so there is nothing to steer away from"
    return tuple(CallNote(kind="empty concept", text=what, words=(repr(text),)) for text in empty)


def _token_grid(
    tokenizer: Tokenizer, request: Request, concepts: tuple[str, ...]
) -> tuple[NDArray[np.int64], tuple[CallNote, ...]]:
    """Token ids ``[R, B, T]`` of every branch, and a note for each text that was cut."""
    prompts = tokenizer.encode(request.prompts, what="prompt")
    negatives = tokenizer.encode(request.negative_prompts, what="negative_prompt")
    rows = [negatives.ids, prompts.ids]
    for text in concepts:
        rows.append(np.broadcast_to(tokenizer.encode_concept(text), prompts.ids.shape))
    kinds: tuple[tuple[NoteKind, str, TokenBatch], ...] = (
        ("prompt cut", "prompt", prompts),
        ("negative prompt cut", "negative prompt", negatives),
    )
    notes = tuple(
        CallNote(
            kind=kind,
            text=f"was too long, its last {count} tokens were cut",
            about=about,
            index=index,
            of=len(batch.truncated),
        )
        for kind, about, batch in kinds
        for index, count in enumerate(batch.truncated)
        if count
    )
    return np.stack(rows), notes
