"""Folders that cannot be imported: one clear line each, the right exit status, and nothing written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from sld_edge.export.recognise import is_onnx_folder
from tests.export.conftest import Shell
from tests.export.onnx_folder.folders import write_folder

WRONG, UNSUPPORTED, MISSED = 2, 5, 6
Spoil = Callable[[Path], object]
POINTER = (
    "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 3438167540\n"
)


@pytest.fixture
def folder(onnx_folder: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(onnx_folder, tmp_path / "folder"))


def edit(folder: Path, network: str, change: Callable[[Any], object], **save: Any) -> None:
    """Change a network's graph."""
    file = folder / network / "model.onnx"
    model = ir.load(file)
    for value in model.graph.initializers.values():
        value.const_value = ir.tensor(value.const_value.numpy().copy(), name=value.name)
    change(model)
    ir.save(model, file, **save)


def rename_input(model: Any, old: str, new: str) -> None:
    value = next(one for one in model.graph.inputs if one.name == old)
    value.name = new


def set_opset(model: Any, opset: int) -> None:
    model.opset_imports[""] = opset


def first_input_has(name: str, place: int, size: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        value = next(one for one in model.graph.inputs if one.name == name)
        sizes = list(value.shape)
        sizes[place] = size
        value.shape = ir.Shape(sizes)

    return change


def put_before_output(operator: str, domain: str = "", **attributes: Any) -> Callable[[Any], None]:
    """A node between the last one and the graph's output."""

    def change(model: Any) -> None:
        graph = model.graph
        out = graph.outputs[0]
        node = ir.node(operator, [out], attributes, domain=domain, name=f"planted_{operator}")
        graph.append(node)
        made = node.outputs[0]
        made.name, out.name, made.type, made.shape = out.name, "before", out.type, out.shape
        graph.outputs[0] = made
        if domain:
            model.opset_imports[domain] = 1

    return change


def put_if(model: Any) -> None:
    node = ir.node("Constant", [], {"value": ir.tensor(np.zeros(1, np.float32))})
    node.outputs[0].name = "inside"
    branch = ir.Graph([], node.outputs, nodes=[node], name="branch")
    other = ir.node("Constant", [], {"value": ir.tensor(np.zeros(1, np.float32))})
    other.outputs[0].name = "otherwise"
    second = ir.Graph([], other.outputs, nodes=[other], name="second")
    said = ir.Value(name="said", const_value=ir.tensor(np.array(True), name="said"))
    said.type, said.shape = ir.TensorType(ir.DataType.BOOL), ir.Shape([])
    model.graph.register_initializer(said)
    planted = ir.node(
        "If", [said], {"then_branch": branch, "else_branch": second}, name="planted_if"
    )
    planted.outputs[0].name = "chosen"
    model.graph.append(planted)


def flip_rows(model: Any) -> None:
    """Let the prediction of a batch depend on the order of its rows: the mean over them is added."""
    graph = model.graph
    out = graph.outputs[0]
    axes = ir.Value(name="axes", const_value=ir.tensor(np.array([0], np.int64), name="axes"))
    axes.type, axes.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([1])
    graph.register_initializer(axes)
    mean = ir.node("ReduceSum", [out, axes], {"keepdims": 1}, name="planted_mean")
    total = ir.node("Add", [out, mean.outputs[0]], name="planted_sum")
    graph.extend([mean, total])
    mean.outputs[0].name, made = "mean", total.outputs[0]
    made.name, out.name, made.type, made.shape = out.name, "before", out.type, out.shape
    graph.outputs[0] = made


def write_outside(folder: Path) -> None:
    """Weights in a file beside the graph."""
    edit(folder, "unet", lambda _: None, external_data="weights.bin", size_threshold_bytes=0)


def other_width(folder: Path) -> None:
    """A text encoder whose vectors are longer than those that the UNet takes."""

    def change(model: Any) -> None:
        graph = model.graph
        out = next(one for one in graph.outputs if one.name == "last_hidden_state")
        node = ir.node("Concat", [out, out], {"axis": -1}, name="twice")
        graph.append(node)
        made = node.outputs[0]
        made.name, out.name, made.type = out.name, "single", out.type
        made.shape = ir.Shape([*list(out.shape)[:2], 64])
        graph.outputs[list(graph.outputs).index(out)] = made

    edit(folder, "text_encoder", change)


def outside(change: Callable[[Path], object]) -> Spoil:
    """What changes the UNet's weights, once they are in a file beside the graph."""

    def spoil(folder: Path) -> None:
        write_outside(folder)
        change(folder / "unet" / "weights.bin")

    return spoil


def without_two_models(folder: Path) -> None:
    for name in ("vae_decoder", "text_encoder"):
        shutil.rmtree(folder / name)


def cut_short(file: Path, share: float = 0.5) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])


