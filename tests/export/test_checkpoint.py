"""A checkpoint that cannot be exported faithfully is refused by name: one line, its exit status, no traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sld_edge.errors import InvalidInput, UnsupportedCheckpoint
from sld_edge.export.checkpoint import Checkpoint, open_checkpoint
from sld_edge.export.tokenizer import text_length
from sld_edge.manifest import Shape
from tests.export.conftest import QuickExporter, Shell

WRONG, UNSUPPORTED = 2, 5
UNET = "unet/diffusion_pytorch_model.safetensors"

Damage = Callable[[Path], Any]


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def change(folder: Path, file: str, **values: Any) -> None:
    """Set or (with ...) remove entries of a JSON file."""
    data = json.loads((folder / file).read_text())
    for key, value in values.items():
        if value is ...:
            data.pop(key, None)
        else:
            data[key] = value
    (folder / file).write_text(json.dumps(data))


def change_weights(folder: Path, file: str, name: str, new: Callable[[Any], Any]) -> None:
    """Replace one tensor; ``new`` giving None removes it."""
    weights = load_file(folder / file)
    made = new(weights.pop(name))
    if made is not None:
        weights[name] = made
    save_file(weights, folder / file, metadata={"format": "pt"})


def truncate(folder: Path, file: str, size: int = -100) -> None:
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[:size])


def to_pickle(folder: Path) -> None:
    (folder / UNET).unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")


def sharded(folder: Path, named: dict[str, str]) -> None:
    (folder / UNET).unlink()
    (folder / f"{UNET}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": named}))


def nan_at(name: str, file: str = UNET) -> Damage:
    def spoil(tensor: Any) -> Any:
        tensor.view(-1)[0] = torch.nan
        return tensor

    return lambda folder: change_weights(folder, file, name, spoil)


REFUSED: dict[str, tuple[Damage, int, list[str]]] = {
    "SDXL": (
        lambda c: change(c, "model_index.json", _class_name="StableDiffusionXLPipeline"),
        UNSUPPORTED,
        ["StableDiffusionXLPipeline"],
    ),
    "a second text encoder": (
        lambda c: change(
            c,
            "model_index.json",
            text_encoder_2=["transformers", "CLIPTextModelWithProjection"],
        ),
        UNSUPPORTED,
        ["text_encoder_2", "CLIPTextModelWithProjection"],
    ),
    "another pipeline": (
        lambda c: change(c, "model_index.json", _class_name="FluxPipeline"),
        UNSUPPORTED,
        ["FluxPipeline"],
    ),
    "another text encoder": (
        lambda c: change(c, "model_index.json", text_encoder=["transformers", "T5EncoderModel"]),
        UNSUPPORTED,
        ["text_encoder", "T5EncoderModel"],
    ),
    "another safety checker": (
        lambda c: change(c, "model_index.json", safety_checker=["mine", "MyChecker"]),
        UNSUPPORTED,
        ["safety_checker", "MyChecker"],
    ),
    "an entry that is no pair": (
        lambda c: change(c, "model_index.json", unet=7),
        UNSUPPORTED,
        ["unet", "7"],
    ),
    "inpainting": (
        lambda c: change(c, "unet/config.json", in_channels=9),
        UNSUPPORTED,
        ["inpainting", "9"],
    ),
    "no safety checker": (
        lambda c: change(c, "model_index.json", safety_checker=[None, None]),
        UNSUPPORTED,
        ["safety_checker", "--without-safety-head"],
    ),
    "pickles": (to_pickle, UNSUPPORTED, [".bin", "safetensors"]),
    "an attention mask": (
        lambda c: change(c, "text_encoder/config.json", use_attention_mask=True),
        UNSUPPORTED,
        ["attention mask"],
    ),
    "a VAE that normalises": (
        lambda c: change(c, "vae/config.json", latents_mean=[0.0] * 4),
        UNSUPPORTED,
        ["VAE normalises"],
    ),
    "a VAE of other channels": (
        lambda c: change(c, "vae/config.json", latent_channels=16),
        UNSUPPORTED,
        ["latent channels", "16"],
    ),
    "an unknown prediction type": (
        lambda c: change(c, "scheduler/scheduler_config.json", prediction_type="flow"),
        UNSUPPORTED,
        ["prediction_type", "flow"],
    ),
    "no model index": (
        lambda c: (c / "model_index.json").unlink(),
        WRONG,
        ["no diffusers checkpoint"],
    ),
    "no unet": (lambda c: shutil.rmtree(c / "unet"), WRONG, ["missing", "unet/config.json"]),
    "no weights": (lambda c: (c / UNET).unlink(), WRONG, ["missing", UNET]),
    "no scheduler": (
        lambda c: (c / "scheduler" / "scheduler_config.json").unlink(),
        WRONG,
        ["missing", "scheduler_config.json"],
    ),
    "no tokenizer": (lambda c: shutil.rmtree(c / "tokenizer"), WRONG, ["tokenizer"]),
    "no image processor": (
        lambda c: shutil.rmtree(c / "feature_extractor"),
        WRONG,
        ["missing", "preprocessor_config.json"],
    ),
    "a missing shard": (
        lambda c: sharded(c, {"conv_in.weight": "part-2.safetensors"}),
        WRONG,
        ["part-2.safetensors"],
    ),
    "an empty shard index": (lambda c: sharded(c, {}), WRONG, ["index"]),
    "truncated weights": (lambda c: truncate(c, UNET), WRONG, ["damaged", UNET]),
    "a truncated header": (lambda c: truncate(c, UNET, 50), WRONG, ["damaged", UNET]),
    "an empty weight file": (lambda c: truncate(c, UNET, 0), WRONG, ["damaged", UNET]),
    "text in place of weights": (
        lambda c: (c / UNET).write_text("version https://git-lfs.github.com/spec/v1\n"),
        WRONG,
        ["damaged", UNET],
    ),
    "a configuration that is no JSON": (
        lambda c: truncate(c, "unet/config.json"),
        WRONG,
        ["not JSON", "unet/config.json"],
    ),
    "a configuration that is a list": (
        lambda c: (c / "vae" / "config.json").write_text("[]"),
        WRONG,
        ["not a JSON object", "vae/config.json"],
    ),
    "a configuration that is not UTF-8": (
        lambda c: (c / "unet" / "config.json").write_bytes(b"\xff\xfe{}"),
        WRONG,
        ["not JSON", "unet/config.json"],
    ),
}

#: What shows only when the weights are read.
BROKEN: dict[str, tuple[Damage, list[str]]] = {
    "NaN in the unet": (nan_at("conv_in.weight"), ["unet", "not finite", "conv_in.weight"]),
    "NaN in the VAE": (
        nan_at("decoder.conv_out.bias", "vae/diffusion_pytorch_model.safetensors"),
        ["vae", "not finite", "decoder.conv_out.bias"],
    ),
    "NaN in the safety checker": (
        nan_at("concept_embeds_weights", "safety_checker/model.safetensors"),
        ["safety_checker", "not finite", "concept_embeds_weights"],
    ),
    "a weight is missing": (
        lambda c: change_weights(c, UNET, "mid_block.resnets.0.conv1.weight", lambda _: None),
        ["unet", "lacks", "mid_block.resnets.0.conv1.weight"],
    ),
    "a text weight is missing": (
        lambda c: change_weights(
            c,
            "text_encoder/model.safetensors",
            "encoder.layers.0.mlp.fc1.weight",
            lambda _: None,
        ),
        ["text_encoder", "lacks", "layers.0.mlp.fc1.weight"],
    ),
    "a weight of another shape": (
        lambda c: change_weights(c, UNET, "conv_out.bias", lambda old: old[:2].clone()),
        ["unet", "cannot be loaded", "conv_out.bias"],
    ),
    "a configuration without sense": (
        lambda c: change(c, "unet/config.json", block_out_channels="wide"),
        ["unet", "cannot be loaded"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_or_incomplete_is_refused_by_name(
    name: str, checkpoint: Path, tmp_path: Path, sld_export: Shell, quick: type[QuickExporter]
) -> None:
    damage, status, words = REFUSED[name]
    damage(checkpoint)
    sld_export(checkpoint, tmp_path / "out", "-q").refuses(status, *words)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint"]


def unet_option(name: str, value: Any) -> Damage:
    return lambda folder: change(folder, "unet/config.json", **{name: value})


def few_distilled_steps(folder: Path) -> None:
    change(folder, "scheduler/scheduler_config.json", original_inference_steps=20)
    change(folder, "model_index.json", scheduler=["diffusers", "LCMScheduler"])


#: What diffusers does not care about either.
TAKEN: dict[str, Damage] = {
    "a trained average's settings": lambda c: change(
        c, "unet/config.json", decay=0.9999, inv_gamma=1.0, optimization_step=500, power=0.75
    ),
    "a key of another library": unet_option("my_note", {"trained": "well"}),
    "a size of an embedding that is not there": unet_option("addition_time_embed_dim", 256),
    "image to image": lambda c: change(
        c, "model_index.json", _class_name="StableDiffusionImg2ImgPipeline"
    ),
    "inpainting without channels of its own": lambda c: change(
        c, "model_index.json", _class_name="StableDiffusionInpaintPipeline"
    ),
    "a Flax scheduler's file": lambda c: change(
        c, "scheduler/scheduler_config.json", _class_name="FlaxDDIMScheduler"
    ),
    "few distilled steps": few_distilled_steps,
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_diffusers_takes_is_taken(
    name: str, checkpoint: Path, tmp_path: Path, sld_export: Shell, quick: type[QuickExporter]
) -> None:
    TAKEN[name](checkpoint)
    result = sld_export(checkpoint, tmp_path / "out", "-q")
    assert result.status == 0, result.err


def scheduler_of(bundle: Path) -> dict[str, Any]:
    return dict(json.loads((bundle / "manifest.json").read_text())["scheduler"])


def test_the_scheduler_is_the_one_that_the_index_names(
    checkpoint: Path, tmp_path: Path, sld_export: Shell, quick: type[QuickExporter]
) -> None:
    change(checkpoint, "model_index.json", scheduler=["diffusers", "EulerDiscreteScheduler"])
    assert sld_export(checkpoint, tmp_path / "out", "-q").status == 0
    exported = scheduler_of(tmp_path / "out")
    theirs = json.loads((checkpoint / "scheduler" / "scheduler_config.json").read_text())
    assert exported == {**theirs, "_class_name": "EulerDiscreteScheduler"}


def test_a_checkpoint_whose_scheduler_is_not_supported_takes_another(
    checkpoint: Path, tmp_path: Path, sld_export: Shell, quick: type[QuickExporter]
) -> None:
    change(checkpoint, "model_index.json", scheduler=["diffusers", "SASolverScheduler"])
    result = sld_export(checkpoint, tmp_path / "out", "-q")
    result.refuses(UNSUPPORTED, "SASolverScheduler", "--scheduler")
    sld_export(checkpoint, tmp_path / "out", "-q", "--scheduler", "heun9000").refuses(
        WRONG, "unknown scheduler", "heun9000"
    )
    assert sld_export(checkpoint, tmp_path / "out", "-q", "--scheduler", "heun_karras").status == 0
    exported = scheduler_of(tmp_path / "out")
    assert exported["_class_name"] == "HeunDiscreteScheduler"
    assert exported["use_karras_sigmas"] is True
    assert exported["beta_end"] == 0.012


@pytest.mark.parametrize(
    ("size", "pixels"), [([8, 12], "64x96"), (16, "128x128"), ([24, 8], "192x64")]
)
def test_the_size_is_the_networks(
    size: Any,
    pixels: str,
    checkpoint: Path,
    tmp_path: Path,
    sld_export: Shell,
    quick: type[QuickExporter],
) -> None:
    change(checkpoint, "unet/config.json", sample_size=size)
    assert sld_export(checkpoint, tmp_path / "out", "-q").status == 0
    (shape,) = json.loads((tmp_path / "out" / "manifest.json").read_text())["shapes"]
    assert f"{shape['height']}x{shape['width']}" == pixels


def test_an_old_files_size_of_32_is_64_as_in_diffusers(checkpoint: Path) -> None:
    change(checkpoint, "unet/config.json", sample_size=32, _diffusers_version="0.6.0")
    assert open_checkpoint(checkpoint).sample_size == (64, 64)


def add_tokens(folder: Path, *tokens: str) -> None:
    """Add learned words to the tokenizer, as load_textual_inversion does."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.add_tokens(list(tokens))
    tokenizer.save_pretrained(folder / "tokenizer")


