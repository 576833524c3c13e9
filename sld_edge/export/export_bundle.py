"""A checkpoint becomes a bundle: every graph written, run, compared with torch, and all of it renamed into place."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from sld_edge.bundle import Bundle
from sld_edge.export.bundle_writer import Stage, check_scheduler, shapes_of, write_bundle
from sld_edge.export.checkpoint import Checkpoint, open_checkpoint
from sld_edge.export.config import ExportConfig
from sld_edge.export.networks import NetworkExporter
from sld_edge.export.target import claimed
from sld_edge.export.tokenizer import write_tokenizer

logger = logging.getLogger("sld_edge")

_TOOLS = (
    "torch",
    "diffusers",
    "transformers",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "ndonnx",
)


def export_bundle(config: ExportConfig, *, stage: Stage = lambda _: nullcontext()) -> Bundle:
    """Export a checkpoint.

    The bundle is written beside its final place and renamed when it is complete: an export that fails or is
    interrupted leaves nothing, and with ``force`` the old bundle stays until the new one is whole.

    Args:
        config: What to export and how.
        stage: Called with the name of each stage; the context manager it gives surrounds the work.

    Returns:
        The new bundle.

    Raises:
        InvalidInput: a setting does not fit the checkpoint, or ``out`` exists.
        UnsupportedCheckpoint: the checkpoint cannot be exported.
        ExportError: a graph misses its tolerance.
    """
    out = config.out.absolute()
    with claimed(out, force=config.force) as folder:
        with stage("open checkpoint"):
            checkpoint = open_checkpoint(
                config.checkpoint, need_safety_head=config.safety_head, scheduler=config.scheduler
            )
            shapes = shapes_of(config, checkpoint)
            checkpoint.check_sizes(shapes)
            check_scheduler(checkpoint)
        for note in checkpoint.notes:
            logger.warning("%s", note)
        write_bundle(
            folder, config, checkpoint, shapes, stage,
            write_tokenizer=partial(_write_tokenizer, checkpoint), exporter_of=NetworkExporter, tools=_TOOLS,
        )  # fmt: skip
    return Bundle.open(out)


def _write_tokenizer(checkpoint: Checkpoint, file: Path) -> tuple[int, int, int, int]:
    return write_tokenizer(
        checkpoint.load_tokenizer(),
        file,
        vocabulary=checkpoint.vocabulary,
        positions=checkpoint.text_positions,
    )
