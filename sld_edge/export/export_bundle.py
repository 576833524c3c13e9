"""A checkpoint becomes a bundle: every graph written, run, compared with torch, and all of it renamed into place."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from sld_edge import __version__
from sld_edge.bundle import CARD_NAME, MANIFEST_NAME, Bundle, file_from_path
from sld_edge.errors import InvalidInput, UnsupportedCheckpoint
from sld_edge.export.card import card_from_manifest
from sld_edge.export.checkpoint import Checkpoint, open_checkpoint
from sld_edge.export.config import ExportConfig
from sld_edge.export.networks import NetworkExporter
from sld_edge.export.target import claimed
from sld_edge.export.tokenizer import write_tokenizer
from sld_edge.manifest import (
    Manifest,
    Model,
    Safety,
    Shape,
    Source,
    Tokenizer,
)
from sld_edge.manifest_json import json_from_manifest
from sld_edge.manifest_versions import FORMAT, VERSION
from sld_edge.runtime.schedulers import build_schedule
from sld_edge.runtime.tokenize import Tokenizer as RuntimeTokenizer

logger = logging.getLogger("sld_edge")

#: Context manager around a named stage of the work, for timing or display.
Stage = Callable[[str], AbstractContextManager[object]]

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
            shapes = _shapes(config, checkpoint)
            checkpoint.check_sizes(shapes)
            _check_scheduler(checkpoint)
        for note in checkpoint.notes:
            logger.warning("%s", note)
        _write(folder, config, checkpoint, shapes, stage)
    return Bundle.open(out)


def _write(
    folder: Path,
    config: ExportConfig,
    checkpoint: Checkpoint,
    shapes: tuple[Shape, ...],
    stage: Stage,
) -> None:
    (folder / "graphs").mkdir()
    with stage("tokenizer"):
        bos, eos, pad, length = write_tokenizer(
            checkpoint.load_tokenizer(),
            folder / "tokenizer.json",
            vocabulary=checkpoint.vocabulary,
            positions=checkpoint.text_positions,
        )
    base: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "precision": config.precision,
        "opset": config.opset,
        "source": Source(
            name=checkpoint.name,
            class_name=checkpoint.class_name,
            licence=config.licence or checkpoint.licence,
            weights=dict(checkpoint.weight_digests),
        ),
        "shapes": shapes,
        "scheduler": dict(checkpoint.scheduler_config),
        "tokenizer": Tokenizer(file="tokenizer.json", bos=bos, eos=eos, pad=pad),
        "safety": Safety(
            concept=config.concept,
            default=config.safety_default,
            policy=config.policy,
            head=config.safety_head,
            harms=config.harms_of_concept,
            method=config.method if config.method != "sld" else msgspec.UNSET,
        ),
        "tools": {"sld-edge": __version__, **{tool: version(tool) for tool in _TOOLS}},
    }
    model = Model(
        family=checkpoint.family,
        latent_channels=checkpoint.latent_channels,
        vae_scale_factor=checkpoint.vae_scale_factor,
        text_length=length,
        prediction_type=checkpoint.prediction_type,
        cross_attention=(),
    )
    draft = Manifest(**base, model=model, graphs=(), files=_digests(folder))
    encode = RuntimeTokenizer(Bundle(path=folder, manifest=draft))
    encode.encode_concept(config.concept)
    for harm in config.harms_of_concept:
        encode.encode_concept(harm.text)
    with ExitStack() as stack:
        exporter = NetworkExporter(
            checkpoint=checkpoint,
            config=config,
            shapes=shapes,
            folder=folder / "graphs",
            stage=stage,
        )
        stack.callback(exporter.close)
        exporter.text_and_unet(encode)
        exporter.decode()
        if config.safety_head:
            exporter.safety()
        exporter.advance()
        words = exporter.words(encode)
    manifest = msgspec.structs.replace(
        draft,
        safety=msgspec.structs.replace(draft.safety, words=words or msgspec.UNSET),
        model=msgspec.structs.replace(model, cross_attention=exporter.cross_attention),
        graphs=tuple(exporter.graphs),
    )
    with stage("digests"):
        (folder / CARD_NAME).write_text(card_from_manifest(manifest), "utf-8")
        manifest = msgspec.structs.replace(manifest, files=_digests(folder))
        (folder / MANIFEST_NAME).write_bytes(json_from_manifest(manifest))


def _digests(folder: Path) -> dict[str, Any]:
    return {
        file.relative_to(folder).as_posix(): file_from_path(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST_NAME
    }


def _shapes(config: ExportConfig, checkpoint: Checkpoint) -> tuple[Shape, ...]:
    factor = checkpoint.vae_scale_factor
    if not config.shapes:
        height, width = checkpoint.sample_size
        return (Shape(height=height * factor, width=width * factor),)
    for shape in config.shapes:
        if shape.height % factor or shape.width % factor:
            raise InvalidInput(
                f"a size is no multiple of {factor} pixels, which one latent element stands for",
                value=f"{shape.height}x{shape.width}",
                hint=f"use {shape.height // factor * factor or factor}x{shape.width // factor * factor or factor}",
            )
    return config.shapes


def _check_scheduler(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint whose scheduler would fail at the first call."""
    try:
        build_schedule(None, checkpoint.scheduler_config)
    except InvalidInput as error:
        raise UnsupportedCheckpoint(
            f"the checkpoint's own scheduler cannot be used ({error.line})",
            hint="choose another one with --scheduler NAME, such as dpmpp_2m",
        ) from None