def grow_embedding(folder: Path, by: int) -> None:
    file = "text_encoder/model.safetensors"
    name = next(one for one in load_file(folder / file) if one.endswith("token_embedding.weight"))
    change_weights(folder, file, name, lambda old: torch.cat([old, old[:by] + 1.0]))
    config = json.loads((folder / "text_encoder" / "config.json").read_text())
    change(folder, "text_encoder/config.json", vocab_size=config["vocab_size"] + by)


def test_a_token_without_an_embedding_is_refused(
    checkpoint: Path, tmp_path: Path, sld_export: Shell, quick: type[QuickExporter]
) -> None:
    add_tokens(checkpoint, "<x>")
    sld_export(checkpoint, tmp_path / "out", "-q").refuses(UNSUPPORTED, "'<x>'", "embeddings")
    grow_embedding(checkpoint, 1)
    assert sld_export(checkpoint, tmp_path / "out", "-q").status == 0


def test_a_learned_word_of_many_vectors_is_spelt_out_as_in_diffusers(
    checkpoint: Path, tmp_path: Path, sld_export: Shell, quick: type[QuickExporter]
) -> None:
    from diffusers.loaders import TextualInversionLoaderMixin
    from transformers import CLIPTokenizer

    from sld_edge.bundle import Bundle
    from sld_edge.runtime.tokenize import Tokenizer

    add_tokens(checkpoint, "<x>", "<x>_1", "<x>_2", "<y>", "<z>_1")
    grow_embedding(checkpoint, 5)
    assert sld_export(checkpoint, tmp_path / "out", "-q").status == 0
    ours = Tokenizer(Bundle.open(tmp_path / "out"))
    theirs = CLIPTokenizer.from_pretrained(checkpoint / "tokenizer")
    convert = TextualInversionLoaderMixin().maybe_convert_prompt
    for prompt in ("a <x> by a lake", "<x>", "<y> and <x>, <x>s", "a <z>_1 dog", "x < x >"):
        want = theirs(convert(prompt, theirs), padding="max_length", max_length=77).input_ids
        assert ours.encode([prompt], what="prompt").ids[0].tolist() == want, prompt
    spelt = ours.encode(["a <x> <x>_1 <x>_2 dog", "a <x> dog"], what="prompt").ids
    assert spelt[0].tolist() == spelt[1].tolist()
    concept = ours.encode_concept("<x>")[0]
    assert len(set(concept[1:4].tolist())) == 3


