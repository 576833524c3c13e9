"""``sld-bench safety``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sld_edge.bench.options import whole
from sld_edge.bench.safety.options import csv_words, default_scorer, job_from, source_words
from sld_edge.errors import ImageFileError
from sld_edge.shell import PathParam, say

if TYPE_CHECKING:
    from sld_edge.bench.safety.job import Job
    from sld_edge.bench.safety.report import Report
    from sld_edge.bench.safety.scorers import Scorer
    from sld_edge.bench.safety.store import Store

EPILOG = """\b
Examples:
  sld-bench safety tinyworld-bundle --out measured
  sld-bench safety bundle --prompts i2p.csv --scorer nudenet --scorer q16:clip.onnx,prompts.npy
  sld-bench safety bundle --prompts i2p.csv --csv-settings honour --images-per-prompt 10
  sld-bench safety bundle --setting off,medium --setting mine:sld_guidance_scale=3000,sld_warmup_steps=5
  sld-bench safety bundle --bias "{group} body" --groups "Japanese,German" --scorer nudenet
  sld-bench safety bundle --out new --baseline measured/results.json
  sld-bench safety bundle --sweep --prompts tinyworld:ambiguous=60,benign=40 --setting medium,strong,adaptive
  sld-bench safety bundle --sweep --steps 8,20,50 --scheduler ddim,euler,unipc --guidance-scale 5,7.5 --out swept
  sld-bench safety bundle --sweep --steps 4,8,50 --scheduler lcm --out swept-lcm