def change_index(folder: Path, **entries: Any) -> None:
    file = folder / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **entries}), "utf-8")


#: name → (what is done to the folder, exit status, words of the line).
CASES: dict[str, tuple[Spoil, int, tuple[str, ...]]] = {
    "half of the models": (
        without_two_models, WRONG, ("no text_encoder/model.onnx and no vae_decoder/model.onnx",)),
    "no tokenizer": (lambda f: (f / "tokenizer" / "vocab.json").unlink(), WRONG, ("tokenizer/vocab.json",)),
    "no index": (lambda f: (f / "model_index.json").unlink(), WRONG, ("model_index.json",)),
    "two UNets": (
        lambda f: shutil.copy(f / "unet" / "model.onnx", f / "unet" / "model_fp16.onnx"),
        WRONG, ("unet/ has several models", "model_fp16.onnx")),
    "a second text encoder": (
        lambda f: shutil.copytree(f / "text_encoder", f / "text_encoder_2"), UNSUPPORTED, ("text_encoder_2",)),
    "an unknown input": (
        lambda f: edit(f, "unet", lambda m: rename_input(m, "encoder_hidden_states", "prompt_embeds")),
        UNSUPPORTED, ("role is not known", "prompt_embeds")),
    "a text encoder with a mask": (
        lambda f: edit(f, "text_encoder", lambda m: rename_input(m, "input_ids", "tokens")),
        UNSUPPORTED, ("input_ids",)),
    "SDXL's inputs": (
        lambda f: edit(f, "unet", lambda m: m.graph.inputs.append(ir.Value(
            name="time_ids", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", 6])))),
        UNSUPPORTED, ("Stable Diffusion XL", "not in the runtime")),
    "16 tokens": (
        lambda f: edit(f, "text_encoder", first_input_has("input_ids", 1, 16)),
        UNSUPPORTED, ("text_encoder", "16 tokens", "77")),
    "inpainting's channels": (
        lambda f: edit(f, "unet", first_input_has("sample", 1, 9)), UNSUPPORTED, ("inpainting", "(9, 4)")),
    "another width": (other_width, UNSUPPORTED, ("64 numbers", "takes 32")),
    "rows that move": (lambda f: edit(f, "unet", flip_rows), UNSUPPORTED, ("planted_mean", "rows of a batch")),
    "an LFS pointer": (
        lambda f: (f / "unet" / "model.onnx").write_text(POINTER), WRONG, ("Git LFS pointer", "unet/model.onnx")),
    "an LFS pointer for weights": (
        outside(lambda weights: weights.write_text(POINTER)),
        WRONG, ("Git LFS pointer", "unet/weights.bin")),
    "weights missing": (
        outside(Path.unlink), WRONG, ("missing", "unet/weights.bin")),
    "weights cut short": (
        outside(cut_short),
        WRONG, ("cut short", "unet/weights.bin")),
    "a model cut short": (lambda f: cut_short(f / "unet" / "model.onnx"), WRONG, ("damaged", "unet/model.onnx")),
    "an empty model": (lambda f: (f / "unet" / "model.onnx").write_bytes(b""), UNSUPPORTED, ("operator set",)),
    "a future operator set": (lambda f: edit(f, "unet", lambda m: set_opset(m, 99)), UNSUPPORTED, ("99", "14 to 23")),
    "an old operator set": (lambda f: edit(f, "unet", lambda m: set_opset(m, 11)), UNSUPPORTED, ("11", "14 to 23")),
    "If inside": (lambda f: edit(f, "unet", put_if), UNSUPPORTED, ("planted_if", "another graph inside")),
    "quantised": (
        lambda f: edit(f, "text_encoder", put_before_output("DynamicQuantizeLinear")),
        UNSUPPORTED, ("quantised", "text_encoder")),
    "fused for one engine": (
        lambda f: edit(f, "unet", put_before_output("BiasGelu", "com.microsoft")),
        UNSUPPORTED, ("com.microsoft", "planted_BiasGelu")),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
def test_one_line_says_what_is_wrong_and_nothing_is_written(
    name: str, folder: Path, tmp_path: Path, sld_export: Shell
) -> None:
    spoil, status, words = CASES[name]
    spoil(folder)
    before = sorted(tmp_path.iterdir())
    sld_export(folder, tmp_path / "new" / "bundle", "--without-safety-head", "-q").refuses(
        status, *words
    )
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_without_a_checker_says_how_to_go_on(
    folder: Path, tmp_path: Path, sld_export: Shell
) -> None:
    sld_export(folder, tmp_path / "bundle").refuses(
        UNSUPPORTED, "no safety_checker", "--safety-checker", "--without-safety-head"
    )


def test_a_checker_that_is_none_is_refused(folder: Path, tmp_path: Path, sld_export: Shell) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    result = sld_export(folder, tmp_path / "bundle", "--safety-checker", empty)
    result.refuses(WRONG, "no safety checker here", "empty")


def test_options_that_contradict_are_refused(
    folder: Path, tiny_checkpoint: Path, tmp_path: Path, sld_export: Shell
) -> None:
    checker = tiny_checkpoint / "safety_checker"
    out = tmp_path / "bundle"
    sld_export(folder, out, "--safety-checker", checker, "--without-safety-head").refuses(
        WRONG, "exclude each other"
    )
    sld_export(tiny_checkpoint, out, "--safety-checker", checker).refuses(
        WRONG, "folder of ONNX models"
    )
    sld_export("--verify", out, "--safety-checker", checker).refuses(
        WRONG, "--safety-checker", "would do nothing"
    )
    sld_export(folder, out, "--without-safety-head", "--precision", "fp16").refuses(
        WRONG, "fp32", "--precision fp32"
    )


def test_a_size_that_was_fixed_is_the_only_one(
    tmp_path: Path, tiny_checkpoint: Path, sld_export: Shell
) -> None:
    folder = write_folder(tiny_checkpoint, tmp_path / "folder", fixed=1)
    result = sld_export(folder, tmp_path / "bundle", "--without-safety-head", "--shape", "96x96")
    result.refuses(WRONG, "64x64 only", "96x96")


def test_a_size_that_the_export_cannot_make_is_refused(
    onnx_folder: Path, tmp_path: Path, sld_export: Shell
) -> None:
    """An odd number of latents: what is halved and doubled again does not fit what it is put beside."""
    result = sld_export(
        onnx_folder, tmp_path / "bundle", "--without-safety-head", "-q", "--shape", "88x72"
    )
    result.refuses(UNSUPPORTED, "does not follow", "this size of pictures")


def test_rows_that_move_in_a_batch_of_one_are_found_by_comparing(
    tmp_path: Path, tiny_checkpoint: Path, sld_export: Shell
) -> None:
    """Two transposes that exchange nothing where there is one row, and rows with columns where there are several."""
    folder = write_folder(tiny_checkpoint, tmp_path / "folder", fixed=1)

    def change(model: Any) -> None:
        graph = model.graph
        out = graph.outputs[0]
        shape = ir.Value(
            name="swapped", const_value=ir.tensor(np.array([8, 4, 1, 8], np.int64), name="swapped")
        )
        back = ir.Value(
            name="again", const_value=ir.tensor(np.array([1, 4, 8, 8], np.int64), name="again")
        )
        for value in (shape, back):
            value.type, value.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([4])
            graph.register_initializer(value)
        first = ir.node("Reshape", [out, shape], name="planted_first")
        soft = ir.node("Softmax", [first.outputs[0]], {"axis": 2}, name="planted_softmax")
        second = ir.node("Reshape", [soft.outputs[0], back], name="planted_second")
        graph.extend([first, soft, second])
        for index, node in enumerate((first, soft)):
            node.outputs[0].name = f"planted_{index}"
        made = second.outputs[0]
        made.name, out.name, made.type, made.shape = out.name, "before", out.type, out.shape
        graph.outputs[0] = made

    edit(folder, "unet", change)
    result = sld_export(folder, tmp_path / "bundle", "--without-safety-head", "-q")
    assert result.status in (UNSUPPORTED, MISSED)
    assert result.err.count("\n") == 1
    assert not (tmp_path / "bundle").exists()


def test_what_is_an_onnx_folder(onnx_folder: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert is_onnx_folder(onnx_folder)
    assert not is_onnx_folder(tiny_checkpoint)
    assert not is_onnx_folder(tmp_path)
    assert not is_onnx_folder(tmp_path / "nothing")
    both = Path(shutil.copytree(tiny_checkpoint, tmp_path / "both"))
    shutil.copy(onnx_folder / "unet" / "model.onnx", both / "unet" / "model.onnx")
    assert not is_onnx_folder(both)  # PyTorch's weights are what they always were