def some_weights(file: Path, names: list[str], shape: tuple[int, ...] = (4, 8)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: torch.zeros(shape) for name in names}, file)
    return file


def inside(made: Path) -> Path:
    return made.parent


#: What a path may be instead of a checkpoint, and what is said of it.
OTHERS: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "a LoRA folder": (
        lambda t: inside(some_weights(t / "l" / "pytorch_lora_weights.safetensors", ["unet.x"])),
        ["LoRA", "fuse"],
    ),
    "a LoRA file": (
        lambda t: some_weights(t / "style.safetensors", ["lora_unet_down_blocks_0.lora_up.weight"]),
        ["LoRA", "fuse"],
    ),
    "an inversion file": (
        lambda t: some_weights(t / "cat.safetensors", ["<cat>"], (3, 768)),
        ["textual inversion", "load_textual_inversion"],
    ),
    "an inversion folder": (
        lambda t: inside(some_weights(t / "i" / "learned_embeds.safetensors", ["<cat>"], (768,))),
        ["textual inversion", "load_textual_inversion"],
    ),
    "a checkpoint of one file": (
        lambda t: some_weights(t / "v1.safetensors", ["model.diffusion_model.time_embed.0.weight"]),
        ["one file", "from_single_file"],
    ),
    "a folder with one": (
        lambda t: inside(some_weights(t / "m" / "v1.safetensors", ["model.diffusion_model.a"])),
        ["one file, v1.safetensors", "from_single_file"],
    ),
    "a folder too high": (
        lambda t: (
            Path(
                shutil.copytree(t.parent / "tiny-index", t / "hub" / "snapshots" / "abc")
            ).parent.parent
        ),
        ["further down", "abc"],
    ),
    "a text file": (lambda t: _written(t / "readme.md"), ["a file", "model_index.json"]),
    "an empty folder": (lambda t: _made(t / "empty"), ["no diffusers checkpoint", "empty"]),
}


