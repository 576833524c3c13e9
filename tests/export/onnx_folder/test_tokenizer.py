"""CLIP's tokenizer without transformers gives transformers' ids."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from sld_edge.errors import InvalidInput, UnsupportedCheckpoint
from sld_edge.export.onnx_folder.tokenizer import write_folder_tokenizer

LENGTH = 77
TEXTS = (
    "", "a castle by a lake", "An Oil-Painting, of   TWO dogs!!", "it's the artist's 3rd (third) try: 100% 'sure'",
    "café naïve Ünïcödé — “quotes” …", "日本語のテキスト 한국어 🙂🚀", "line\nbreak\tand tab",
    "<|endoftext|> <|startoftext|>", "a <|EndOfText|> b", "word " * 120, "ﬁ ① ½ İ ß", "\u200b a\u00a0b",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tiny_checkpoint: Path) -> Path:
    return tiny_checkpoint / "tokenizer"


def written(folder: Path, out: Path, **options: Any) -> tuple[Any, tuple[int, ...]]:
    ids = write_folder_tokenizer(
        folder, out, **{"vocabulary": None, "positions": LENGTH, **options}
    )
    return tokenizers.Tokenizer.from_file(str(out)), ids


def ours(tokenizer: Any, ids: tuple[int, ...], text: str) -> list[int]:
    bos, eos, pad, length = ids
    body = tokenizer.encode(text, add_special_tokens=False).ids[: length - 2]
    row = [bos, *body, eos]
    return row + [pad] * (length - len(row))


def theirs(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, padding="max_length", max_length=LENGTH, truncation=True).input_ids)


def test_texts_that_tokenizers_disagree_on(folder: Path, tmp_path: Path) -> None:
    tokenizer, ids = written(folder, tmp_path / "t.json")
    reference = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    for text in TEXTS:
        assert ours(tokenizer, ids, text) == theirs(reference, text), text


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=40))
def test_any_text(text: str, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.getbasetemp() / "any-tokenizer.json"
    tokenizer, ids = written(folder, out)
    reference = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    assert ours(tokenizer, ids, text) == theirs(reference, text)


def test_flags_and_added_tokens_as_older_releases_save_them(folder: Path, tmp_path: Path) -> None:
    """Another padding token, tokens beside the vocabulary, and special tokens with their flags."""
    copy = Path(shutil.copytree(folder, tmp_path / "tokenizer"))
    vocabulary = json.loads((copy / "vocab.json").read_text("utf-8"))
    config = json.loads((copy / "tokenizer_config.json").read_text("utf-8"))
    flags = {
        "lstrip": False,
        "normalized": True,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }
    config["added_tokens_decoder"] = {
        str(vocabulary[text]): {"content": text, **flags}
        for text in ("<|startoftext|>", "<|endoftext|>")
    } | {str(len(vocabulary)): {"content": "<mine>", **flags, "special": False}}
    config["pad_token"] = "!"
    (copy / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    tokenizer, ids = written(copy, tmp_path / "t.json")
    reference = CLIPTokenizer.from_pretrained(copy, local_files_only=True)
    assert ids[2] == reference.pad_token_id == vocabulary["!"]
    for text in (*TEXTS, "a <mine> b", "a <mine>s"):
        assert ours(tokenizer, ids, text) == theirs(reference, text), text


def test_what_is_no_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "tokenizer"))
    with pytest.raises(UnsupportedCheckpoint, match="embeddings for 5 tokens only"):
        written(copy, tmp_path / "t.json", vocabulary=5)
    (copy / "vocab.json").write_text("{", "utf-8")
    with pytest.raises(InvalidInput, match="tokenizer cannot be read"):
        written(copy, tmp_path / "t.json")
    (copy / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "T5Tokenizer"}), "utf-8"
    )
    with pytest.raises(UnsupportedCheckpoint, match=r"not CLIP's: 'T5Tokenizer'"):
        written(copy, tmp_path / "t.json")
