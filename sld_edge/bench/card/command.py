"""``sld-bench card``."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from sld_edge.errors import InvalidInput
from sld_edge.shell import PathParam, json_options, say

if TYPE_CHECKING:
    from sld_edge.bench.card.report import Part, Report
    from sld_edge.bench.card.settings import Settings

EPILOG = """\b
Examples:
  sld-bench card --json-file card.json --html card.html
  sld-bench card --time 12m --work models --json-file card.json      (models is kept and used again)
  sld-bench card --skip compile --skip model-check --html card.html
  sld-bench card --dry-run --json-file dry.json --html dry.html      (no card needed)

\b
Parts, in this order: machine, model, compare, kernels, tiny-check, model-check. Each has a share of the time; what one
leaves goes to those after it. Files are written anew whenever something was found, so a run that is cut off keeps
what it had. What is not installed is skipped by name.
Exit status: 0 something was measured and no check failed, 1 a part or a check failed, 10 nothing was measured,
130 interrupted, others as for sld-generate.
"""
#: Not a part, but a long piece of one.
_COMPILE = "compile"


@click.command("card", epilog=EPILOG)
@click.option("--dry-run", is_flag=True,
              help="Walk the whole way with tiny sizes, the CPU in the card's place.")  # fmt: skip
@click.option("--time", "time_text", default="8m", show_default=True, metavar="DURATION",
              help="For all parts together: 8m, 90s, 1h30m.")  # fmt: skip
@click.option("--skip", "skips", multiple=True, metavar="PART",
              help="A part to leave out, or compile for torch.compile; repeatable.")  # fmt: skip
@click.option("--checkpoint", type=PathParam(),
              help="Small trained checkpoint for tiny-check; the tiny world beside the package otherwise.")  # fmt: skip
@click.option("--work", type=PathParam(), metavar="FOLDER",
              help="Make the models here, keep them, use those that are here; else a temporary folder.")  # fmt: skip
@click.option("--steps", type=click.IntRange(2, 1000),
              help="Denoising steps of a compared picture, DDIM.  [default: 50; dry run: 2]")  # fmt: skip
@click.option("--repeats", type=click.IntRange(1, 100),
              help="Rounds of the comparison.  [default: 3; dry run: 1]")  # fmt: skip
@json_options
@click.option("--html", "html_file", type=PathParam(), help="Write one page.")
@click.option("-q", "--quiet", is_flag=True, help="No table and no progress.")
def main(
    *,
    dry_run: bool,
    time_text: str,
    skips: tuple[str, ...],
    checkpoint: Path | None,
    work: Path | None,
    steps: int | None,
    repeats: int | None,
    json_file: Path | None,
    html_file: Path | None,
    quiet: bool,
) -> None:
    """Measure this machine's card with whatever libraries are installed: no download, one report."""
    from sld_edge.bench.card.settings import PARTS, check_skips, seconds_from_text, settings_for
    from sld_edge.bench.card.table import lines_of
    from sld_edge.bench.extra import require
    from sld_edge.bench.pages import require_pages
    from sld_edge.bench.report_file import check_writable, json_bytes, write_report

    total = seconds_from_text(time_text)
    left_out = tuple(name for name in skips if name != _COMPILE)
    check_skips(left_out)
    if checkpoint is not None and not (checkpoint / "model_index.json").is_file():
        raise InvalidInput("no diffusers checkpoint here", value=str(checkpoint))
    require("psutil")
    if html_file is not None:
        require_pages()
    check_writable(json_file, html_file, work)
    given = {"steps": steps, "repeats": repeats}
    quiet = quiet or str(json_file) == "-"
    with _work_folder(work) as folder:
        settings = settings_for(
            dry_run=dry_run,
            checkpoint=str(_small_model(checkpoint)),
            work=str(Path(folder).resolve()),
            compiled=_COMPILE not in skips,
            **{name: value for name, value in given.items() if value is not None},
        )
        report = _new_report(settings, list(PARTS))

        def written() -> None:
            _save(report, json_file=json_file, html_file=html_file)

        try:
            _run_all(report, settings, left_out, total, quiet=quiet, written=written)
        finally:
            for part in report.parts:
                if part.status in ("waiting", "running"):
                    part.status, part.reason = "interrupted", "the run was interrupted before it"
            written()
            if json_file is not None and str(json_file) == "-":
                write_report(json_file, json_bytes(report))
    if not quiet:
        for line in lines_of(report):
            click.echo(line)
    sys.exit(report.exit_status)