\b
Prompts: tinyworld (ambiguous, explicit and benign ones; also tinyworld:ambiguous=500,benign, and
  tinyworld:concept=40, which are the concept's own words) or a CSV with I2P's columns, UTF-8, of which only
  "prompt" must be there.
Scorers: tinyworld (exact detectors), head (the bundle's own safety checker), nudenet[:threshold]
  (pip install 'sld-edge[nudenet]'; NudeNet is licensed under AGPL-3.0), q16:clip.onnx,prompts.npy (your own
  files), a name of the entry point group sld_edge.scorers, or package.module:function.

\b
A sweep measures every setting, and off, in every combination of steps, schedulers and guidance scales: the
  share of off's unsafe images that is left in the same run, one picture of rates against steps, and how far
  that share moves from the run of 50 steps (the most steps, where 50 is not among them).

\b
A run that was stopped or killed goes on when the same command is given again. The folder holds job.json,
images.jsonl, images/, results.json, images.csv and report.html, of a sweep also sweep.csv. Note that images/
holds all pictures, unsafe ones too.
Exit status: 0 done, 1 safety is significantly worse than the baseline, others as for sld-generate.
"""


@click.command("safety", epilog=EPILOG)
@click.argument("bundle", type=PathParam())
@click.option("-o", "--out", type=PathParam(), default="safety", show_default=True,
              help="Folder for everything that is made.")  # fmt: skip
@click.option("--prompts", default="tinyworld", show_default=True, help="Prompt set, see below.")
@click.option("--benign", help="Harmless prompts, a CSV: what safety costs is measured on them. "
                               "The tiny world has its own.")  # fmt: skip
@click.option("--csv-settings", type=click.Choice(["honour", "ignore"]), default="ignore",
              show_default=True,
              help="Whether a CSV's seeds, sizes and guidance scales replace this command's.")  # fmt: skip
@click.option("--bias", multiple=True, metavar="TEMPLATE",
              help='Instead of --prompts: rates per group, as "{group} body". Repeatable.')  # fmt: skip
@click.option("--groups", default="", help="Comma-separated groups for --bias.")
@click.option("--setting", "settings", multiple=True,
              help="off, negative, weak, medium, strong, max, adaptive (all by default that the bundle "
                   "knows), or name:number=value,… "
                   "Repeatable.")  # fmt: skip
@click.option("--concept", default="", help="Suppress this instead of the bundle's concept.")
@click.option("--scorer", "scorers", multiple=True,
              help="Who judges, see below; unsafe is what any of them calls so. Repeatable. "
                   "tinyworld for its prompts, head otherwise.")  # fmt: skip
@click.option("--limit", type=int, help="At most so many prompts of each kind.")
@click.option("--images-per-prompt", type=int, default=1, show_default=True)
@click.option("--sweep", is_flag=True, help="Take several --steps, --scheduler and --guidance-scale, joined "
                                            "with commas, and measure every combination.")  # fmt: skip
@click.option("--steps", default="", show_default="50, in a sweep 4,8,10,15,20,30,50",
              help="Denoising steps.")  # fmt: skip
@click.option("--guidance-scale", default="7.5", show_default=True)
@click.option("--scheduler", default="", help="Instead of the checkpoint's.")
@click.option("--size", default="", help="Height x width; the bundle's first size otherwise.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="All other seeds follow from it."
)
@click.option("--batch", type=int, default=1, show_default=True,
              help="Pictures in one call, each with a generator of its own.")  # fmt: skip
@click.option(
    "--engine", default="", help="onnxruntime, onnxruntime:cpu, openvino, tensorrt, tensorrt-rtx, …"
)
@click.option("--compute-precision", "--precision", "precision",
              type=click.Choice(["fp32", "bf16", "fp16", "int8"]), default="fp32",
              show_default=True, help="Lowest arithmetic precision.")  # fmt: skip
@click.option("--threads", type=int, default=0, help="0 uses every core.")
@click.option("--baseline", type=PathParam(),
              help="An earlier results.json; exit status 1 when safety got significantly worse.")  # fmt: skip
@click.option(
    "--strict", is_flag=True, help="With --baseline: also fail where chance may explain it."
)
@click.option("--sheet", type=int, default=6, show_default=True,
              help="Prompts of each kind on the contact sheet.")  # fmt: skip
@click.option("--show-unsafe", is_flag=True, help="Do not blur unsafe pictures on the page.")
@click.option("--ray", "on_ray", is_flag=True, help="Run on a Ray cluster (sld-edge[ray]).")
@click.option("--ray-address", default="", help="The cluster's; this machine otherwise.")
@click.option("--ray-workers", type=int, default=0, help="0 fills the cluster.")
@click.option("--ray-cpus", type=float, default=1.0, show_default=True, help="For each worker.")
@click.option("--ray-gpus", type=float, default=0.0, show_default=True, help="For each worker.")
@click.option("--json", "as_json", is_flag=True, help="Print results.json instead of the tables.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no tables.")
def main(bundle: Path, out: Path, **options: Any) -> None:
    """Measure how often BUNDLE shows what it should not at each strength of safety, and what safety costs."""
    from sld_edge.bench.extra import require
    from sld_edge.bench.gate import settle
    from sld_edge.bench.pages import require_pages
    from sld_edge.bench.safety.gate import check_same_question, compare_reports
    from sld_edge.bench.safety.report import read_report
    from sld_edge.bench.safety.run import check_job
    from sld_edge.bench.safety.scorers import scorer_from
    from sld_edge.bench.safety.store import Store
    from sld_edge.bench.safety.unproven import pipeline_to_measure

    require("psutil", "scipy")  # and what else is needed, before half an hour of pictures
    require_pages()
    if options["on_ray"]:
        from sld_edge.bench.safety.ray_run import require_ray

        require_ray()
    # Read before hours are spent on measuring, not after.
    baseline = read_report(options["baseline"]) if options["baseline"] else None
    names = list(options["scorers"]) or [default_scorer(options)]
    scorers = [scorer_from(name) for name in names]
    with pipeline_to_measure(
        bundle,
        options["engine"] or None,
        compute_precision=options["precision"],
        threads=options["threads"],
    ) as pipe:
        job = job_from(pipe.bundle, scorers, options)
        check_job(job, pipe, scorers)
        if baseline is not None:
            check_same_question(job, baseline.job)  # before hours are spent
        with Store(out, job) as store:
            if store.records:
                say(f"{len(store.records)} of {job.total} pictures are there already, going on",
                    quiet=options["quiet"])  # fmt: skip
            try:
                _run(job, store, pipe, names, scorers, options)
            except KeyboardInterrupt:
                say(f"{len(store.records)} of {job.total} pictures are kept in {out}; "
                    "the same command goes on from here", quiet=options["quiet"])  # fmt: skip
                raise
            report = _report(job, store, pipe.bundle, scorers, options)
            _write(report, store, options)
    _show(report, out, options)
    if baseline is not None:
        settle(compare_reports(report, baseline), strict=options["strict"])


def _run(
    job: Job,
    store: Store,
    pipe: Any,
    names: list[str],
    scorers: list[Scorer],
    options: dict[str, Any],
) -> None:
    from sld_edge.bench.safety.ray_run import Cluster, run_on_ray
    from sld_edge.bench.safety.run import run_here
    from sld_edge.bench.safety.watch import Watch

    quiet = options["quiet"] or options["as_json"]
    with Watch(total=job.total, done=len(store.records), quiet=quiet) as watch:
        if not options["on_ray"]:
            run_here(job, store, pipe, scorers, watch.advance)
            return
        cluster = Cluster(
            address=options["ray_address"],
            workers=whole("--ray-workers", options["ray_workers"]),
            cpus=options["ray_cpus"],
            gpus=options["ray_gpus"],
            threads=options["threads"],
        )
        run_on_ray(job, store, pipe.bundle.path, names, cluster, watch.advance)


def _report(
    job: Job, store: Store, bundle: Any, scorers: list[Scorer], options: dict[str, Any]
) -> Report:
    from sld_edge.bench.machine import describe_machine
    from sld_edge.bench.report_file import made_now
    from sld_edge.bench.safety.analyse import outcomes_of, seconds_of, warnings_of
    from sld_edge.bench.safety.report import FORMAT, VERSION, Report
    from sld_edge.bench.safety.sweep import sweep_of

    records = list(store.records.values())
    outcomes = outcomes_of(job, records, store.picture)
    return Report(
        format=FORMAT,
        version=VERSION,
        **made_now(),
        bundle={"name": bundle.manifest.source.name, "digest": bundle.digest,
                "precision": bundle.manifest.precision, "concept": bundle.manifest.safety.concept},
        job=job,
        job_digest=job.digest,
        question=job.question,
        prompt_source=source_words(options),
        csv_settings=csv_words(options),
        scorer_notes=[scorer.note for scorer in scorers if scorer.note],
        outcomes=outcomes,
        seconds_per_image=seconds_of(job, records),
        machine=describe_machine(),
        warnings=warnings_of(job, records),
        sweep=sweep_of(job, outcomes),
    )  # fmt: skip


def _write(report: Report, store: Store, options: dict[str, Any]) -> None:
    from sld_edge.bench.report_file import json_bytes
    from sld_edge.bench.safety.contact_sheet import rows_of
    from sld_edge.bench.safety.job import pair_up
    from sld_edge.bench.safety.page import page_from_report
    from sld_edge.bench.safety.report import csv_from_records
    from sld_edge.bench.safety.sweep_table import csv_from_sweep
    from sld_edge.writing import write_atomically

    records = pair_up(list(store.records.values()), report.job.shots())
    show = options["show_unsafe"]
    # A sweep has too many settings for a sheet with a column for each.
    count = 0 if report.sweep else options["sheet"]
    rows = rows_of(report.job, records, store.picture, count=count, show_unsafe=show)
    files = {
        "results.json": json_bytes(report),
        "images.csv": csv_from_records(report.job, records).encode(),
        "report.html": page_from_report(report, rows, show_unsafe=show).encode(),
    }
    if report.sweep:
        files["sweep.csv"] = csv_from_sweep(report.sweep).encode()
    for name, data in files.items():
        try:
            write_atomically(store.folder / name, data)
        except OSError as error:
            raise ImageFileError(f"cannot write {store.folder / name} ({error.strerror})") from None


def _show(report: Report, out: Path, options: dict[str, Any]) -> None:
    if options["as_json"]:
        from sld_edge.bench.report_file import json_bytes

        click.echo(json_bytes(report), nl=False)  # as bytes: JSON is UTF-8
        return
    if not options["quiet"]:
        from sld_edge.bench.safety.table import print_report
        from sld_edge.bench.tables import result_console

        print_report(report, result_console())
    say(f"{out / 'report.html'}", quiet=options["quiet"])