def _written(file: Path) -> Path:
    file.write_text("text")
    return file


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_checkpoint_is_called_what_it_is(
    name: str, tmp_path: Path, sld_export: Shell
) -> None:
    index = tmp_path / "tiny-index"
    index.mkdir()
    (index / "model_index.json").write_text("{}")
    (tmp_path / "given").mkdir()
    make, words = OTHERS[name]
    sld_export(make(tmp_path / "given"), tmp_path / "out", "-q").refuses(WRONG, *words)


def test_one_part_of_a_checkpoint_and_a_bundle_are_called_so(
    checkpoint: Path, tmp_path: Path, sld_export: Shell, quick: type[QuickExporter]
) -> None:
    sld_export(checkpoint / "unet", tmp_path / "out", "-q").refuses(WRONG, "UNet2DConditionModel")
    sld_export(checkpoint, tmp_path / "out", "-q")
    sld_export(tmp_path / "out", tmp_path / "again", "-q").refuses(WRONG, "bundle already")


def test_a_models_id_is_called_so(
    tmp_path: Path, sld_export: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = sld_export("somebody/stable-diffusion-v1-5", tmp_path / "out", "-q")
    result.refuses(WRONG, "somebody/stable-diffusion-v1-5", "id on a hub", "download")


def test_files_lying_beside_are_said_not_to_be_applied(
    checkpoint: Path,
    tmp_path: Path,
    sld_export: Shell,
    quick: type[QuickExporter],
    caplog: pytest.LogCaptureFixture,
) -> None:
    some_weights(checkpoint / "learned_embeds.safetensors", ["<cat>"], (1, 768))
    some_weights(checkpoint / "pytorch_lora_weights.safetensors", ["unet.lora_A.weight"])
    assert sld_export(checkpoint, tmp_path / "out", "-q").status == 0
    assert "learned_embeds.safetensors is not applied" in caplog.text
    assert "pytorch_lora_weights.safetensors is not applied" in caplog.text


@pytest.mark.parametrize("part", ["safety_checker", "feature_extractor"])
def test_a_missing_part_of_the_safety_head_says_how_to_go_on_without(
    part: str, checkpoint: Path, tmp_path: Path, sld_export: Shell, quick: type[QuickExporter]
) -> None:
    shutil.rmtree(checkpoint / part)
    sld_export(checkpoint, tmp_path / "out", "-q").refuses(
        WRONG, "missing", part, "--without-safety-head"
    )
    assert sld_export(checkpoint, tmp_path / "out", "-q", "--without-safety-head").status == 0


def load_everything(opened: Checkpoint) -> None:
    for load in (
        opened.load_unet,
        opened.load_text_encoder,
        opened.load_vae,
        opened.load_safety_checker,
    ):
        load()


@pytest.mark.parametrize("name", BROKEN)
def test_weights_that_are_broken_are_refused_by_name(name: str, checkpoint: Path) -> None:
    damage, words = BROKEN[name]
    damage(checkpoint)
    opened = open_checkpoint(checkpoint)
    with pytest.raises(InvalidInput) as refusal:
        load_everything(opened)
    assert "\n" not in str(refusal.value)
    for word in words:
        assert word in str(refusal.value)


def test_broken_weights_end_the_command_with_one_line(
    checkpoint: Path, tmp_path: Path, sld_export: Shell
) -> None:
    nan_at("conv_in.weight")(checkpoint)
    sld_export(checkpoint, tmp_path / "out", "-q").refuses(WRONG, "not finite", "conv_in.weight")
    assert not (tmp_path / "out").exists()


def test_a_single_file_is_refused_with_the_way_out(tmp_path: Path, sld_export: Shell) -> None:
    file = tmp_path / "v1-5-pruned-emaonly.safetensors"
    file.write_bytes(b"x")
    result = sld_export(file, tmp_path / "out", "-q")
    result.refuses(WRONG, "one file", "from_single_file")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, sld_export: Shell) -> None:
    sld_export(tmp_path / "nowhere", tmp_path / "out", "-q").refuses(WRONG, "nowhere")


