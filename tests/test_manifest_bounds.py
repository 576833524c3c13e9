"""A manifest that was signed again with senseless numbers is refused before memory is asked for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sld_edge.bundle import Bundle
from sld_edge.errors import BundleError
from sld_edge.runtime.tokenize import Tokenizer
from tests.test_bundle import make_bundle


def signed_again(folder: Path, change: Any) -> Path:
    """Write what ``change`` made of the manifest's JSON, with the digest that belongs to it."""
    file = folder / "manifest.json"
    data = json.loads(file.read_text("utf-8"))
    change(data)
    data["digest"] = ""
    canonical = msgspec.json.encode(data, order="sorted")
    data["digest"] = hashlib.sha256(canonical).hexdigest()
    file.write_bytes(msgspec.json.encode(data))
    return folder


def put(*path: Any) -> Any:
    """A change that sets the last of ``path`` at the place that the others name."""
    *names, last, value = path

    def change(data: Any) -> None:
        for name in names:
            data = data[name]
        data[last] = value

    return change


SENSELESS = [
    *(put("model", "vae_scale_factor", n) for n in (0, -8, 10**9, 2.5, "8", None, 3)),
    *(put("model", "text_length", n) for n in (0, -1, 2, 10**9, 10**30)),
    *(put("model", "latent_channels", n) for n in (0, -4, 10**9)),
    put("shapes", []),
    *(put("shapes", 0, "height", n) for n in (0, -64, 63, 10**9)),
    *(put("shapes", 0, "batch", n) for n in (0, -1, 10**9)),
    *(put("tokenizer", "pad", n) for n in (-1, 10**9)),
    put("files", "CARD.md", "size", -1),
    put("files", "CARD.md", "sha256", "x"),
    put("graphs", 0, "height", -64),
    put("graphs", 0, "inputs", [{"name": "latents", "dtype": "float32", "shape": ["B", 4, 8, -8]}]),
    put("graphs", 0, "inputs", [{"name": "latents", "dtype": "float32", "shape": ["B", 9, 8, 8]}]),
    put("graphs", 0, "inputs", [{"name": "latents", "dtype": "float32", "shape": []}]),
    put("graphs", 0, "outputs", [{"name": "x", "dtype": "float32", "shape": [10**9]}]),
]


@pytest.mark.parametrize("change", SENSELESS)
def test_senseless_numbers_are_one_line(tmp_path: Path, change: Any) -> None:
    folder = signed_again(make_bundle(tmp_path / "b"), change)
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert "digest" not in text, "the change was not signed as its author would"


def test_signing_again_alone_changes_nothing(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    before = Bundle.open(folder).digest
    assert Bundle.open(signed_again(folder, lambda data: None)).digest == before


@pytest.mark.parametrize("name", ["bos", "eos", "pad"])
def test_a_token_beyond_the_vocabulary_is_refused(copied_tiny: Path, name: str) -> None:
    with pytest.raises(BundleError, match=f"the {name} token"):
        Tokenizer(Bundle.open(signed_again(copied_tiny, put("tokenizer", name, 100_000))))


@pytest.fixture
def copied_tiny(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The tiny bundle's manifest and tokenizer."""
    for name in ("manifest.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((tiny_bundle / name).read_bytes())
    return tmp_path