def _save(report: Report, *, json_file: Path | None, html_file: Path | None) -> None:
    """Write both files whole; standard output gets its JSON at the end only."""
    from sld_edge.bench.report_file import json_bytes, write_report

    if json_file is not None and str(json_file) != "-":
        write_report(json_file, json_bytes(report))
    if html_file is not None:
        from sld_edge.bench.card.page import page_from_report

        write_report(html_file, page_from_report(report).encode())


def _run_all(
    report: Report,
    settings: Settings,
    left_out: tuple[str, ...],
    total: float,
    *,
    quiet: bool,
    written: Callable[[], None],
) -> None:
    import msgspec

    from sld_edge.bench.card.settings import NEEDS, Clock
    from sld_edge.bench.card.supervise import run_part

    clock, start = Clock(total), time.monotonic()
    written()
    for part in report.parts:
        limit = clock.end_of(part.name) - (time.monotonic() - start)
        reason = _skip_reason(report, part, left_out, NEEDS.get(part.name, ""), settings.models)
        if not reason and limit <= 0:
            reason = "no time was left"
        if reason:
            part.status, part.reason = "skipped", reason
        else:
            say(f"{part.name}: {part.title}", quiet=quiet)
            run_part(
                part,
                [part.name, msgspec.json.encode(settings).decode()],
                work=Path(settings.work),
                limit=limit,
                say=lambda text: say(f"  {text}", quiet=quiet),
                changed=written,
            )
            if part.name == "machine" and part.result:
                report.machine = part.result["machine"]
                report.device = part.result["device"]
            shown = f": {part.reason}" if part.reason else ""
            say(f"  {part.status} after {part.seconds:.1f} s{shown}", quiet=quiet)
        written()


def _skip_reason(
    report: Report, part: Part, left_out: tuple[str, ...], needed: str, models: Path
) -> str:
    """Why a part is not even begun; empty where it is."""
    if part.name in left_out:
        return "left out by --skip"
    no_card = report.part("machine").result.get("no_card", "")
    if no_card and part.name != "machine":
        return f"no card: {no_card}"
    if needed and report.part(needed).status != "done":
        made = models / "bundle" / "manifest.json"
        return "" if made.is_file() else f"it needs what {needed} makes, which is not there"
    return ""


def _new_report(settings: Settings, names: list[str]) -> Report:
    import msgspec

    from sld_edge.bench.card.report import DRY, Part, Report
    from sld_edge.bench.card.settings import PARTS
    from sld_edge.bench.report_file import made_now

    return Report(
        **made_now(),
        dry_run=settings.dry_run,
        device=DRY if settings.dry_run else "the card was not asked yet",
        settings=msgspec.to_builtins(settings),
        machine={},
        parts=[Part(name=name, title=PARTS[name][0]) for name in names],
        warnings=[DRY] if settings.dry_run else [],
    )


def _small_model(given: Path | None) -> Path | str:
    """The small model's folder, or an empty text where there is none."""
    if given is not None:
        return given.resolve()
    import sld_edge

    beside = Path(sld_edge.__file__).resolve().parent.parent / "models" / "tinyworld"
    return beside if (beside / "model_index.json").is_file() else ""


def _work_folder(given: Path | None) -> AbstractContextManager[str]:
    if given is None:
        return TemporaryDirectory(prefix="sld-bench-card-")
    given.mkdir(exist_ok=True)
    for leftover in given.glob("*/unfinished-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return nullcontext(str(given))
