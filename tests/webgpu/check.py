"""One picture on ONNX Runtime's WebGPU provider over a software Vulkan driver, beside the CPU provider's.

    python -m tests.webgpu.check BUNDLE [STEPS]

Needs an ONNX Runtime with WebGPU (``onnxruntime-webgpu``), a Vulkan loader (Debian: libvulkan1), and SwiftShader,
which comes with Debian's chromium, or another driver that ``VK_ICD_FILENAMES`` names. It takes
minutes: a test of numbers, not of speed.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from sld_edge import SafePipeline

#: Where Debian's chromium-common puts SwiftShader.
SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
#: Smallest likeness in fp32, in dB.
LEAST_PSNR = 50.0


def main(bundle: Path, steps: int) -> str:
    """Why the check failed; empty where it did not."""
    if "VK_ICD_FILENAMES" not in os.environ:
        if not SWIFTSHADER.exists():
            return f"there is no software Vulkan driver ({SWIFTSHADER}): apt install chromium-common libvulkan1"
        os.environ["VK_ICD_FILENAMES"] = str(SWIFTSHADER)
    pictures = {}
    for engine in ("onnxruntime:cpu", "onnxruntime:webgpu"):
        began = time.monotonic()
        with SafePipeline.from_pretrained(bundle, engine) as pipe:
            out = pipe("a castle by a lake", seed=1, num_inference_steps=steps, safety="strong",
                       scheduler="ddim", output_type="np", progress=False)  # fmt: skip
            print(pipe)
        pictures[engine] = np.asarray(
            out.unsafe_images[0] if out.nsfw_content_detected[0] else out.images[0]
        )
        print(
            f"{engine}: {time.monotonic() - began:.1f} s for {steps} steps, flagged: {out.nsfw_content_detected}"
        )
    one, two = (picture.astype(float) for picture in pictures.values())
    error = float(((one - two) ** 2).mean())
    psnr = float("inf") if not error else -10 * np.log10(error)
    print(f"{psnr:.1f} dB")
    return (
        ""
        if psnr >= LEAST_PSNR
        else f"the pictures differ: {psnr:.1f} dB, at least {LEAST_PSNR:.0f} is asked for"
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2) or None)
