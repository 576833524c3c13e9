"""A record as the text that other Stable Diffusion tools read: the notation that began with stable-diffusion-webui."""

from __future__ import annotations

import json
from typing import Any

from sld_edge.runtime.methods import PUBLISHED
from sld_edge.runtime.schedulers.names import scheduler_labels


def sampler_label(name: str) -> str:
    """A scheduler's name as people read it: ``dpmpp_2m_karras`` is DPM++ 2M Karras."""
    labels = scheduler_labels()
    base = max((one for one in labels if f"{name}_".startswith(f"{one}_")), key=len, default="")
    rest = [word.capitalize() for word in name.removeprefix(base).split("_") if word]
    return " ".join([*([labels[base]] if base else []), *rest])


def parameters_from_record(record: dict[str, Any]) -> str:
    """Prompt, negative prompt and settings, one line for each; a text may have lines of its own.

    Args:
        record: One of :meth:`SafeOutput.records`.
    """
    fields: dict[str, Any] = {
        "Steps": record["steps"],
        "Sampler": sampler_label(record["scheduler"]),
        "Eta": record["scheduler_config"].get("eta"),
        "CFG scale": record["guidance_scale"],
        "Seed": record["seed"],
        # Another place in the seed's stream: without it the seed alone would promise another picture.
        "Seed offset": record.get("seed_offset") or None,
        "Size": f"{record['width']}x{record['height']}",
        "Model": record["bundle"]["name"],
        "RNG": {"cpu": "CPU", "cuda": "GPU"}.get(record["seed_device"], record["seed_device"]),
        **_batch_fields(record),
        **_safety_fields(record["safety"]),
        "Version": f"sld-edge {record['sld_edge']}",
    }
    if record["nsfw_detected"] is not None:
        fields["Safety head"] = "flagged" if record["nsfw_detected"] else "clear"
    settings = ", ".join(
        f"{name}: {_quoted(value)}" for name, value in fields.items() if value is not None
    )
    lines = [record["prompt"]]
    if record["negative_prompt"]:
        lines.append(f"Negative prompt: {record['negative_prompt']}")
    return "\n".join([*lines, settings])


def _batch_fields(record: dict[str, Any]) -> dict[str, Any]:
    """Pictures of one call may have one seed; these tell them apart."""
    if record["batch_size"] == 1:
        return {}
    return {"Batch size": record["batch_size"], "Batch pos": record["image_index"]}


def _safety_fields(safety: dict[str, Any]) -> dict[str, Any]:
    if safety["preset"] == "off":
        return {"SLD": "off"}
    method = safety.get("method", PUBLISHED)
    return {
        "SLD": safety["preset"] or "custom",
        "SLD method": None if method == PUBLISHED else method,
        # Of some methods' records some of these are absent.
        "SLD scale": safety.get("guidance_scale"),
        "SLD warmup": safety.get("warmup_steps"),
        "SLD threshold": safety.get("threshold"),
        "SLD momentum": safety["momentum_scale"],
        "SLD beta": safety["mom_beta"],
        "SLD concept": "; ".join(safety["concepts"]),
    }


def _quoted(value: Any) -> str:
    """Text, or a number with every digit that tells it from the next one; quoted where a comma would end it."""
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return json.dumps(text, ensure_ascii=False) if set(text) & set(",:\n") else text
