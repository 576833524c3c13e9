"""A call under a policy, resolved and judged as the pipeline does it, without networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sld_edge.manifest import Safety
from sld_edge.runtime.policy import check_policy, has_floor
from sld_edge.runtime.safety import PRESETS, Guard, resolve_guard
from sld_edge.runtime.schedulers import build_schedule
from sld_edge.runtime.steering import Steering, reference_schedule, steer

CONFIG: dict[str, Any] = json.loads(
    Path("models/tinyworld/scheduler/scheduler_config.json").read_text("utf-8")
)


def resolved(
    bundle: Safety,
    asked: Any = None,
    *,
    steps: int = 50,
    scheduler: str = "ddim",
    guidance: float = 7.5,
    negative: str = "",
    method: Any = None,
    concepts: Any = None,
    own: dict[str, Any] | None = None,
    **sld: Any,
) -> tuple[Guard, Steering, Steering]:
    """What was asked for, the accepted run and the floor's, on the same schedule."""
    schedule = build_schedule(scheduler, CONFIG, steps=steps, **(own or {}))
    reference = reference_schedule(scheduler, CONFIG)
    guard = resolve_guard(asked, sld, concepts, method, bundle=bundle)
    assert guard.config is not None
    steering = steer(
        schedule,
        reference,
        guard.config,
        guidance_scale=guidance,
        method=guard.method,
        counted=guard.counted,
    )
    least = PRESETS.get(bundle.policy.minimum, guard.config)
    floor = steer(schedule, reference, least, guidance_scale=guidance, method="sld")
    check_policy(
        bundle,
        guard,
        steering,
        floor if has_floor(bundle.policy) else None,
        scheduler=schedule.name,
        steps=schedule.steps,
        own_levels=bool(own),
        guidance_scale=guidance,
        negative_prompts=(negative,),
    )
    return guard, steering, floor
