"""What an export leaves: digests, manifest and card."""

from __future__ import annotations

from pathlib import Path

import torch

from sld_edge.bundle import Bundle, sha256_of
from sld_edge.export.config import ExportConfig
from sld_edge.export.export_bundle import export_bundle
from sld_edge.manifest import Policy
from tests.export.conftest import QuickType, contents


def test_the_manifests_digests_are_the_files(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    found = {k: v for k, v in contents(tiny_bundle).items() if v != "folder"}
    found.pop("manifest.json")
    found = {name: digest for name, digest in found.items() if not name.startswith("cache/")}
    assert {name: file.sha256 for name, file in bundle.manifest.files.items()} == found
    for name, file in bundle.manifest.files.items():
        assert (tiny_bundle / name).stat().st_size == file.size
    listed = {graph.file for graph in bundle.manifest.graphs}
    listed |= {weights for graph in bundle.manifest.graphs for weights in graph.weights}
    assert {name for name in found if name.startswith("graphs/")} == listed


def test_the_manifest_says_what_it_was_made_from(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    assert manifest.source.name == tiny_checkpoint.name
    assert manifest.source.weights == {
        file.relative_to(tiny_checkpoint).as_posix(): sha256_of(file)
        for file in tiny_checkpoint.rglob("*.safetensors")
    }
    assert manifest.tools["torch"] == torch.__version__
    assert {graph.kind for graph in manifest.graphs} == {
        "text",
        "unet",
        "decode",
        "safety",
        "advance",
        "advance_many",
    }
    for graph in manifest.graphs:
        assert 0.0 <= graph.check.max_abs_error <= graph.check.tolerance, graph.file
        assert graph.check.reference.startswith(("torch", "numpy"))


def test_no_path_of_the_exporting_machine_is_in_a_bundle(
    tiny_bundle: Path, tiny_checkpoint: Path
) -> None:
    private = [str(Path.home()), str(tiny_checkpoint.parent), str(Path(torch.__file__).parent)]
    for file in tiny_bundle.rglob("*"):
        if file.is_file() and "cache" not in file.parts:
            data = file.read_bytes()
            for path in private:
                assert path.encode() not in data, f"{file.name} names {path}"


def test_the_card_names_concept_policy_and_licence(
    tmp_path: Path, tiny_checkpoint: Path, quick: QuickType
) -> None:
    strict = ExportConfig(
        checkpoint=tiny_checkpoint,
        out=tmp_path / "strict",
        concept="weapons, blood",
        safety_default="strong",
        policy=Policy(minimum="medium", concept="required", unsafe_images="withhold"),
        licence="creativeml-openrail-m",
    )
    card = (export_bundle(strict).path / "CARD.md").read_text()
    for words in (
        "> weapons, blood",
        "**strong**",
        "nothing weaker than **medium**",
        "no call can name another",
        "never handed out",
        "creativeml-openrail-m",
        "What is not covered",
        "Intended use",
    ):
        assert words in card, words
    free = ExportConfig(checkpoint=tiny_checkpoint, out=tmp_path / "free", safety_head=False)
    card = (export_bundle(free).path / "CARD.md").read_text()
    for words in ("turns it off", "safety_concept=", "unknown", "no safety checker"):
        assert words in card, words
