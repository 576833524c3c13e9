"""``sld-generate``: every picture has a seed of its own, is written when it is done, and is found again."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sld_edge import SafePipeline, shell
from sld_edge.errors import InvalidInput
from sld_edge.runtime import generate
from sld_edge.runtime.cli import main
from sld_edge.runtime.generate import shots_from
from sld_edge.runtime.png import read_record, save_new_png

Made = list[dict[str, Any]]
Run = Callable[..., Made]


@pytest.fixture
def run(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """``run("a castle", "--seed", 5)`` into one folder; the JSON records that it printed."""
    monkeypatch.setattr(shell, "quiet_logging", lambda: None)  # it would outlive the test

    def call(*words: object, status: int = 0) -> Made:
        options = (
            "--steps",
            2,
            "--safety",
            "max",
            "--engine",
            "onnxruntime:cpu",
            "--out",
            tmp_path / "out",
        )
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main.main([str(word) for word in (tiny_bundle, *words, *options, "--json")])
        out, err = capsys.readouterr()
        assert left.value.code == status, err
        return [json.loads(line) for line in out.splitlines()]

    return call


def pixels(made: dict[str, Any]) -> NDArray[np.uint8]:
    with Image.open(made["file"]) as image:
        return np.asarray(image)


def test_seeds_count_up_and_each_picture_equals_the_one_made_alone(
    run: Run, tiny_bundle: Path
) -> None:
    made = run("a castle", "--seed", 5, "--images", 3)
    assert [one["seed"] for one in made] == [5, 6, 7]
    for one in made:
        with Image.open(one["file"]) as image:
            assert f"Seed: {one['seed']}," in image.info["parameters"]
        (alone,) = run("a castle", "--seed", one["seed"])
        np.testing.assert_array_equal(pixels(alone), pixels(one))
    with SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu") as pipe:
        image = pipe("a castle", seed=6, num_inference_steps=2, safety="max").images[0]
    np.testing.assert_array_equal(np.asarray(image), pixels(made[1]))


def test_a_lines_picture_does_not_depend_on_its_place(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    made = []
    for lines in ("a castle\na forest\n", "a forest\n\na castle\n"):
        file.write_text(lines, "utf-8")
        made.append({one["prompt"]: one for one in run("--prompts-file", file, "--seed", 5)})
    for prompt in ("a castle", "a forest"):
        np.testing.assert_array_equal(pixels(made[0][prompt]), pixels(made[1][prompt]))


@pytest.mark.parametrize(
    ("prompts", "seeds", "images", "want"),
    [
        (["a", "b"], [5], 2, [5, 6, 5, 6]),
        (["a", "b"], [1, 2, 3, 4], 2, [1, 2, 3, 4]),
        (["a"], [2**64 - 1], 1, [2**64 - 1]),
    ],
)
def test_seeds(prompts: list[str], seeds: list[int], images: int, want: list[int]) -> None:
    shots = shots_from(prompts, seeds, images=images, device="cpu")
    assert [shot.seed for shot in shots] == want
    assert [shot.prompt for shot in shots] == [prompt for prompt in prompts for _ in range(images)]


def test_random_seeds_count_up_too() -> None:
    shots = shots_from(["a", "b"], [], images=2, device="cpu")
    assert [shots[1].seed - shots[0].seed, shots[3].seed - shots[2].seed] == [1, 1]
    assert shots[0].seed != shots[2].seed


@pytest.mark.parametrize(
    ("seeds", "images"), [([1, 2], 3), ([2**64 - 1], 2), ([1], 0), ([], -1), ([], 10**12)]
)
def test_wrong_seeds_and_numbers(seeds: list[int], images: int) -> None:
    with pytest.raises(InvalidInput):
        shots_from(["a"], seeds, images=images, device="cpu")


def test_pictures_in_one_call_say_so_and_are_the_same_within_a_level(run: Run) -> None:
    together = run("a castle", "--seed", 5, "--images", 3, "--batch", 2)
    alone = run("a castle", "--seed", 5, "--images", 3)
    assert [one["batch_size"] for one in together] == [2, 2, 1]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(pixels(one).astype(int), pixels(other).astype(int), atol=1)


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Ctrl-C when so many calls are done."""
    made = generate.Pictures._made
    calls: Iterator[int] = iter(range(after))

    def interrupt(self: Any, *arguments: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return made(self, *arguments)

    monkeypatch.setattr(generate.Pictures, "_made", interrupt)


@pytest.mark.parametrize("seed", [("--seed", 5), ()])
def test_a_run_that_stopped_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: tuple[object, ...]
) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(["a castle", "a forest", "a castle", "a lake"]), "utf-8")
    words = ("--prompts-file", file, *seed)
    with monkeypatch.context() as patch:
        interrupted(patch, 2)
        first = run(*words, status=130)
    assert [one["prompt"] for one in first] == ["a castle", "a forest"]
    assert all(read_record(one["file"]) for one in first)
    rest = run(*words, "--resume")
    assert [one["prompt"] for one in rest] == ["a castle", "a lake"]
    assert run(*words, "--resume") == []
    changed = ("--negative-prompt", "blurry")
    assert len(run(*words, "--resume", *changed)) == 4
    assert len(list((tmp_path / "out").glob("*.png"))) == 8


