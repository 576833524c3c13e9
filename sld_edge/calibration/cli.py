"""``sld-calibrate``: a bundle → a bundle that may also compute in 8 bits."""

from __future__ import annotations

import json
from typing import Any

import click
import msgspec

from sld_edge import __version__
from sld_edge.bundling.stages import Stages
from sld_edge.calibration.config import NOISE_BUDGET, CalibrationConfig
from sld_edge.manifest import Int8
from sld_edge.shell import OneLineCommand, PathParam, say

EPILOG = """\b
Examples:
  sld-calibrate bundle bundle-int8
  sld-calibrate bundle bundle-int8 --prompts our-prompts.txt --steps 25
  sld-calibrate bundle bundle-int8 --pictures 3 --samples 2 --compared 2 --steps 10   (quicker, sees less)
  sld-generate bundle-int8 "a castle by a lake" --compute-precision int8

\b
The UNet's convolutions, linear layers and self-attention compute in 8 bits on CPUs, with OpenVINO. Needs no PyTorch.
Exit status: 0 done, 2 wrong input, 4 bundle damaged, 7 engine failed, 8 package missing, 9 cannot write,
11 safety would be weaker in 8 bits (nothing is written), 12 not enough memory, 130 interrupted.
"""


@click.command(cls=OneLineCommand, epilog=EPILOG, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="sld-calibrate")
@click.argument("bundle", type=PathParam())
@click.argument("out", type=PathParam())
@click.option("--prompts", type=PathParam(dir_okay=False), metavar="FILE",
              help="Prompts to calibrate on, one a line; a short neutral list otherwise. The bundle's concept "
                   "is always among them.")  # fmt: skip
@click.option("--pictures", default=0, help="Only the first so many prompts; 0 takes all.")
@click.option(
    "--compared", default=4, show_default=True, help="Pictures that the result is compared on."
)
@click.option("--steps", default=20, show_default=True, help="Denoising steps of every picture.")
@click.option("--samples", default=4, show_default=True,
              help="Network evaluations that every block's sensitivity is measured on.")  # fmt: skip
@click.option("--noise-budget", default=NOISE_BUDGET, show_default=True,
              help="Most noise that rounding may add to the safety direction, relative to its power; blocks "
                   "beyond it stay in higher precision.")  # fmt: skip
@click.option("--threads", default=0, help="CPU threads; 0 uses every core.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def main(as_json: bool, quiet: bool, **options: Any) -> None:
    """Calibrate BUNDLE and write a copy to OUT that may also compute in 8 bits, where a call allows it.

    The copy is compared with the full precision on prompts of its own; where safety would act less, nothing is
    written.
    """
    config = CalibrationConfig(**options)
    from sld_edge.calibration.calibrate import calibrate_bundle

    stages = Stages(quiet=quiet or as_json)
    bundle = calibrate_bundle(config, stage=stages)
    graphs = {g.int8.file: g.int8 for g in bundle.manifest.graphs if isinstance(g.int8, Int8)}
    if as_json:
        report = {
            "bundle": str(config.out),
            "digest": bundle.digest,
            "graphs": msgspec.to_builtins(graphs),
            "seconds": stages.seconds,
        }
        click.echo(json.dumps(report))
        return
    for file, int8 in graphs.items():
        kept = f"all but {', '.join(int8.kept)}" if int8.kept else "in all blocks"
        say(f"{file}: {len(int8.layers)} layers in 8 bits, {kept}", quiet=quiet)
        for proof in int8.proofs:
            word = "at least" if proof.at_least else "at most"
            say(f"  {proof.name:<20} {proof.worst:8.3f}   {word} {proof.limit:g}", quiet=quiet)
    say("these bound how SLD acts, not how many pictures are unsafe, and every call in 8 bits is told so until you\n"
        "compare that, with 200 prompts or more:\n"
        f"  sld-bench safety {config.out} --prompts YOURS --setting strong --out full\n"
        f"  sld-bench safety {config.out} --prompts YOURS --setting strong --precision int8 --out int8\n"
        f"  sld-bench precision {config.out} SHOWN --full full/results.json --low int8/results.json",
        quiet=quiet)  # fmt: skip
    click.echo(str(config.out))


if __name__ == "__main__":
    main()
