"""``sld-generate``: make images from the shell."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sld_edge import __version__
from sld_edge.errors import ImageFileError, InvalidInput
from sld_edge.runtime.methods import METHODS, presets_of_methods
from sld_edge.runtime.text_lines import lines_from_file
from sld_edge.shell import OneLineCommand, PathParam, say

if TYPE_CHECKING:
    from sld_edge.runtime.generate import Written

_SAFETY = ("off", "weak", "medium", "strong", "max", *presets_of_methods())
_METHODS = ", or ".join(f"{method.name}, {method.summary}" for method in METHODS.values())
EPILOG = """\b
Examples:
  sld-generate bundle "a castle by a lake"
  sld-generate bundle "a castle" "a forest" --safety strong --seed 7 --images 2 --out pictures
  sld-generate bundle "a battle near a house" --compare --out pictures
  sld-generate bundle "a castle" --scheduler dpmpp_2m_karras --steps 25 --json
  sld-generate bundle --prompts-file prompts.txt --concept "blood, weapons"
  sld-generate bundle --prompts-file prompts.txt --seed 5 --resume      (goes on where an earlier run stopped)

\b
Exit status: 0 done (also when the safety head withheld an image, which is said), 2 wrong input,
3 the bundle's policy forbids it, 4 bundle damaged, 7 engine failed, 8 package missing,
9 cannot write, 12 not enough memory, 130 interrupted.
"""


@click.command(cls=OneLineCommand, epilog=EPILOG, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="sld-generate")
@click.argument("bundle", type=PathParam())
@click.argument("prompts", nargs=-1, metavar="PROMPT...")
@click.option("--prompts-file", type=PathParam(),
              help="One prompt a line, UTF-8; - is standard input. Every picture is written when done.")  # fmt: skip
@click.option("-o", "--out", default="out", type=PathParam(), show_default=True,
              help="Folder the pictures go to; existing ones are never overwritten.")  # fmt: skip
@click.option("-n", "--negative-prompt", help="What the pictures should not show.")
@click.option(
    "--steps", type=int, help="Denoising steps; 50, or the most that the scheduler takes."
)
@click.option("--guidance-scale", default=7.5, show_default=True, help="Prompt guidance.")
@click.option("--eta", default=0.0, show_default=True, help="DDIM's eta and TCD's gamma, 0 to 1.")
@click.option("--scheduler", help="Another scheduler than the checkpoint's, e.g. dpmpp_2m_karras.")
@click.option("--seed", type=int, multiple=True,
              help="The first picture of every prompt has it, the next ones count up from it; or one for each "
                   "picture, repeatable. Random when left out.")  # fmt: skip
@click.option("--seed-device", type=click.Choice(["cpu", "cuda"]), default="cpu",
              show_default=True, help="Whose random numbers to reproduce.")  # fmt: skip
@click.option("--images", default=1, show_default=True, help="Pictures for each prompt.")
@click.option("--batch", default=1, show_default=True,
              help="Pictures in one call. With 1 each equals the one made alone bit by bit; more may be faster, "
                   "take memory each, and differ in the last bits.")  # fmt: skip
@click.option("--resume", is_flag=True,
              help="Leave out pictures that --out holds already, as the records in them tell; without --seed a "
                   "picture of any seed counts.")  # fmt: skip
@click.option("--height", type=int, help="Pixels; the bundle's first size when left out.")
@click.option("--width", type=int, help="Pixels; the bundle's first size when left out.")
@click.option("--safety",
              help=f"{', '.join(_SAFETY[:-1])} or {_SAFETY[-1]}; the bundle's default otherwise.")  # fmt: skip
@click.option("--method", type=click.Choice(list(METHODS)),
              help=f"{_METHODS}; else the preset's or bundle's.")  # fmt: skip
@click.option("--concept", multiple=True, help="Suppress this instead of the bundle's; repeatable.")
@click.option("--sld-guidance-scale", type=float, help="Custom strength instead of --safety.")
@click.option("--sld-warmup-steps", type=int, help="Steps before safety acts.")
@click.option("--sld-threshold", type=float, help="Margin of elements that are steered.")
@click.option("--sld-momentum-scale", type=float, help="Weight of the momentum.")
@click.option("--sld-mom-beta", type=float, help="Share of the momentum that is kept.")
@click.option("--compare", is_flag=True,
              help="Make every picture without safety too and put them side by side.")  # fmt: skip
@click.option("--keep-unsafe", is_flag=True,
              help="Also write pictures that the safety head flagged, marked 'unsafe'.")  # fmt: skip
@click.option("--engine", help="onnxruntime, onnxruntime:cpu, openvino, tensorrt, tensorrt-rtx, …")
@click.option("--compute-precision", "--precision", type=click.Choice(["fp32", "bf16", "fp16", "int8"]), default="fp32",
              show_default=True, help="Lowest precision arithmetic may use.")  # fmt: skip
@click.option("--threads", default=0, help="CPU threads; 0 uses every core.")
@click.option("--memory", type=click.Choice(["normal", "low"]), default="normal", show_default=True,
              help="low: load one network after the other, for boards with little memory.")  # fmt: skip
@click.option("--digest", help="Refuse any bundle but the one with this digest.")
@click.option(
    "--key",
    help="Refuse any bundle that this Ed25519 public key has not signed: a file, or the key itself.",
)
@click.option("--cache", type=PathParam(),
              help="Folder for compiled engines instead of the bundle's own.")  # fmt: skip
@click.option("--png-level", default=1, show_default=True,
              help="Compression of the files, 0 (none) to 9 (smallest, slowest).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON record a picture.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, only the files' names.")
def main(
    bundle: Path,
    prompts: tuple[str, ...],
    prompts_file: Path | None,
    out: Path,
    compare: bool,
    keep_unsafe: bool,
    as_json: bool,
    quiet: bool,
    batch: int,
    resume: bool,
    png_level: int,
    **options: Any,
) -> None:
    """Make pictures for every PROMPT with a BUNDLE that sld-export made, under Safe Latent Diffusion.

    Prints the name of every picture. Pictures carry their settings the way Stable Diffusion tools read them,
    and a record of what safety did.
    """
    texts = [*prompts, *(lines_from_file(prompts_file) if prompts_file else ())]
    if not texts:
        raise InvalidInput("no prompt was given", hint="name at least one, or use --prompts-file")
    if batch < 1:
        raise InvalidInput("--batch is too small", value=batch, hint="use 1 or more")
    _check_folder(out)
    from sld_edge.runtime.generate import Pictures, shots_from
    from sld_edge.runtime.pipeline import SafePipeline

    load_options = {
        key: options.pop(key)
        for key in ("engine", "compute_precision", "threads", "memory", "digest", "key", "cache")
    }
    device, seeds = options.pop("seed_device"), options.pop("seed")
    shots = shots_from(texts, seeds, images=options.pop("images"), device=device)
    call = _call_arguments(options)
    if compare and (call.get("safety") or "").strip().lower() == "off":
        raise InvalidInput("--compare shows safety beside off", hint="leave --safety off out")
    with SafePipeline.from_pretrained(bundle, **load_options, lazy=True) as pipe:
        pictures = Pictures(
            pipe,
            out,
            call=call,
            plain=_plain(call) if compare else None,
            device=device,
            keep_unsafe=keep_unsafe,
            png_level=png_level,
        )
        expected = pictures.check(shots)
        left = pictures.missing(shots, expected, any_seed=not seeds) if resume else shots
        if left:
            start = time.perf_counter()
            pipe.load()
            say(f"loaded in {time.perf_counter() - start:.1f} s\n{pipe}", quiet=quiet or as_json)
        show = False if quiet or as_json else None
        start = time.perf_counter()
        made = withheld = 0
        try:
            for file in pictures.make(left, batch=batch, progress=show):
                _print_result(file, as_json)
                done = not (file.record.get("unsafe") or file.record.get("comparison"))
                made += done
                withheld += done and file.record["withheld"]
        except KeyboardInterrupt:
            say(f"{made} of {len(left)} pictures are kept in {out}; the same command with --resume goes on",
                quiet=quiet or as_json)  # fmt: skip
            raise
        there = len(shots) - len(left)
        say(
            f"{made} pictures in {time.perf_counter() - start:.1f} s"
            + (f", {withheld} withheld by the safety head" if withheld else "")
            + (f", {there} were there already" if there else ""),
            quiet=quiet or as_json,
        )


def _call_arguments(options: dict[str, Any]) -> dict[str, Any]:
    call = {key: value for key, value in options.items() if value is not None}
    call["num_inference_steps"] = call.pop("steps", None)
    if concepts := call.pop("concept"):
        call["safety_concept"] = list(concepts) if len(concepts) > 1 else concepts[0]
    return call


def _plain(call: dict[str, Any]) -> dict[str, Any]:
    """The same call without anything that concerns safety."""
    return {
        key: value
        for key, value in call.items()
        if key not in ("safety", "method", "safety_concept") and not key.startswith("sld_")
    }


def _print_result(file: Written, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"file": str(file.path), **file.record}))
    else:
        click.echo(f"{file.path}{f' ({file.remark})' if file.remark else ''}")


def _check_folder(out: Path) -> None:
    """Find out that the results cannot be written before minutes are spent on making them."""
    import tempfile

    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ImageFileError(
            f"cannot write to {out} ({error.strerror})", hint="choose another --out"
        ) from None


if __name__ == "__main__":
    main()
