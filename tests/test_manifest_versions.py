"""Manifests of earlier versions open as the present one's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from sld_edge import Bundle, BundleError, SafePipeline
from sld_edge.kinds import KINDS
from sld_edge.manifest_json import manifest_digest, manifest_from_json
from sld_edge.manifest_versions import VERSION


def as_version_3(manifest: dict[str, Any]) -> dict[str, Any]:
    """The same manifest as the release before would have written it, from the same files."""
    graphs = []
    for graph in manifest["graphs"]:
        for port in (*graph["inputs"], *graph["outputs"]):
            del port["role"]
        graphs.append(graph)
        if graph["kind"] == "advance":
            graphs.append({**graph, "kind": "advance_many"})
    old = {**manifest, "version": 3, "graphs": graphs}
    return {**old, "digest": manifest_digest(old)}


@pytest.fixture
def old_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "old"
    shutil.copytree(tiny_bundle, copy, ignore=shutil.ignore_patterns("cache"))
    file = copy / "manifest.json"
    file.write_text(json.dumps(as_version_3(json.loads(file.read_bytes()))), "utf-8")
    return copy


def test_ports_get_their_roles_and_one_advance_stays(old_bundle: Path, tiny_bundle: Path) -> None:
    old, new = Bundle.open(old_bundle), Bundle.open(tiny_bundle)
    assert msgspec.structs.replace(old.manifest, digest=new.digest) == new.manifest
    assert old.digest == json.loads((old_bundle / "manifest.json").read_bytes())["digest"]
    old.verify()


def test_it_makes_the_same_pictures(old_bundle: Path, tiny_bundle: Path) -> None:
    pictures = []
    for path in (old_bundle, tiny_bundle):
        with SafePipeline.from_pretrained(path, "onnxruntime:cpu") as pipe:
            for concepts in (None, ["blood", "fire"]):
                out = pipe("two dogs", safety="strong", safety_concept=concepts, seed=3,
                           num_inference_steps=3, output_type="np", progress=False)  # fmt: skip
                pictures.append(out.images)
    for one, other in zip(pictures[:2], pictures[2:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_port_of_a_new_bundle_has_a_role_of_its_kind(tiny_bundle: Path) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    assert manifest.version == VERSION
    for graph in manifest.graphs:
        assert {port.role for port in (*graph.inputs, *graph.outputs)} == set(
            KINDS[graph.kind].roles.values()
        )


@pytest.mark.parametrize("change", ["kind", "name", "graph", "port"])
def test_what_no_release_wrote_is_one_line(old_bundle: Path, change: str) -> None:
    data = json.loads((old_bundle / "manifest.json").read_bytes())
    if change == "kind":
        data["graphs"][0]["kind"] = "texts"
    elif change == "name":
        data["graphs"][0]["inputs"][0]["name"] = "ids"
    elif change == "graph":
        data["graphs"][0] = 5
    else:
        data["graphs"][0]["inputs"] = ["input_ids"]
    data["digest"] = manifest_digest(data)
    with pytest.raises(BundleError, match="is damaged"):
        manifest_from_json(json.dumps(data).encode(), path="manifest.json")
