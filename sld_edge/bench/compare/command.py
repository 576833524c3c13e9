"""``sld-bench compare``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from sld_edge.bench.compare.peers import BY_NAME, PEERS, PEERS_FOLDER, Peer
from sld_edge.errors import ImageFileError, InvalidInput
from sld_edge.shell import PathParam, json_options, say
from sld_edge.writing import write_new

if TYPE_CHECKING:
    from sld_edge.bench.compare.interleave import Outcome
    from sld_edge.bench.compare.task import Task
    from sld_edge.bundle import Bundle

EPILOG = """\b
Examples:
  sld-bench compare checkpoint bundle
  sld-bench compare checkpoint bundle --steps 3 --repeats 3 --json-file comparison.json
  sld-bench compare checkpoint bundle --peer ours --peer safe-eager

\b
A peer that is not installed, does not finish in time or does not suit this processor is skipped by name;
`make peers` installs them. Pictures are compared as they were decoded, before a checker withholds them. A peer
whose picture does not match its reference's, or is flat, is marked and does not count.
"""
#: Medium with the safety term acting from the first step, so that short runs see it.
SAFETY = {
    "sld_guidance_scale": 1000.0,
    "sld_warmup_steps": 0,
    "sld_threshold": 0.01,
    "sld_momentum_scale": 0.3,
    "sld_mom_beta": 0.4,
}
#: Options that are the task's.
_OF_TASK = ("prompt", "steps", "guidance_scale", "threads", "precision", "seed")
#: A worker needs about the weights twice over while it loads, and the decoder's activations.
_ROOM = 2.2


@click.command("compare", epilog=EPILOG)
@click.argument("checkpoint", type=PathParam())
@click.argument("bundle", type=PathParam())
@click.option("--steps", default=3, show_default=True, help="Denoising steps, DDIM.")
@click.option(
    "--repeats", default=3, show_default=True, help="Rounds; a picture of each peer in each."
)
@click.option(
    "--prompt", default="a photograph of a lighthouse on a rocky coast", show_default=True
)
@click.option("--guidance-scale", default=7.5, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the noise and of the peers' order.")
@click.option("--threads", default=0, help="For all alike; 0 uses every core.")
@click.option("--compute-precision", "--precision", "precision",
              type=click.Choice(["fp32", "bf16", "int8"]), default="fp32", show_default=True,
              help="Arithmetic that ours and OpenVINO may use.")  # fmt: skip
@click.option("--peer", "names", multiple=True, type=click.Choice(list(BY_NAME)),
              help="Only these; repeatable. Named ones are not skipped for a lack of bf16.")  # fmt: skip
@click.option("--limit", default=900.0, show_default=True,
              help="Seconds for one picture, loading and compiling included.")  # fmt: skip
@click.option("--peers-folder", default=PEERS_FOLDER, show_default=True,
              type=PathParam(), help="Where `make peers` put the environments.")  # fmt: skip
@json_options
@click.option("--html", "html_file", type=PathParam(), help="Write one page.")
@click.option(
    "--pictures",
    type=PathParam(),
    help="Folder for the last round's pictures, as decoded; existing ones are never overwritten.",
)
def main(checkpoint: Path, bundle: Path, **options: Any) -> None:
    """Time CHECKPOINT through other pipelines and BUNDLE, made from it, through this one.

    All make the same picture from the same weights, text, noise, scheduler and threads, in turns.
    """
    from sld_edge.bench.compare.common import task_for
    from sld_edge.bench.compare.interleave import Turns, run_in_turns
    from sld_edge.bench.extra import require
    from sld_edge.bench.live import LiveLine
    from sld_edge.bench.machine import ActivityMeter
    from sld_edge.bench.originals import require_originals
    from sld_edge.bench.pages import require_pages
    from sld_edge.bench.report_file import check_writable
    from sld_edge.bundle import Bundle

    if options["steps"] < 1 or options["repeats"] < 1:
        raise InvalidInput("--steps and --repeats must be 1 or more")
    require("psutil")
    if options["html_file"]:
        require_pages()
    check_writable(options["json_file"], options["html_file"])
    if not (checkpoint / "model_index.json").is_file():
        raise InvalidInput("no diffusers checkpoint here", value=str(checkpoint))
    opened = Bundle.open(bundle)
    require_originals(opened.manifest.safety)
    peers, skipped = _chosen(options["names"])
    size = sum(file.size for file in opened.manifest.files.values())
    meter = ActivityMeter()
    with TemporaryDirectory(prefix="sld-bench-") as folder, LiveLine(quiet=False) as live:
        task = task_for(
            opened,
            checkpoint,
            Path(folder),
            safety=SAFETY,
            **{name: options[name] for name in _OF_TASK},
        )
        turns = Turns(
            repeats=options["repeats"],
            limit=options["limit"],
            room=int(size * _ROOM),
            seed=options["seed"],
            peers_folder=options["peers_folder"],
        )
        outcomes = [*run_in_turns(peers, task, turns, live.say), *skipped]
    report = _report(opened, task, outcomes, asdict(meter.read()))
    _save(report, outcomes, options)


def _chosen(names: Sequence[str]) -> tuple[list[Peer], list[Outcome]]:
    """The peers to run, and those this processor cannot run in sensible time."""
    from sld_edge.bench.compare.interleave import Outcome
    from sld_edge.bench.machine import describe_machine

    if names:
        return [peer for peer in PEERS if peer.name in names], []
    sets = describe_machine()["instruction_sets"]
    has_bf16 = any("bf16" in name for name in sets)
    run = [peer for peer in PEERS if has_bf16 or not peer.bf16]
    why = "this processor has no bf16 arithmetic; name it with --peer to insist"
    return run, [Outcome(peer=peer, skipped=why) for peer in PEERS if peer not in run]


def _report(
    bundle: Bundle, task: Task, outcomes: Sequence[Outcome], activity: dict[str, Any]
) -> dict[str, Any]:
    from sld_edge.bench.compare.report import FORMAT, VERSION, contrast, noise_warnings, result_of
    from sld_edge.bench.compare.targets import targets_of
    from sld_edge.bench.machine import Activity, describe_machine
    from sld_edge.bench.report_file import made_now
    from sld_edge.bench.targets import not_promised_of, unet_bytes_of

    entries = result_of(outcomes, task.precision)
    manifest = bundle.manifest
    not_promised = not_promised_of(
        unet_bytes_of(manifest), manifest.precision, task.height, task.width
    )
    return {
        "format": FORMAT,
        "version": VERSION,
        **made_now(),
        "bundle": {"name": bundle.manifest.source.name, "digest": bundle.digest,
                   "precision": bundle.manifest.precision},
        "machine": describe_machine(),
        "activity": activity,
        "steps": task.steps,
        "size": f"{task.height}x{task.width}",
        "threads": task.threads,
        "precision": task.precision,
        "prompt": task.prompt,
        "guidance_scale": task.guidance_scale,
        "safety": SAFETY,
        "peers": entries,
        "not_promised": not_promised,
        "targets": [target.to_json() for target in targets_of(entries, not_promised)],
        "safe_against_off_psnr_db": contrast(outcomes, "ours", "ours-off"),
        "warnings": [*Activity(**activity).warnings(), *noise_warnings(entries)],
    }  # fmt: skip


def _save(report: dict[str, Any], outcomes: Sequence[Outcome], options: dict[str, Any]) -> None:
    from sld_edge.bench.compare.page import page_from_report
    from sld_edge.bench.compare.table import print_comparison
    from sld_edge.bench.report_file import json_bytes, write_report
    from sld_edge.bench.tables import result_console

    if file := options["json_file"]:
        write_report(file, json_bytes(report))
    if page := options["html_file"]:
        write_report(page, page_from_report(report).encode())
    if str(file) != "-":
        print_comparison(report, result_console())
    if options["pictures"]:
        try:
            _save_pictures(outcomes, options["pictures"])
        except OSError as error:
            raise ImageFileError(f"cannot write {error.filename} ({error.strerror})") from None


def _save_pictures(outcomes: Sequence[Outcome], folder: Path) -> None:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for outcome in outcomes:
        if outcome.pictures:
            buffer = io.BytesIO()
            Image.fromarray(outcome.pictures[-1]).save(buffer, format="PNG")
            say(str(write_new(folder, outcome.peer.name, ".png", buffer.getvalue())))