def test_a_checkpoint_without_a_checker_is_taken_when_told_so(
    checkpoint: Path, tmp_path: Path, sld_export: Shell, quick: type[QuickExporter]
) -> None:
    change(checkpoint, "model_index.json", safety_checker=[None, None])
    shutil.rmtree(checkpoint / "safety_checker")
    shutil.rmtree(checkpoint / "feature_extractor")
    result = sld_export(checkpoint, tmp_path / "out", "-q", "--without-safety-head")
    assert result.status == 0, result.err
    assert "no safety checker" in (tmp_path / "out" / "CARD.md").read_text()


def test_half_precision_files_are_found(checkpoint: Path) -> None:
    """As diffusers' ``variant="fp16"`` writes them, where there are no others."""
    want = load_file(checkpoint / UNET)
    half = {name: tensor.half() for name, tensor in want.items()}
    save_file(half, checkpoint / UNET.replace(".saf", ".fp16.saf"), metadata={"format": "pt"})
    (checkpoint / UNET).unlink()
    opened = open_checkpoint(checkpoint)
    assert opened.variants["unet"] == "fp16"
    weight = opened.load_unet().conv_in.weight
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight.data, half["conv_in.weight"].float())


def test_shards_are_found_and_digested(checkpoint: Path) -> None:
    weights = load_file(checkpoint / UNET)
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in parts.items():
        target = checkpoint / "unet" / file
        save_file({name: weights[name] for name in held}, target, metadata={"format": "pt"})
    sharded(checkpoint, {name: file for file, held in parts.items() for name in held})
    opened = open_checkpoint(checkpoint)
    assert {"unet/a.safetensors", "unet/b.safetensors"} <= set(opened.weight_digests)
    torch.testing.assert_close(opened.load_unet().state_dict(), weights)


