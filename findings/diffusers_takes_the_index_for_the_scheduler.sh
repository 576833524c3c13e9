#!/bin/sh
# diffusers 0.42.1: a pipeline's scheduler has the class that model_index.json names, not that of its own file.
#
# scheduler_config.json says which class wrote it (_class_name). Loaded with its pipeline that is passed over without a
# warning. Read by the file's name, a pipeline whose two files differ is sampled by another method.
#
# Seen:
#   scheduler_config.json names  PNDMScheduler
#   model_index.json names       EulerDiscreteScheduler
#   loaded                       EulerDiscreteScheduler
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check diffusers==0.42.1 torch==2.13.0 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" - <<'PROGRAM'
import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
from diffusers import DDPMPipeline, DiffusionPipeline, PNDMScheduler, UNet2DModel

unet = UNet2DModel(
    sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
    down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
)
folder = Path("pipeline")
DDPMPipeline(unet, PNDMScheduler()).save_pretrained(folder)
file = folder / "model_index.json"
index = json.loads(file.read_text())
index["scheduler"] = ["diffusers", "EulerDiscreteScheduler"]
file.write_text(json.dumps(index))
own = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())["_class_name"]
loaded = type(DiffusionPipeline.from_pretrained(folder).scheduler).__name__
print("scheduler_config.json names ", own)
print("model_index.json names      ", index["scheduler"][1])
print("loaded                      ", loaded)
raise SystemExit(0 if (own, loaded) == ("PNDMScheduler", "EulerDiscreteScheduler") else 1)
PROGRAM
