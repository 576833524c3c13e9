"""Stage 5: everything into one ordinary diffusers directory, weights in half precision.

python -m training.tinyworld.assemble --scratch /tmp/tinyworld --model models/tinyworld
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.deprecated.stable_diffusion_safe import StableDiffusionPipelineSafe
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPImageProcessorPil, CLIPTextModel, CLIPTokenizer

from .common import prepare
from .sampler import new_scheduler


def assemble(scratch: Path, model: Path) -> None:
    pipeline = StableDiffusionPipelineSafe(
        vae=AutoencoderKL.from_pretrained(scratch / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(scratch / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(scratch / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(scratch / "unet"),
        scheduler=new_scheduler(),
        safety_checker=StableDiffusionSafetyChecker.from_pretrained(scratch / "safety_checker"),
        feature_extractor=CLIPImageProcessorPil.from_pretrained(scratch / "feature_extractor"),
    )
    pipeline.to(dtype=torch.float16).save_pretrained(model)
    # transformers writes tokenizer.json alone; older readers want the pair of files it came from
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(scratch / "tokenizer" / name, model / "tokenizer" / name)
    for part in ("unet", "vae"):
        forget_folder(model / part / "config.json")
    with (model / "training_log.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["stage", "step", "loss", "l2", "kl"])
        for name in ("vae_log.csv", "unet_log.csv"):
            with (scratch / name).open(newline="") as log:
                writer.writerows(csv.reader(log))
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    print(f"{model}: {size / 1e6:.1f} MB")


def forget_folder(config: Path) -> None:
    """Take the folder a part was read from out of its configuration: it means nothing to anyone else."""
    settings = json.loads(config.read_text())
    settings.pop("_name_or_path", None)
    config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    args = parser.parse_args()
    prepare(args.scratch)
    assemble(args.scratch, args.model)


if __name__ == "__main__":
    main()
