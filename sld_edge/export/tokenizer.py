"""A checkpoint's CLIP tokenizer → one ``tokenizer.json``, checked against the original."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sld_edge.errors import ExportError, UnsupportedCheckpoint

#: Texts that tokenizers like to disagree on.
_TRICKY = (
    "",
    "a castle by a lake",
    "An Oil-Painting, of   TWO dogs!!",
    "it's the artist's 3rd (third) try: 100% 'sure'",
    "café naïve Ünïcödé — “quotes” …",
    "日本語のテキスト 한국어 🙂🚀",
    "line\nbreak\tand tab",
    "<|endoftext|> <|startoftext|>",
    "word " * 120,
)
#: Begin, one token, end.
_SHORTEST = 3


def write_tokenizer(
    tokenizer: Any, file: Path, *, vocabulary: int, positions: int
) -> tuple[int, int, int, int]:
    """Write ``tokenizer.json`` without truncation, padding or special tokens: the runtime adds those.

    Args:
        tokenizer: transformers' CLIP tokenizer of the checkpoint.
        file: File to write.
        vocabulary: Number of tokens that the text encoder has an embedding for.
        positions: Longest text that the text encoder takes, in tokens.

    Returns:
        Ids of begin, end and padding, and the text length.

    Raises:
        UnsupportedCheckpoint: it is not a CLIP tokenizer, or a token of it has no embedding.
        ExportError: the written one gives other ids.
    """
    import tokenizers

    ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    if any(one is None for one in ids) or not hasattr(tokenizer, "backend_tokenizer"):
        raise UnsupportedCheckpoint("the tokenizer is not CLIP's", value=type(tokenizer).__name__)
    bos, eos, pad = (int(one) for one in ids)
    length = text_length(tokenizer.model_max_length, positions)
    check_embedded(tokenizer.get_vocab(), vocabulary)
    copy = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.save(str(file))
    written = tokenizers.Tokenizer.from_file(str(file))
    added = [f"a {token} by a {token}, {token}s" for token in tokenizer.get_added_vocab()]
    for text in (*_TRICKY, *added):
        want = tokenizer(text, padding="max_length", max_length=length, truncation=True).input_ids
        body = written.encode(text, add_special_tokens=False).ids[: length - 2]
        got = [bos, *body, eos]
        if got + [pad] * (length - len(got)) != list(want):
            raise ExportError(
                "the written tokenizer gives other ids than the checkpoint's", value=text
            )
    return bos, eos, pad, length


def check_embedded(tokens: Mapping[str, Any], vocabulary: int) -> None:
    """Refuse a token whose id lies outside the embedding: an engine would read memory that is not there."""
    token, highest = max(tokens.items(), key=lambda item: int(item[1]))
    if highest >= vocabulary:
        raise UnsupportedCheckpoint(
            f"the tokenizer's token {token!r} has id {highest}, and the text encoder has embeddings for"
            f" {vocabulary} tokens only",
            hint="save the text encoder with the embeddings of all tokens, or take the token out of tokenizer/",
        )


def text_length(stated: Any, positions: int) -> int:
    """Tokens of a text: what the tokenizer says, or what the encoder takes where that is less.

    transformers assumes 10^30 for a tokenizer that says nothing.
    """
    length = min(stated, positions) if isinstance(stated, (int, float)) else positions
    if not length >= _SHORTEST or length != int(length):
        raise UnsupportedCheckpoint(
            "the tokenizer's model_max_length leaves no room for a text",
            value=stated,
            hint=f"use a whole number up to the text encoder's {positions}",
        )
    return int(length)
