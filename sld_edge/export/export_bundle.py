"""A checkpoint becomes a bundle: every graph written, run, compared with torch, and all of it renamed into place."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from sld_edge import __version__
from sld_edge.bundle import CARD_NAME, MANIFEST_NAME, Bundle, file_from_path
from sld_edge.errors import InvalidInput
from sld_edge.export.card import card_from_manifest
from sld_edge.export.checkpoint import Checkpoint, open_checkpoint
from sld_edge.export.config import ExportConfig
from sld_edge.export.networks import NetworkExporter
from sld_edge.export.tokenizer import write_tokenizer
from sld_edge.manifest import (
    FORMAT,
    VERSION,
    Manifest,
    Model,
    Safety,
    Shape,
    Source,
    Tokenizer,
    json_from_manifest,
)
from sld_edge.runtime.schedulers import build_schedule
from sld_edge.runtime.tokenize import Tokenizer as RuntimeTokenizer
from sld_edge.writing import move_folder, open_to_others

#: Enters a named stage of the work; whoever calls may time or show it.
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
    with stage("open checkpoint"):
        checkpoint = open_checkpoint(config.checkpoint, need_safety_head=config.safety_head)
        shapes = _shapes(config, checkpoint)
        checkpoint.check_sizes(shapes)
        build_schedule(None, checkpoint.scheduler_config, steps=50)
    out = config.out.absolute()
    _check_target(out, config)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        _write(folder, config, checkpoint, shapes, stage)
        open_to_others(folder)
        _check_target(out, config)  # an export takes minutes: someone may have written there
        _move_into_place(folder, out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
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
    manifest = msgspec.structs.replace(
        draft,
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
        side = checkpoint.sample_size * factor
        return (Shape(height=side, width=side),)
    for shape in config.shapes:
        if shape.height % factor or shape.width % factor:
            raise InvalidInput(
                f"a size is no multiple of {factor} pixels, which one latent element stands for",
                value=f"{shape.height}x{shape.width}",
                hint=f"use {shape.height // factor * factor or factor}x{shape.width // factor * factor or factor}",
            )
    return config.shapes


def _check_target(out: Path, config: ExportConfig) -> None:
    if not os.path.lexists(out):
        return
    if not out.exists():
        raise InvalidInput(
            "the bundle's folder is a link that leads nowhere",
            value=str(out),
            hint="remove the link, or name another folder",
        )
    if not config.force:
        raise InvalidInput(
            "the bundle's folder exists already", value=str(out), hint="use --force or another one"
        )
    if not (out.is_dir() and (_is_bundle(out) or not any(out.iterdir()))):
        raise InvalidInput(
            "--force replaces bundles only, and this is none",
            value=str(out),
            hint="name another folder",
        )


def _is_bundle(folder: Path) -> bool:
    """Whether a folder's manifest is a bundle's, of any version: other projects have a manifest.json too."""
    try:
        head = json.loads((folder / MANIFEST_NAME).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(head, dict) and head.get("format") == FORMAT


def _move_into_place(folder: Path, out: Path) -> None:
    if not out.exists():
        move_folder(folder, out)
        return
    old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.old."))
    kept = old / "bundle"
    try:
        out.rename(kept)
        folder.rename(out)
    finally:
        # An interrupt may come between any two lines; the old bundle goes only when the new one is there.
        if not out.exists() and kept.exists():
            kept.rename(out)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
