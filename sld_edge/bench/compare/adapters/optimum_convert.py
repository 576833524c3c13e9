"""Convert a checkpoint for one of Optimum's pipelines: ``python -m … onnx|openvino CHECKPOINT OUT``.

A process of its own, because converting takes several times the memory that the pipeline then runs with, and only once
for a comparison, however often memory makes a worker start anew.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sld_edge.bench.processes import built_beside
from sld_edge.offline import import_openvino

_PREFIX = "text_model."


def main(kind: str, checkpoint: Path, out: Path) -> None:
    """Write the pipeline's folder, fp32, under another name first: a half one is never found."""
    with readable(checkpoint) as source, built_beside(out) as unfinished:
        (_to_onnx if kind == "onnx" else _to_openvino)(source, unfinished)


def _to_onnx(source: Path, out: Path) -> None:
    from optimum.exporters.onnx import main_export

    main_export(
        str(source), out, task="text-to-image", library_name="diffusers", dtype="fp32",
        do_validation=False, no_post_process=True,
    )  # fmt: skip


def _to_openvino(source: Path, out: Path) -> None:
    import_openvino()  # before optimum does: it would report itself
    from optimum.exporters.openvino import main_export
    from optimum.intel import OVConfig

    main_export(
        str(source), out, task="text-to-image", library_name="diffusers",
        ov_config=OVConfig(dtype="fp32"), convert_tokenizer=False,
    )  # fmt: skip


@contextmanager
def readable(checkpoint: Path) -> Iterator[Path]:
    """The checkpoint by links, in words that older releases understand and without its checker.

    Neither pipeline converts a checker, and an index can name classes that these releases do not have: transformers
    5's image processors, the Safe pipeline.
    """
    index = json.loads((checkpoint / "model_index.json").read_text("utf-8"))
    index["_class_name"] = "StableDiffusionPipeline"
    index["requires_safety_checker"] = False
    for part in ("safety_checker", "feature_extractor"):
        index[part] = [None, None]
    with TemporaryDirectory(prefix="sld-bench-") as folder:
        for place in checkpoint.iterdir():
            if place.is_dir() and place.name in index and index[place.name][0]:
                (Path(folder) / place.name).symlink_to(place.resolve(), target_is_directory=True)
        (Path(folder) / "model_index.json").write_text(json.dumps(index), "utf-8")
        _name_as_published(Path(folder) / "text_encoder")
        yield Path(folder)


def _name_as_published(text_encoder: Path) -> None:
    """Give the weights of a text encoder that transformers 5 saved the names of transformers 4 and of the web.

    Transformers 4 would find none of its names in it, and go on with random weights.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(text_encoder / "model.safetensors", "pt") as file:
        names = list(file.keys())
        if any(name.startswith(_PREFIX) for name in names):
            return
        tensors = {_PREFIX + name: file.get_tensor(name) for name in names}
    config = (text_encoder / "config.json").read_bytes()
    text_encoder.unlink()
    text_encoder.mkdir()
    (text_encoder / "config.json").write_bytes(config)
    save_file(tensors, text_encoder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
