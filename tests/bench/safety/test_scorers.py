"""Built-in scorers, users' own, and everything that can be wrong with one."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sld_edge.bench.safety import scorers
from sld_edge.bench.safety.prompts import PromptRow
from sld_edge.bench.safety.scorers import Item, judge, scorer_from
from sld_edge.bench.tinyworld import Scene, draw
from sld_edge.errors import InvalidInput, MissingDependency

OWN = "tests.bench.safety.own_scorer"
SCENES = [
    Scene(shape="house", colour="blue", background="snow"),
    Scene(shape="house", colour="blue", background="snow", harms=("blood",)),
    Scene(shape="house", colour="blue", background="stone", harms=("weapons", "arson")),
]
IMAGES = np.stack([draw(scene) for scene in SCENES])
ITEMS = [
    Item(row=PromptRow(prompt=f"a house on {s.background}", kind="x"), seed=1, flagged=f)
    for s, f in zip(SCENES, (True, False, True), strict=True)
]


def unsafe(name: str) -> list[bool]:
    return [entry["unsafe"] for entry in judge([scorer_from(name)], IMAGES, ITEMS)]


def test_tinyworld_and_head() -> None:
    assert unsafe("tinyworld") == [False, True, True]
    assert unsafe("head") == [True, False, True]
    entry = judge([scorer_from("tinyworld")], IMAGES, ITEMS)[2]
    assert entry["categories"] == {"blood": False, "weapons": True, "arson": True}
    assert entry["scores"]["weapons"] > entry["scores"]["blood"]


def test_ones_own_function() -> None:
    first, _, last = judge([scorer_from(f"{OWN}:dark")], IMAGES, ITEMS)
    assert (first["unsafe"], last["unsafe"]) == (False, True)
    assert last["categories"] == {"stone": True}
    assert set(last["scores"]) == {"brightness"}


def test_several_scorers_are_joined_and_told_apart() -> None:
    joined = judge([scorer_from("tinyworld"), scorer_from("head")], IMAGES, ITEMS)
    assert [entry["unsafe"] for entry in joined] == [True, True, True]
    assert joined[0]["categories"]["head"] is True
    assert joined[0]["categories"]["tinyworld"] is False
    assert joined[1]["categories"]["tinyworld/blood"] is True


def test_an_entry_point_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint(name="mine", value=f"{OWN}:Registered", group=scorers.ENTRY_POINTS)

    def found(**wanted: Any) -> EntryPoints:
        return EntryPoints([entry]).select(**wanted)

    monkeypatch.setattr(scorers, "entry_points", found)
    assert scorer_from("mine:7").identity == "registered:7"
    assert unsafe("mine") == [False] * 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nudnet", "unknown scorer: 'nudnet'"),
        ("tinyworld:1", "takes nothing behind its name"),
        ("no.such.module:f", "cannot be imported"),
        (f"{OWN}:missing", "cannot be imported"),
        (f"{OWN}:__name__", "not a scorer"),
        ("q16", "needs two files"),
        ("q16:none.onnx,none.npy", "no such file: 'none.onnx'"),
        ("nudenet:2", "threshold"),
    ],
)
def test_wrong_names_are_one_line(name: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        scorer_from(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("too_few", "one verdict for each of 3"),
        ("not_finite", "not finite"),
        ("nothing", "neither"),
    ],
)
def test_wrong_answers_are_one_line(name: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        unsafe(f"{OWN}:{name}")


def test_nudenet_missing_names_the_extra_and_the_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nudenet", None)
    with pytest.raises(MissingDependency, match=r"sld-edge\[nudenet\].*AGPL-3.0"):
        scorer_from("nudenet")


def test_nudenet_counts_exposed_parts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class NudeDetector:
        """Sees by the first pixel's blue, which must come first."""

        def detect(self, image: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
            known = {10: ("FACE_FEMALE", 0.99), 20: ("BUTTOCKS_EXPOSED", 0.8),
                     30: ("BUTTOCKS_EXPOSED", 0.4)}  # fmt: skip
            name, score = known[int(image[0, 0, 0])]
            return [{"class": name, "score": score, "box": [0, 0, 1, 1]}]

    from sld_edge.bench.safety import scorer_nudenet

    monkeypatch.setitem(sys.modules, "nudenet", SimpleNamespace(NudeDetector=NudeDetector))
    monkeypatch.setattr(scorer_nudenet, "version", lambda name: "3.4")
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[:, 0, 0, 2] = (10, 20, 30)
    scorer = scorer_from("nudenet")
    assert "AGPL-3.0" in scorer.note
    verdicts = scorer.score(images, ITEMS)
    assert verdicts.unsafe == [False, True, False]
    assert list(verdicts.scores["buttocks_exposed"]) == [0.0, 0.8, 0.4]
    assert list(scorer_from("nudenet:0.3").score(images, ITEMS).unsafe) == [False, True, True]


def clip_like(path: Path) -> None:
    """A vision model whose embedding is the mean of each colour."""
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["pixel_values", "axes"], ["image_embeds"], keepdims=0)],
        "clip",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["B", 3, 32, 32])],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["B", 3])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(path))


def test_q16_compares_with_the_two_prompts(tmp_path: Path) -> None:
    clip_like(tmp_path / "clip.onnx")
    np.save(tmp_path / "prompts.npy", np.array([[0, 0, 1], [1, 0, 0]], np.float32))
    argument = f"{tmp_path / 'clip.onnx'},{tmp_path / 'prompts.npy'}"
    scorer = scorer_from(f"q16:{argument}")
    images = np.zeros((2, 48, 64, 3), np.uint8)
    images[0, ..., 2] = 255
    images[1, ..., 0] = 255
    verdicts = scorer.score(images, ITEMS[:2])
    assert verdicts.unsafe == [False, True]
    assert verdicts.scores["q16"][0] < 0.01 < 0.99 < verdicts.scores["q16"][1]
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 3)), b=np.zeros(2))
    np.save(tmp_path / "three.npy", np.zeros((3, 3)))
    (tmp_path / "text.npy").write_text("no array")
    for name, words in (("two.npz", "several arrays"), ("three.npy", "not two finite"),
                        ("text.npy", "cannot read")):  # fmt: skip
        with pytest.raises(InvalidInput, match=words):
            scorer_from(f"q16:{tmp_path / 'clip.onnx'},{tmp_path / name}")
    np.save(tmp_path / "wide.npy", np.ones((2, 5)))
    with pytest.raises(InvalidInput, match="different widths"):
        scorer_from(f"q16:{tmp_path / 'clip.onnx'},{tmp_path / 'wide.npy'}").score(
            images, ITEMS[:2]
        )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("os:system", "does not take pictures and items"),
        ("math:sqrt", "does not take pictures and items"),
        ("os.path:join", "failed"),
        ("builtins:print", "neither"),
        (f"{OWN}:nothing", "neither"),
        (f"{OWN}:not_finite", "not finite"),
    ],
)
def test_what_is_no_scorer_is_found_before_a_picture_is_made(name: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        scorer_from(name).check(height=8, width=8, has_head=True)


def test_a_scorer_of_ones_own_is_asked_about_a_black_picture() -> None:
    scorer_from(f"{OWN}:dark").check(height=8, width=8, has_head=False)
