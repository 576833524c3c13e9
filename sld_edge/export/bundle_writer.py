"""Everything of a bundle but its networks: tokenizer, manifest, card, digests; needs no torch."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from sld_edge import __version__
from sld_edge.bundle import CARD_NAME, MANIFEST_NAME, Bundle, file_from_path
from sld_edge.errors import InvalidInput, UnsupportedCheckpoint
from sld_edge.export.card import card_from_manifest
from sld_edge.export.config import ExportConfig
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

PredictionType = Literal["epsilon", "v_prediction", "sample"]
#: Context manager around a named stage of the work, for timing or display.
Stage = Callable[[str], AbstractContextManager[object]]


class Origin(Protocol):
    """What a bundle is made from, as far as its manifest says it."""

    @property
    def name(self) -> str: ...
    @property
    def class_name(self) -> str: ...
    @property
    def licence(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def weight_digests(self) -> Mapping[str, str]: ...
    @property
    def scheduler_config(self) -> Mapping[str, Any]: ...
    @property
    def latent_channels(self) -> int: ...
    @property
    def vae_scale_factor(self) -> int: ...
    @property
    def sample_size(self) -> tuple[int, int]: ...
    @property
    def prediction_type(self) -> PredictionType: ...


def write_bundle(
    folder: Path,
    config: ExportConfig,
    checkpoint: Origin,
    shapes: tuple[Shape, ...],
    stage: Stage,
    *,
    write_tokenizer: Callable[[Path], tuple[int, int, int, int]],
    exporter_of: Callable[..., Any],
    tools: Iterable[str],
) -> None:
    """Write a bundle into an empty folder.

    Args:
        folder: The folder.
        config: What to export and how.
        checkpoint: What it is made from.
        shapes: Pixel sizes to serve.
        stage: Called with the name of each stage.
        write_tokenizer: Writes the tokenizer's file; gives the ids of begin, end and padding, and the text length.
        exporter_of: Gives the exporter of the networks, which is asked for each graph in turn.
        tools: Packages whose versions the manifest names.
    """
    (folder / "graphs").mkdir()
    with stage("tokenizer"):
        bos, eos, pad, length = write_tokenizer(folder / "tokenizer.json")
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
        "tools": {"sld-edge": __version__, **{tool: version(tool) for tool in tools}},
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
        exporter = exporter_of(
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


def shapes_of(config: ExportConfig, checkpoint: Origin) -> tuple[Shape, ...]:
    """The pixel sizes that are asked for, or the checkpoint's own."""
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


def check_scheduler(checkpoint: Origin) -> None:
    """Refuse a checkpoint whose scheduler would fail at the first call."""
    try:
        build_schedule(None, checkpoint.scheduler_config)
    except InvalidInput as error:
        raise UnsupportedCheckpoint(
            f"the checkpoint's own scheduler cannot be used ({error.line})",
            hint="choose another one with --scheduler NAME, such as dpmpp_2m",
        ) from None
