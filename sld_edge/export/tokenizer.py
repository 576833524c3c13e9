"""A checkpoint's CLIP tokenizer → one ``tokenizer.json``, checked against the original."""

from __future__ import annotations

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


def write_tokenizer(tokenizer: Any, file: Path, *, vocabulary: int) -> tuple[int, int, int, int]:
    """Write ``tokenizer.json`` without truncation, padding or special tokens: the runtime adds those.

    Args:
        tokenizer: transformers' CLIP tokenizer of the checkpoint.
        file: File to write.
        vocabulary: Number of tokens that the text encoder has an embedding for.

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
    length = int(tokenizer.model_max_length)
    _check_embedded(tokenizer, vocabulary)
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


def _check_embedded(tokenizer: Any, vocabulary: int) -> None:
    """Refuse a token whose id lies outside the embedding: an engine would read memory that is not there."""
    token, highest = max(tokenizer.get_vocab().items(), key=lambda item: int(item[1]))
    if highest >= vocabulary:
        raise UnsupportedCheckpoint(
            f"the tokenizer's token {token!r} has id {highest}, and the text encoder has embeddings for"
            f" {vocabulary} tokens only",
            hint="save the text encoder with the embeddings of all tokens, or take the token out of tokenizer/",
        )
