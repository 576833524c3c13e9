"""Reading and writing ``manifest.json``: versions, digests, and numbers that must fit together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from sld_edge.errors import BundleError
from sld_edge.manifest import Manifest
from sld_edge.manifest_versions import FORMAT, OLDEST_VERSION, VERSION, as_present


def manifest_digest(manifest: Manifest | Mapping[str, Any]) -> str:
    """sha256 (hex) of the manifest's canonical JSON with an empty ``digest``."""
    plain = {**msgspec.to_builtins(manifest), "digest": ""}
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()


def json_from_manifest(manifest: Manifest) -> bytes:
    """The manifest as indented JSON with its digest filled in."""
    signed = msgspec.structs.replace(manifest, digest=manifest_digest(manifest))
    return msgspec.json.format(msgspec.json.encode(signed, order="sorted"), indent=1) + b"\n"


class _Head(msgspec.Struct):
    format: str = ""
    version: int = 0


def manifest_from_json(data: bytes, *, path: str) -> Manifest:
    """Read and check a manifest.

    Manifests of earlier versions are given as this version's; their digest stays that of the file.

    Raises:
        BundleError: not a manifest, a version this release does not know, or altered since it was written.
    """
    try:
        head = msgspec.json.decode(data, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{path} is not a bundle manifest ({error})", hint="export again"
        ) from None
    if head.format != FORMAT:
        raise BundleError(f"{path} is not a bundle manifest, its format is", value=head.format)
    if not OLDEST_VERSION <= head.version <= VERSION:
        newer = head.version > VERSION
        raise BundleError(
            f"{path} has manifest version {head.version}, this sld-edge reads versions {OLDEST_VERSION} "
            f"to {VERSION}",
            hint="upgrade sld-edge" if newer else "export the checkpoint again",
        )
    try:
        plain = msgspec.json.decode(data)
        manifest = msgspec.convert(as_present(plain), Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is damaged ({error})", hint="export again") from None
    if manifest.digest != manifest_digest(plain):
        raise BundleError(
            f"{path} was altered after it was written (its digest does not match)",
            hint="export again, or restore the file",
        )
    _check_together(manifest, path)
    return manifest


def _check_together(manifest: Manifest, path: str) -> None:
    """Refuse numbers that contradict each other: sizes, and the tensors of graphs that follow from them."""
    model = manifest.model
    factor = model.vae_scale_factor
    for shape in manifest.shapes:
        if shape.height % factor or shape.width % factor:
            raise _senseless(path, f"a size is no multiple of {factor} pixels", shape)
    for graph in manifest.graphs:
        size = (graph.height // factor, graph.width // factor)
        expected: dict[str, tuple[int | str | None, ...]] = {
            "input_ids": (None, model.text_length),
            "latents": (None, model.latent_channels, *size),
            "images": (None, graph.height, graph.width, 3),
            "noise_pred": (None, None, model.latent_channels, *size),
        }
        rows = (None,) if graph.kind == "text" else (None, None)
        for index, layer in enumerate(model.cross_attention):
            heads, dim, length = layer.heads, layer.head_dim, model.text_length
            expected[f"k_{index:02d}"] = (*rows, heads, dim, length)
            expected[f"v_{index:02d}"] = (*rows, heads, length, dim)
        if graph.kind == "advance":
            continue  # every size is free in it
        for tensor in (*graph.inputs, *graph.outputs):
            wanted = expected.get(tensor.name, tensor.shape)
            if len(wanted) != len(tensor.shape) or any(
                one is not None and one != other
                for one, other in zip(wanted, tensor.shape, strict=True)
            ):
                raise _senseless(
                    path, f"{tensor.name} of {graph.file} does not fit the model", tensor.shape
                )


def _senseless(path: str, what: str, value: object) -> BundleError:
    return BundleError(f"{path} is damaged ({what})", value=value, hint="export again")