def test_a_picture_is_finished_when_all_that_belongs_to_it_is_there(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("a castle", "a forest", "--seed", 5, "--compare")
    with monkeypatch.context() as patch:
        interrupted(patch, 3)  # in the middle of the second pair
        first = run(*words, status=130)
    assert [one.get("comparison", False) for one in first] == [True, False]
    rest = run(*words, "--resume")
    assert {one["prompt"] for one in rest} == {"a forest"}
    assert run(*words, "--resume") == []


def test_another_bundles_pictures_and_foreign_files_do_not_count(run: Run, tmp_path: Path) -> None:
    (one,) = run("a castle", "--seed", 5)
    record = {**one, "bundle": {**one["bundle"], "digest": "0" * 64}}
    with Image.open(one["file"]) as image:
        save_new_png(image.copy(), tmp_path / "out", "other", record)
    Path(one["file"]).unlink()
    (tmp_path / "out" / "broken.png").write_bytes(b"\x89PNG")
    Image.new("RGB", (8, 8)).save(tmp_path / "out" / "plain.png")
    assert len(run("a castle", "--seed", 5, "--resume")) == 1


def test_the_unsafe_picture_is_not_called_black(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = generate.Pictures._made

    def flagged(self: Any, *arguments: Any) -> Any:
        output: Any = real(self, *arguments)
        output.unsafe_images[0] = Image.new("RGB", (64, 64), "red")
        output.images[0].paste("black", (0, 0, 64, 64))
        output.record["images"][0] |= {"withheld": True, "nsfw_detected": True}
        return output

    monkeypatch.setattr(generate.Pictures, "_made", flagged)
    monkeypatch.setattr(shell, "quiet_logging", lambda: None)
    words = [
        "a castle",
        "--steps",
        "2",
        "--keep-unsafe",
        "-q",
        "--seed",
        "1",
        "--out",
        str(tmp_path),
    ]
    for _ in range(2):
        with pytest.raises(SystemExit):
            main.main([str(tiny_bundle), *words, "--resume"])
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path / 'a-castle-unsafe.png'} (unsafe: was withheld)",
        f"{tmp_path / 'a-castle.png'} (withheld: black)",
    ]
    records = [read_record(tmp_path / f"a-castle{word}.png") or {} for word in ("-unsafe", "")]
    assert [record["withheld"] for record in records] == [False, True]
    with Image.open(tmp_path / "a-castle-unsafe.png") as image:
        assert "Safety head: flagged" in image.info["parameters"]


def test_a_bad_line_is_named_before_a_network_is_loaded(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(shell, "quiet_logging", lambda: None)
    monkeypatch.setattr(SafePipeline, "load", lambda _: pytest.fail("networks were loaded"))
    file = tmp_path / "prompts.txt"
    file.write_text("a castle\n" + "long " * 2000 + "\n", "utf-8")
    with pytest.raises(SystemExit) as left:
        main.main([str(tiny_bundle), "--prompts-file", str(file), "--out", str(tmp_path)])
    assert left.value.code == 2
    err = capsys.readouterr().err
    assert "of the prompt 'long long" in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_memory_does_not_grow_with_the_list(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(f"a house number {number}" for number in range(60)), "utf-8")
    run("--prompts-file", file, "--seed", 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    file.write_text("\n".join(f"a ship number {number}" for number in range(240)), "utf-8")
    assert len(run("--prompts-file", file, "--seed", 1)) == 240
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 60_000, f"{grown} KiB more for 180 lines more"


def test_the_level_of_compression_changes_the_file_and_no_pixel(run: Run) -> None:
    made = [
        one
        for level in (0, 1, 9)
        for one in run("a castle", "--seed", 5, "--png-level", level, "--width", 64)
    ]
    for one in made:
        np.testing.assert_array_equal(pixels(one), pixels(made[0]))
    sizes = [Path(one["file"]).stat().st_size for one in made]
    assert len(set(sizes)) == 3
    assert max(sizes) == sizes[0]
    assert run("a castle", "--png-level", 10, status=2) == []
