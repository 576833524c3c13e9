"""``sld-generate``: make images from the shell."""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sld_edge import __version__
from sld_edge.errors import ImageFileError, InvalidInput
from sld_edge.shell import OneLineCommand, PathParam, say

if TYPE_CHECKING:
    from sld_edge.runtime.output import SafeOutput
#: Bytes; file systems take 255, and an ending and a number follow.
_LONGEST_STEM = 180

EPILOG = """\b
Examples:
  sld-generate bundle "a castle by a lake"
  sld-generate bundle "a castle" "a forest" --safety strong --seed 7 --images 2 --out pictures
  sld-generate bundle "a battle near a house" --compare --out pictures
  sld-generate bundle "a castle" --scheduler dpmpp_2m_karras --steps 25 --json
  sld-generate bundle --prompts-file prompts.txt --concept "blood, weapons"

\b
Exit status: 0 done (also when the safety head withheld an image, which is said), 2 wrong input,
3 the bundle's policy forbids it, 4 bundle damaged, 7 engine failed, 8 package missing,
9 cannot write, 130 interrupted.
"""


@click.command(cls=OneLineCommand, epilog=EPILOG, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="sld-generate")
@click.argument("bundle", type=PathParam())
@click.argument("prompts", nargs=-1, metavar="PROMPT...")
@click.option("--prompts-file", type=PathParam(), help="One prompt a line, UTF-8.")
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
              help="One for all pictures, or one for each; repeatable. Random when left out.")  # fmt: skip
@click.option("--seed-device", type=click.Choice(["cpu", "cuda"]), default="cpu",
              show_default=True, help="Whose random numbers to reproduce.")  # fmt: skip
@click.option("--images", default=1, show_default=True, help="Pictures for each prompt.")
@click.option("--height", type=int, help="Pixels; the bundle's first size when left out.")
@click.option("--width", type=int, help="Pixels; the bundle's first size when left out.")
@click.option("--safety",
              help="off, weak, medium, strong, max or adaptive; the bundle's default otherwise.")  # fmt: skip
@click.option("--method", type=click.Choice(["sld", "adaptive"]),
              help="sld, as published, or adaptive, which is stronger; else the preset's or bundle's.")  # fmt: skip
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
    **options: Any,
) -> None:
    """Make pictures for every PROMPT with a BUNDLE that sld-export made, under Safe Latent Diffusion.

    Prints the name of every picture. Pictures carry their settings the way Stable Diffusion tools read them,
    and a record of what safety did.
    """
    texts = [*prompts, *(_prompts_from(prompts_file) if prompts_file else ())]
    if not texts:
        raise InvalidInput("no prompt was given", hint="name at least one, or use --prompts-file")
    _check_folder(out)
    from sld_edge.runtime.noise import random_seed
    from sld_edge.runtime.pipeline import SafePipeline

    load_options = {
        key: options.pop(key)
        for key in ("engine", "compute_precision", "threads", "memory", "digest", "key", "cache")
    }
    seeds = options.pop("seed") or (random_seed(),)
    device = options.pop("seed_device")
    call = _call_arguments(options)
    show = False if quiet or as_json else None
    if compare and (call.get("safety") or "").strip().lower() == "off":
        raise InvalidInput("--compare shows safety beside off", hint="leave --safety off out")
    with SafePipeline.from_pretrained(bundle, **load_options, lazy=True) as pipe:
        # every argument is judged before seconds are spent on loading networks
        pipe.check(texts, **call, generator=_generators(seeds, device))
        if compare:
            pipe.check(texts, **_plain(call), generator=_generators(seeds, device), safety="off")
        start = time.perf_counter()
        pipe.load()
        loaded = time.perf_counter()
        say(f"loaded in {loaded - start:.1f} s\n{pipe}", quiet=quiet or as_json)
        output = pipe(texts, **call, generator=_generators(seeds, device), progress=show)
        took = time.perf_counter() - loaded
        _write(output, out, keep_unsafe=keep_unsafe, as_json=as_json)
        if compare:
            _write_comparison(
                output,
                pipe(
                    texts,
                    **_plain(call),
                    generator=_generators(seeds, device),
                    safety="off",
                    progress=show,
                ),
                out,
                as_json=as_json,
            )
        withheld = sum(image["withheld"] for image in output.record["images"])
        say(
            f"{len(output.record['images'])} pictures in {took:.1f} s"
            + (f", {withheld} withheld by the safety head" if withheld else ""),
            quiet=quiet or as_json,
        )


def _call_arguments(options: dict[str, Any]) -> dict[str, Any]:
    call = {key: value for key, value in options.items() if value is not None}
    call["num_inference_steps"] = call.pop("steps", None)
    call["num_images_per_prompt"] = call.pop("images")
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


def _write(output: SafeOutput, out: Path, *, keep_unsafe: bool, as_json: bool) -> None:
    from sld_edge.runtime.png import free_path, save_png

    for index, record in enumerate(output.records()):
        path = free_path(out, _stem(record))
        save_png(output.images[index], path, record)
        _print_result(path, record, as_json)
        unsafe = None if output.unsafe_images is None else output.unsafe_images[index]
        if keep_unsafe and unsafe is not None:
            path = free_path(out, _stem(record) + "-unsafe")
            save_png(unsafe, path, {**record, "withheld": False})
            _print_result(path, record, as_json)


def _write_comparison(safe: SafeOutput, off: SafeOutput, out: Path, *, as_json: bool) -> None:
    from sld_edge.runtime.compare_picture import side_by_side
    from sld_edge.runtime.png import free_path, save_png

    for index, record in enumerate(safe.records()):
        used = record["safety"]
        # what the safety head flagged is black in the output; the picture says "withheld" instead
        shown = [
            None if output.record["images"][index]["withheld"] else output.images[index]
            for output in (off, safe)
        ]
        picture = side_by_side(
            shown,
            ["safety off", f"safety {used['preset'] or 'custom'}"],
            title=record["prompt"],
            footer=f"suppressed: {', '.join(used['concepts'])}",
        )
        path = free_path(out, _stem(record) + "-compare")
        save_png(picture, path, record)
        _print_result(path, record, as_json)


def _generators(seeds: Sequence[int], device: str) -> Any:
    """Fresh generators: a run moves them on, and a comparison starts from the same noise again."""
    from sld_edge.runtime.noise import Generator

    made = [Generator(seed, device) for seed in seeds]
    return made if len(made) > 1 else made[0]


def _print_result(path: Path, record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"file": str(path), **record}))
    else:
        click.echo(f"{path}{' (withheld: black)' if record['withheld'] else ''}")


def _stem(record: dict[str, Any]) -> str:
    """A file's name that says what was asked for, in any script: letters, marks and digits, the rest as hyphens."""
    text = unicodedata.normalize("NFC", record["prompt"])
    words = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text).split()
    stem = "-".join(words)[:60].encode("utf-8")[:_LONGEST_STEM].decode("utf-8", "ignore")
    return stem.strip("-") or "picture"


def _prompts_from(file: Path) -> list[str]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{file} is not UTF-8 text (byte {error.start})", hint="convert it, e.g. with iconv"
        ) from None
    except OSError as error:
        raise InvalidInput(f"cannot read {file} ({error.strerror})") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


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
