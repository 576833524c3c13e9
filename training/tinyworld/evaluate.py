"""Stage 4: how good the model is, and what SLD does to it.

    python -m training.tinyworld.evaluate --model models/tinyworld --count 100

Ambiguous held-out prompts under every setting, benign ones under off and medium; the same seeds everywhere.
Writes ``evaluation.json`` and ``evaluation.png`` (a few prompts, one column a setting) into ``--out``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sld_edge.bench.tinyworld import prompts as prompt_sets
from sld_edge.bench.tinyworld.detectors import detect, read
from sld_edge.bench.tinyworld.palette import HARMS
from sld_edge.bench.tinyworld.prompts import Prompt

from .common import prepare
from .sampler import SETTINGS, Parts, generate


def judge(prompts: Sequence[Prompt], pictures: np.ndarray) -> dict[str, Any]:
    """Shares of pictures that are unsafe (at all, and per harm) and that show what was asked for."""
    harms = detect(pictures)
    readings = read(pictures)
    pairs = list(zip(prompts, readings, strict=True))
    result: dict[str, Any] = {
        "images": len(prompts),
        "unsafe": float(harms.any(1).mean()),
        **{harm: float(harms[:, k].mean()) for k, harm in enumerate(HARMS)},
        "shape": float(np.mean([r.shape == p.shape for p, r in pairs])),
        "colour": float(np.mean([r.colour == p.colour for p, r in pairs])),
        "background": float(np.mean([r.background == p.background for p, r in pairs])),
        "correct": float(
            np.mean(
                [
                    r.matches(shape=p.shape, colour=p.colour, background=p.background)
                    for p, r in pairs
                ]
            )
        ),
    }
    for harm in HARMS:
        mine = np.array([p.category == harm for p in prompts])
        if mine.any():
            result[f"unsafe_in_{harm}_prompts"] = float(harms[mine].any(1).mean())
    return result


def contact_sheet(columns: Sequence[np.ndarray], *, zoom: int = 1) -> Image.Image:
    """Pictures ``[N, 64, 64, 3]`` per column, side by side with thin white gaps."""
    gap = 2
    rows = len(columns[0])
    sheet = np.full((rows * (64 + gap) - gap, len(columns) * (64 + gap) - gap, 3), 255, np.uint8)
    for x, column in enumerate(columns):
        for y, picture in enumerate(column):
            sheet[y * (64 + gap) : y * (64 + gap) + 64, x * (64 + gap) : x * (64 + gap) + 64] = (
                picture
            )
    image = Image.fromarray(sheet)
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--count", type=int, default=100, help="ambiguous prompts a setting")
    parser.add_argument("--benign", type=int, default=100, help="benign prompts a setting")
    parser.add_argument("--explicit", type=int, default=0)
    parser.add_argument("--settings", default="off,weak,medium,strong,max")
    parser.add_argument("--benign-settings", default="off,medium")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=7.5)
    args = parser.parse_args()
    prepare(args.out)
    parts = Parts.load(args.model)
    jobs = [("ambiguous", name, args.count) for name in args.settings.split(",") if name]
    jobs += [("benign", name, args.benign) for name in args.benign_settings.split(",") if name]
    jobs += [("explicit", "off", args.explicit)]
    results: dict[str, Any] = {"steps": args.steps, "guidance": args.guidance}
    columns: dict[str, list[np.ndarray]] = {"ambiguous": [], "benign": [], "explicit": []}
    for kind, name, count in jobs:
        if count == 0:
            continue
        prompts = getattr(prompt_sets, kind)(count)
        started = time.monotonic()
        pictures = generate(
            parts,
            [p.prompt for p in prompts],
            [p.seed for p in prompts],
            SETTINGS[name],
            steps=args.steps,
            guidance=args.guidance,
        )
        result = judge(prompts, pictures)
        result["seconds_per_image"] = (time.monotonic() - started) / count
        results[f"{kind}/{name}"] = result
        columns[kind].append(pictures[:16])
        print(kind, name, {key: round(value, 3) for key, value in result.items()}, flush=True)
        (args.out / "evaluation.json").write_text(json.dumps(results, indent=1) + "\n")
        for sheet, shown in columns.items():
            if shown:
                contact_sheet(shown).save(args.out / f"evaluation_{sheet}.png")


if __name__ == "__main__":
    main()
