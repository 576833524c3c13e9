"""A folder of ONNX models becomes a bundle: every graph written, run, and compared with the folder's own."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from sld_edge.bundle import Bundle
from sld_edge.errors import InvalidInput
from sld_edge.export.bundle_writer import Stage, check_scheduler, shapes_of, write_bundle
from sld_edge.export.config import ExportConfig
from sld_edge.export.onnx_folder.folder import open_onnx_folder
from sld_edge.export.onnx_folder.graphs import TEXT_ENCODER
from sld_edge.export.onnx_folder.networks import OnnxNetworks
from sld_edge.export.onnx_folder.tokenizer import write_folder_tokenizer
from sld_edge.export.target import claimed

logger = logging.getLogger("sld_edge")

_TOOLS: Final = ("onnx", "onnx-ir", "onnxruntime", "ndonnx")


def import_bundle(
    config: ExportConfig,
    *,
    safety_checker: Path | None = None,
    stage: Stage = lambda _: nullcontext(),
) -> Bundle:
    """Import a folder of ONNX models; nothing is written unless all of it is right.

    Args:
        config: What to import and how; ``checkpoint`` is the folder.
        safety_checker: A folder with a safety checker, for those that have none.
        stage: Called with the name of each stage; the context manager it gives surrounds the work.

    Returns:
        The new bundle.

    Raises:
        InvalidInput: a setting does not fit the folder, a file of it is missing or damaged, or ``out`` exists.
        UnsupportedCheckpoint: the folder cannot be imported.
        ExportError: a graph misses its tolerance.
    """
    out = config.out.absolute()
    with claimed(out, force=config.force) as place:
        with stage("open ONNX folder"):
            folder = open_onnx_folder(
                config.checkpoint, need_safety_head=config.safety_head, scheduler=config.scheduler,
                safety_checker=safety_checker,
            )  # fmt: skip
            shapes = shapes_of(config, folder)
            folder.check_sizes(shapes)
            check_scheduler(folder)
            own = "fp16" if folder.half else "fp32"
            if config.precision != own:
                raise InvalidInput(
                    f"the folder's networks are in {own}, and an import keeps what it finds",
                    value=config.precision, hint=f"pass --precision {own}",
                )  # fmt: skip
            config = replace(config, opset=max(config.opset, folder.opset))
        for note in folder.notes:
            logger.warning("%s", note)
        write_bundle(
            place, config, folder, shapes, stage,
            write_tokenizer=partial(
                write_folder_tokenizer, folder.path / "tokenizer",
                vocabulary=folder.configs[TEXT_ENCODER].get("vocab_size"), positions=folder.text_positions,
            ),
            exporter_of=OnnxNetworks, tools=_TOOLS,
        )  # fmt: skip
    return Bundle.open(out)