@pytest.mark.parametrize("component", ["unet", "text_encoder"])
@pytest.mark.parametrize(
    "naming", ["{stem}.fp16-{part}.safetensors", "{stem}-{part}.fp16.safetensors"]
)
def test_shards_of_half_precision_are_found_in_both_namings(
    naming: str, component: str, checkpoint: Path
) -> None:
    """Older releases of diffusers put the variant before the shard's number, newer ones after it."""
    stem = {"unet": "diffusion_pytorch_model", "text_encoder": "model"}[component]
    folder = checkpoint / component
    weights = {name: one.half() for name, one in load_file(folder / f"{stem}.safetensors").items()}
    (folder / f"{stem}.safetensors").unlink()
    named: dict[str, str] = {}
    for number in (1, 2):
        file = naming.format(stem=stem, part=f"0000{number}-of-00002")
        held = {name: weights[name] for name in sorted(weights)[number - 1 :: 2]}
        save_file(held, folder / file, metadata={"format": "pt"})
        named |= dict.fromkeys(held, file)
    index = folder / f"{stem}.safetensors.index.fp16.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": named}))
    opened = open_checkpoint(checkpoint)
    assert opened.variants[component] == "fp16"
    assert {f"{component}/{file}" for file in named.values()} <= set(opened.weight_digests)
    found = getattr(opened, f"load_{component}")().state_dict()
    assert weights.keys() <= found.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight.float(), atol=0, rtol=0)


