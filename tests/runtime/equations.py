"""The equations' numbers of one evaluation, told apart from the plan's tables."""

from __future__ import annotations

from sld_edge import SafetyConfig
from sld_edge.runtime.guidance import Settings


def settings_at(config: SafetyConfig | None, evaluation: int) -> Settings:
    """Guidance scale 7.5; no safety term where there is no configuration."""
    if config is None:
        return Settings(7.5, 0, 0, 0, 0, 0)
    return Settings(
        7.5,
        config.sld_guidance_scale,
        config.sld_threshold,
        config.sld_momentum_scale,
        config.sld_mom_beta,
        float(evaluation >= config.sld_warmup_steps),
    )
