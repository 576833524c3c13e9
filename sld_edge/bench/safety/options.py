"""From the command's options to a job, and to the words that say what was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sld_edge.bench.options import whole
from sld_edge.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sld_edge.bench.safety.job import Job
    from sld_edge.bench.safety.prompts import PromptRow
    from sld_edge.bench.safety.scorers import Scorer
    from sld_edge.bench.safety.settings import Setting

Value = TypeVar("Value", int, float, str)


#: I2P with ten pictures a prompt has 47 030.
_MOST_PICTURES = 1_000_000


def job_from(bundle: Any, scorers: Sequence[Scorer], options: dict[str, Any]) -> Job:
    """Every option checked, but for what only the pipeline knows."""
    from sld_edge.bench.latency.case import size_from_text
    from sld_edge.bench.safety.job import Job

    shape = bundle.manifest.shapes[0]
    height, width = (
        size_from_text(options["size"]) if options["size"] else (shape.height, shape.width)
    )
    rows = _prompts(options)
    settings, run = _settings(bundle, rows, options)
    images = whole("--images-per-prompt", options["images_per_prompt"], least=1)
    if len(rows) * images > _MOST_PICTURES:
        raise InvalidInput(
            "too many pictures under one setting",
            value=len(rows) * images,
            hint=f"at most {_MOST_PICTURES}",
        )
    return Job(
        bundle=bundle.digest,
        bundle_name=bundle.manifest.source.name,
        prompts=tuple(rows),
        settings=tuple(settings),
        scorers=tuple(scorer.identity for scorer in scorers),
        height=height,
        width=width,
        images_per_prompt=images,
        seed=whole("--seed", options["seed"]),
        csv_settings=options["csv_settings"],
        batch=whole("--batch", options["batch"], least=1),
        engine=options["engine"],
        precision=options["precision"],
        **run,
    )


def _settings(
    bundle: Any, rows: Sequence[PromptRow], options: dict[str, Any]
) -> tuple[list[Setting], dict[str, Any]]:
    """The job's settings, and its own steps, scheduler and guidance scale, which a sweep leaves alone."""
    from sld_edge.bench.safety.settings import default_settings, settings_from
    from sld_edge.bench.safety.sweep import DEFAULT_STEPS, swept

    strengths = settings_from(
        options["settings"] or [",".join(default_settings(bundle))],
        concept=options["concept"],
    )
    steps: Sequence[int] = DEFAULT_STEPS if options["sweep"] else DEFAULT_STEPS[-1:]
    if options["steps"]:
        steps = _several("--steps", options["steps"], int, "whole numbers above 0")
    schedulers = [""]
    if options["scheduler"]:
        schedulers = _several("--scheduler", options["scheduler"], str, "names")
    scales = _several("--guidance-scale", options["guidance_scale"], float, "numbers above 0")
    if not options["sweep"]:
        axes: dict[str, Sequence[Any]] = {
            "steps": steps,
            "guidance_scale": scales,
            "scheduler": schedulers,
        }
        for name, values in axes.items():
            if len(values) > 1:
                raise InvalidInput(
                    f"--{name.replace('_', '-')} takes several values only in a sweep",
                    value=options[name],
                    hint="add --sweep",
                )
        return strengths, {name: values[0] for name, values in axes.items()}
    if any(row.guidance_scale is not None for row in rows):
        raise InvalidInput(
            "a sweep sets guidance scales, and the CSV's are to be honoured",
            hint="use --csv-settings ignore",
        )
    settings = swept(
        strengths,
        steps=steps,
        schedulers=schedulers,
        guidance_scales=scales,
        checkpoint=bundle.manifest.scheduler,
    )
    return settings, {}


def _several(name: str, text: str, kind: Callable[[str], Value], what: str) -> list[Value]:
    """An option's values, joined with commas.

    Raises:
        InvalidInput: one of them is empty, not of the kind, or a number that is not above 0.
    """
    words = [word.strip() for word in text.split(",")]
    try:
        values = [kind(word) for word in words]
    except ValueError:
        values = []
    if len(values) != len(words) or not all(
        value if isinstance(value, str) else value > 0 for value in values
    ):
        raise InvalidInput(f"{name} takes {what}, joined with commas", value=text)
    return values


def default_scorer(options: dict[str, Any]) -> str:
    """The exact detectors for the tiny world's own prompts, the bundle's head for all others."""
    from sld_edge.bench.safety.prompts import is_tinyworld

    return "tinyworld" if is_tinyworld(options["prompts"]) and not options["bias"] else "head"


def source_words(options: dict[str, Any]) -> str:
    """Which prompts were used."""
    words: str = options["prompts"]
    if options["bias"]:
        words = f"{', '.join(options['bias'])} over {options['groups']}"
    return f"{words}, benign: {options['benign']}" if options["benign"] else words


def csv_words(options: dict[str, Any]) -> str:
    """Whose seeds, sizes and guidance scales were used."""
    from sld_edge.bench.safety.prompts import is_tinyworld

    if not options["benign"] and (options["bias"] or is_tinyworld(options["prompts"])):
        return "seeds, size and guidance from this command"
    if options["csv_settings"] == "honour":
        return "the CSV's seeds, sizes and guidance scales are honoured where it has them"
    return "the CSV's seeds, sizes and guidance scales are ignored (--csv-settings ignore)"


def _prompts(options: dict[str, Any]) -> list[PromptRow]:
    from sld_edge.bench.safety.prompts import BENIGN, bias_prompts, prompts_from

    honour = options["csv_settings"] == "honour"
    limit = options["limit"]
    if options["bias"]:
        rows = bias_prompts(options["bias"], options["groups"])
    elif options["groups"]:
        raise InvalidInput("--groups needs --bias", hint='as --bias "{group} body"')
    else:
        rows = prompts_from(options["prompts"], limit=limit, honour=honour)
    if options["benign"]:
        if any(row.kind == BENIGN for row in rows):
            raise InvalidInput(
                "the prompt set has benign prompts already",
                value=options["prompts"],
                hint="leave --benign out, or use tinyworld:ambiguous,explicit",
            )
        rows += prompts_from(options["benign"], kind=BENIGN, limit=limit, honour=honour)
    return rows
