"""CLIP's tokenizer from its vocabulary and merges, as transformers reads them; needs no transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from sld_edge.errors import InvalidInput, UnsupportedCheckpoint
from sld_edge.export.checkpoint import read_json
from sld_edge.export.tokenizer import check_embedded, text_length

_KINDS: Final = ("CLIPTokenizer", "CLIPTokenizerFast")
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
#: What CLIP takes for words: contractions, letters, single digits, other signs.
_WORDS: Final = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
_SPECIAL: Final = ("unk_token", "bos_token", "eos_token", "pad_token")


def write_folder_tokenizer(
    folder: Path, file: Path, *, vocabulary: int | None, positions: int
) -> tuple[int, int, int, int]:
    """Write ``tokenizer.json`` without truncation, padding or special tokens: the runtime adds those.

    Args:
        folder: With ``vocab.json`` and ``merges.txt``, or ``tokenizer.json``, and their configuration.
        file: File to write.
        vocabulary: Number of tokens that the text encoder has an embedding for; None leaves it unchecked.
        positions: Longest text that the text encoder takes, in tokens.

    Returns:
        Ids of begin, end and padding, and the text length.

    Raises:
        InvalidInput: a file is missing or damaged.
        UnsupportedCheckpoint: it is not a CLIP tokenizer, or a token of it has no embedding.
    """
    config = read_json(folder / "tokenizer_config.json")
    kind = config.get("tokenizer_class", _KINDS[0])
    if kind not in _KINDS:
        raise UnsupportedCheckpoint("the tokenizer is not CLIP's", value=kind)
    special = {name: _content(config.get(name)) or _END for name in _SPECIAL}
    special["bos_token"] = _content(config.get("bos_token")) or _BEGIN
    if (folder / "special_tokens_map.json").is_file():
        said = read_json(folder / "special_tokens_map.json")
        special |= {name: text for name in _SPECIAL if (text := _content(said.get(name)))}
    try:
        tokenizer = _made(folder, special["unk_token"])
        _add_tokens(tokenizer, folder, config, special)
    except (InvalidInput, UnsupportedCheckpoint):
        raise
    except Exception as error:  # the library raises plain Exception
        raise InvalidInput(
            f"the tokenizer cannot be read ({str(error)[:200]})", hint="restore tokenizer/"
        ) from None
    ids = [tokenizer.token_to_id(special[name]) for name in ("bos_token", "eos_token", "pad_token")]
    if None in ids:
        raise UnsupportedCheckpoint(
            "the tokenizer lacks a special token", value=sorted(special.values())
        )
    if vocabulary is not None:
        check_embedded(tokenizer.get_vocab(with_added_tokens=True), vocabulary)
    length = text_length(config.get("model_max_length"), positions)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(file))
    return ids[0], ids[1], ids[2], length


def _made(folder: Path, unknown: str) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not vocabulary.is_file() and (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    for file in (vocabulary, merges):
        if not file.is_file():
            raise InvalidInput(
                "a file of the ONNX folder is missing", value="/".join(file.parts[-2:])
            )
    tokenizer = Tokenizer(
        BPE.from_file(
            str(vocabulary), str(merges), unk_token=unknown,
            continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False,
        )
    )  # fmt: skip
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _add_tokens(
    tokenizer: Any, folder: Path, config: Mapping[str, Any], special: Mapping[str, str]
) -> None:
    """Tokens beside the vocabulary in the order of their ids, then the special ones that are not yet known."""
    from tokenizers import AddedToken

    for number, entry in sorted(_added(folder, config), key=lambda one: one[0]):
        content = str(entry["content"])
        flags = {
            name: bool(entry[name])
            for name in ("single_word", "lstrip", "rstrip", "normalized")
            if name in entry
        }
        token = AddedToken(content, special=bool(entry.get("special")), **flags)
        add = tokenizer.add_special_tokens if entry.get("special") else tokenizer.add_tokens
        add([token])
        if tokenizer.token_to_id(content) != number:
            raise UnsupportedCheckpoint(
                "an added token has another id than the tokenizer says", value=content
            )
    listed = {_content(one) for one in tokenizer.get_added_tokens_decoder().values()} if hasattr(
        tokenizer, "get_added_tokens_decoder") else set()  # fmt: skip
    for text in special.values():
        if text not in listed:
            tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False)])


def _added(folder: Path, config: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        for number, entry in decoder.items():
            if isinstance(entry, dict) and "content" in entry:
                yield int(number), entry
    elif (folder / "added_tokens.json").is_file():
        for content, number in read_json(folder / "added_tokens.json").items():
            yield int(number), {"content": content}


def _content(token: Any) -> str:
    """The text of a token that is written as text, or with its flags."""
    text = token.get("content") if isinstance(token, dict) else getattr(token, "content", token)
    return text if isinstance(text, str) else ""
