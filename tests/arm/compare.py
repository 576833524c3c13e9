"""Compares what probe.py left on two machines: compare.py X86 ARM. Ends with 1 and what differs too much."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

#: Smallest likeness of two pictures, in dB.
LEAST_PSNR = 50.0
#: Largest difference of two Gaussian numbers. Torch's CPU stream is computed without functions of the processor's
#: own; the one of its CUDA generator takes NumPy's float32 logarithm, which differs between processors.
LARGEST_NOISE = {"noise cpu": 0.0, "noise cuda": 1e-6}


def main(one: Path, two: Path) -> list[str]:
    """What differs too much; the rest is printed."""
    mine, other = (np.load(folder / "probe.npz") for folder in (one, two))
    bad = [
        f"{name}: other random words"
        for name in ("words", "philox")
        if (mine[name] != other[name]).any()
    ]
    print("random words: " + ("differ" if bad else "equal"))
    for name, allowed in LARGEST_NOISE.items():
        largest = float(np.abs(mine[name] - other[name]).max())
        share = float((mine[name] != other[name]).mean())
        print(f"{name}: {share:.1%} of the numbers differ, by at most {largest:.1e}")
        bad += [name] if not largest <= allowed else []
    difference = np.abs(mine["picture"].astype(float) - other["picture"])
    psnr = float("inf") if not difference.any() else 10 * np.log10(255**2 / (difference**2).mean())
    print(f"picture: {psnr:.1f} dB, largest difference {int(difference.max())} of 255")
    bad += ["picture"] if not psnr >= LEAST_PSNR else []
    records = [json.loads((folder / "record.json").read_text()) for folder in (one, two)]
    for record in records:  # whether files were hashed again depends on the machine's cache
        record["bundle"].pop("checked", None)
    for key in sorted(records[0].keys() | records[1].keys()):
        if key != "engine" and records[0].get(key) != records[1].get(key):
            bad.append(f"record: {key}")
    return bad


if __name__ == "__main__":
    failures = main(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.exit(f"FAILED: {', '.join(failures)}" if failures else 0)
