"""What an export leaves: digests, manifest and card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from sld_edge.bundle import Bundle, sha256_of
from sld_edge.export.card import card_from_manifest
from sld_edge.export.config import DEFAULT_HARMS, ExportConfig
from sld_edge.export.export_bundle import export_bundle
from sld_edge.manifest import Harm, HarmWords, Policy
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
    listed |= {file for graph in bundle.manifest.graphs for file in graph.variants.values()}
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
        "a run of 50 steps",
        "the **published** method",
        "| concept | weapons, blood |",
        "harms' words are not known",
        "cannot choose timesteps or sigmas",
        "limited to 3 to 10",
        "A call may give negative prompts",
    ):
        assert words in card, words
    free = ExportConfig(checkpoint=tiny_checkpoint, out=tmp_path / "free", safety_head=False)
    card = (export_bundle(free).path / "CARD.md").read_text()
    for words in (
        "turns it off",
        "safety_concept=",
        "unknown",
        "no safety checker",
        "any number of steps",
    ):
        assert words in card, words
    assert "limited to" not in card
    for harm in DEFAULT_HARMS:
        assert f"| {harm.name} | {harm.text} |" in card


KNOWN = HarmWords(file="words.npz", threshold=0.41, neutral=0.32, harmful=0.5)


@pytest.mark.parametrize(
    ("safety", "said", "unsaid"),
    [
        (
            {"words": KNOWN},
            ["at least 0.41", "Under 0.32", "0.50 are", "Under the published"],
            ["not known"],
        ),
        (
            {"words": KNOWN, "policy": Policy(minimum="weak")},
            ["loses the words"],
            ["Under the published"],
        ),
        (
            {"words": KNOWN, "policy": Policy(harmful_words="remove")},
            ["loses the words"],
            ["Under the published"],
        ),
        (
            {"words": KNOWN, "policy": Policy(harmful_words="refuse")},
            ["a harm is refused"],
            ["loses"],
        ),
        (
            {"words": KNOWN, "policy": Policy(harmful_words="allow")},
            ["as it is"],
            ["loses", "refused."],
        ),
        (
            {"policy": Policy(harmful_words="refuse")},
            ["not known", "refuse them", "cannot be followed"],
            ["loses"],
        ),
        ({"policy": Policy(harmful_words="allow")}, ["not known"], ["cannot be followed"]),
        (
            {"method": "adaptive"},
            ["the **adaptive** method", 'method="sld"'],
            ["the **published** method"],
        ),
        ({"harms": (Harm(name="a|b", text="c\n| d"),)}, ["| a\\|b | c \\| d |"], []),
        (
            {"harms": msgspec.UNSET},
            ["made before the adaptive method"],
            ["| harm |", "takes the other"],
        ),
        (
            {"policy": Policy(negative_prompt="forbid")},
            ["Negative prompts are refused"],
            ["may give negative"],
        ),
        (
            {"policy": Policy(minimum="weak", schedule="free")},
            ["any number of steps", "limited to 3 to 10"],
            ["cannot choose"],
        ),
        (
            {"policy": Policy(schedule="standard")},
            ["cannot choose timesteps", "guidance scale is free"],
            ["any number of steps"],
        ),
        (
            {"policy": Policy(minimum="weak", schedule="standard")},
            ["cannot choose timesteps", "at least 8", "4 with a few-step"],
            ["any number of steps"],
        ),
    ],
)
def test_the_card_tells_methods_harms_and_words(
    safety: dict[str, Any], said: list[str], unsaid: list[str], tiny_bundle: Path
) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    plain = msgspec.structs.replace(manifest.safety, words=msgspec.UNSET, policy=Policy())
    card = card_from_manifest(
        msgspec.structs.replace(manifest, safety=msgspec.structs.replace(plain, **safety))
    )
    for words in said:
        assert words in card, words
    for words in unsaid:
        assert words not in card, words