def test_each_network_is_taken_in_the_variant_that_it_has(checkpoint: Path) -> None:
    """One in half precision only, one in both, which is read in full, the others in full only."""
    for component, file in (("unet", UNET), ("vae", "vae/diffusion_pytorch_model.safetensors")):
        half = {name: one.half() for name, one in load_file(checkpoint / file).items()}
        save_file(half, checkpoint / file.replace(".saf", ".fp16.saf"), metadata={"format": "pt"})
        if component == "unet":
            (checkpoint / file).unlink()
    opened = open_checkpoint(checkpoint)
    variants = {"unet": "fp16", "vae": None, "text_encoder": None, "safety_checker": None}
    assert {name: opened.variants[name] for name in variants} == variants
    want = load_file(checkpoint / "vae/diffusion_pytorch_model.safetensors")
    found = opened.load_vae().state_dict()
    for name, weight in want.items():
        torch.testing.assert_close(found[name], weight, atol=0, rtol=0)
    assert opened.load_unet().conv_in.weight.dtype == torch.float32


def test_the_names_of_published_checkpoints_are_understood(checkpoint: Path) -> None:
    """Those of 2022 put a ``text_model.`` and a second ``vision_model.`` before each name."""
    new = open_checkpoint(checkpoint)
    before = [one().state_dict() for one in (new.load_text_encoder, new.load_safety_checker)]
    for component, prefix in (("text_encoder", "text_model."), ("safety_checker", "vision_model.")):
        file = checkpoint / component / "model.safetensors"
        weights = {}
        for name, tensor in load_file(file).items():
            plain = component == "safety_checker" and not name.startswith(prefix)
            weights[name if plain else prefix + name] = tensor
        save_file(weights, file, metadata={"format": "pt"})
    old = open_checkpoint(checkpoint)
    after = [one().state_dict() for one in (old.load_text_encoder, old.load_safety_checker)]
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize(
    ("front", "licence"),
    [("license: openrail++", "openrail++"), ("licence: MIT", "MIT"), ("tags: [a]", "unknown")],
)
def test_the_licence_is_the_model_cards(front: str, licence: str, checkpoint: Path) -> None:
    (checkpoint / "README.md").write_text(f"---\n{front}\n---\n# A model\n")
    assert open_checkpoint(checkpoint).licence == licence


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        (
            "models--runwayml--stable-diffusion-v1-5/snapshots/0123abc",
            "runwayml/stable-diffusion-v1-5",
        ),
        ("models--mine/snapshots/0123abc", "mine"),
        ("snapshots/plain", "plain"),
    ],
)
def test_a_hub_snapshot_has_its_repositorys_name(
    tiny_checkpoint: Path, tmp_path: Path, folder: str, name: str
) -> None:
    snapshot = tmp_path / folder
    shutil.copytree(tiny_checkpoint, snapshot)
    link = tmp_path / "link"
    link.symlink_to(snapshot)
    assert [open_checkpoint(path).name for path in (snapshot, link)] == [name, name]


@pytest.mark.parametrize(
    ("stated", "length"), [(77, 77), (10**30, 77), (1e30, 77), (20, 20), (512, 77), (None, 77)]
)
def test_a_text_is_as_long_as_the_encoder_takes(stated: Any, length: int) -> None:
    assert text_length(stated, 77) == length


@pytest.mark.parametrize("stated", [0, 2, -1, 20.5, float("-inf"), float("nan")])
def test_a_length_that_leaves_no_room_is_refused(stated: float) -> None:
    with pytest.raises(UnsupportedCheckpoint, match="model_max_length"):
        text_length(stated, 77)


@pytest.mark.parametrize("change", [{"crop_size": 16}, {"size": [64, 64], "do_center_crop": False}])
def test_pictures_that_the_checker_would_not_take_are_found_at_once(
    tiny_checkpoint: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, copy)
    file = copy / "feature_extractor" / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **change}), "utf-8")
    shapes = [Shape(height=64, width=64)]
    with pytest.raises(UnsupportedCheckpoint, match="network takes 32x32"):
        open_checkpoint(copy).check_sizes(shapes)
    open_checkpoint(tiny_checkpoint).check_sizes(shapes)
    open_checkpoint(copy, need_safety_head=False).check_sizes(shapes)
