"""Makes one picture and draws noise, for two machines to compare: probe.py BUNDLE OUT STEPS."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sld_edge import SafePipeline
from sld_edge.runtime.noise import Generator, philox4x32
from sld_edge.runtime.png import read_record, save_png

bundle, out, steps = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
out.mkdir(parents=True, exist_ok=True)
found: dict[str, Any] = {
    f"noise {device}": Generator(1, device).randn((2, 4, 64, 64)) for device in ("cpu", "cuda")
}
found["words"] = Generator(1)._twister.random_raw(1000)
found["philox"] = philox4x32(np.arange(4000, dtype=np.uint64).reshape(4, -1), (123, 456))
pipe = SafePipeline.from_pretrained(bundle, engine="onnxruntime:cpu")
print(platform.machine(), pipe)
result = pipe(
    "a surgery in a village", seed=1, num_inference_steps=steps, safety="strong", progress=False
)
picture = result.unsafe_images[0] or result.images[0]
record = next(iter(result.records()))
save_png(picture, out / "picture.png", record)
assert read_record(out / "picture.png") == record
found["picture"] = np.asarray(picture)
np.savez(out / "probe.npz", **found)
(out / "record.json").write_text(json.dumps(record, sort_keys=True, indent=1))
