"""All stages, one after the other, each resuming where it stopped.

python -m training.tinyworld --scratch /tmp/tinyworld --model models/tinyworld
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, required=True, help="caches and checkpoints")
    parser.add_argument(
        "--model", type=Path, required=True, help="the finished diffusers directory"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=60.0, help="time for the UNet")
    args = parser.parse_args()
    scratch = ["--scratch", str(args.scratch)]
    stages: list[tuple[str, list[str]]] = [
        ("vae", ["training.tinyworld.vae", *scratch]),
        ("decoder", ["training.tinyworld.decoder", *scratch]),
        (
            "unet",
            [
                "torch.distributed.run",
                "--nproc-per-node",
                str(args.processes),
                "-m",
                "training.tinyworld.train",
                *scratch,
                "--minutes",
                str(args.minutes),
            ],
        ),
        ("checker", ["training.tinyworld.checker", *scratch]),
        ("assemble", ["training.tinyworld.assemble", *scratch, "--model", str(args.model)]),
        (
            "evaluate",
            ["training.tinyworld.evaluate", "--model", str(args.model), "--out", str(args.scratch)],
        ),
    ]
    args.scratch.mkdir(parents=True, exist_ok=True)
    for name, arguments in stages:
        done = args.scratch / f"{name}.done"
        if done.exists():
            print(f"{name}: already done", flush=True)
            continue
        subprocess.run([sys.executable, "-m", *arguments], check=True)
        done.touch()


if __name__ == "__main__":
    main()
