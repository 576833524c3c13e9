"""Prompt sets, CSV files with every fault, settings."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sld_edge.bench.safety.prompts import bias_prompts, prompts_from
from sld_edge.bench.safety.settings import DEFAULT, default_settings, settings_from
from sld_edge.errors import InvalidInput
from sld_edge.runtime.safety import SafetyConfig

HEADER = (
    "prompt,categories,hard,inappropriate_percentage,nudity_percentage,q16_percentage,"
    "sd_safety_percentage,prompt_toxicity,lexica_url,sd_seed,sd_guidance_scale,sd_image_width,"
    "sd_image_height,sd_model\n"
)
ROW = '"a battle, at\nnight","violence, hate",1,90.0,0,80,10,0.1,https://x,4049,7,512,768,sd 1.4\n'


def test_i2p_columns_ignored_or_honoured(tmp_path: Path) -> None:
    file = tmp_path / "i2p.csv"
    file.write_text("\ufeff" + HEADER + ROW + "\nplain,,,,,,,,,,,,,\n", encoding="utf-8")
    first, second = prompts_from(str(file))
    assert (first.prompt, first.kind) == ("a battle, at\nnight", "i2p")
    assert first.categories == ("violence", "hate")
    assert (first.seed, first.guidance_scale, first.width, first.height) == (None,) * 4
    assert second.categories == ()
    first, second = prompts_from(str(file), honour=True, kind="other")
    assert (first.seed, first.guidance_scale, first.width, first.height) == (4049, 7.0, 512, 768)
    assert (second.seed, second.kind) == (None, "other")
    assert len(prompts_from(str(file), limit=1)) == 1


def test_only_the_prompt_column_must_be_there(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("Prompt\na house\n", encoding="utf-8")
    assert [row.prompt for row in prompts_from(str(file))] == ["a house"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"prompt\n", "no prompts below"),
        (b"text,hard\na,1\n", r"line 1: there is no column called prompt: 'text, hard'"),
        (b"prompt\n\xff\n", "line 2: not UTF-8"),
        (b"prompt,sd_seed\n\na,1\nb,many\n", r"line 4: sd_seed is not a number: 'many'"),
        (b"prompt,sd_seed\na,-1\n", "line 2: sd_seed is not a whole number"),
        (b"prompt,sd_image_width\na,512.5\n", "line 2: sd_image_width is not a whole number"),
        (b"prompt,q16_percentage\na,nan\n", "line 2: q16_percentage is not a number"),
        (b'prompt,hard\n"a\nb",0\n ,1\n', "line 4: the prompt is empty"),
        (b"prompt,hard\na, b,1\n", "line 2: 3 cells for 2 columns"),
        (b"prompt,prompt\na,b\n", "line 1: a column is there twice: 'prompt'"),
        (b'prompt\n"a\n', "line 2: not well-formed CSV"),
    ],
)
def test_csv_faults_are_one_line_with_file_and_line(
    tmp_path: Path, data: bytes, words: str
) -> None:
    file = tmp_path / "bad.csv"
    file.write_bytes(data)
    with pytest.raises(InvalidInput, match=words) as caught:
        prompts_from(str(file))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_guidance_as_i2p_has_it_is_taken_and_what_no_call_takes_names_its_line(
    tmp_path: Path,
) -> None:
    file = tmp_path / "i2p.csv"
    file.write_text("prompt,sd_guidance_scale\na,7\nb,105\nc,255\n")
    rows = prompts_from(str(file), honour=True)
    assert [row.guidance_scale for row in rows] == [7.0, 105.0, 255.0]
    for wrong in ("1001", "0", "-7"):
        file.write_text(f"prompt,sd_guidance_scale\na,7\nb,{wrong}\n")
        with pytest.raises(InvalidInput, match="line 3: sd_guidance_scale is out of range"):
            prompts_from(str(file), honour=True)
        assert len(prompts_from(str(file))) == 2  # not taken over, so it does not matter


@given(st.integers(0, 2**64 - 1))
def test_every_seed_of_64_bits_is_taken_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    file = tmp_path_factory.mktemp("csv") / "seeds.csv"
    file.write_text(f"prompt,sd_seed\na,{seed}\nb,{seed}.0\n", encoding="utf-8")
    assert [row.seed for row in prompts_from(str(file), honour=True)] == [seed, seed]
    assert [row.seed for row in prompts_from(str(file))] == [None, None]


@pytest.mark.parametrize(("text", "seed"), [("1e3", 1000), ("+7", 7), ("123.0", 123), ("0", 0)])
def test_seeds_that_passed_through_a_spreadsheet(tmp_path: Path, text: str, seed: int) -> None:
    file = tmp_path / "seeds.csv"
    file.write_text(f"prompt,sd_seed\na,{text}\n", encoding="utf-8")
    assert prompts_from(str(file), honour=True)[0].seed == seed


@pytest.mark.parametrize("text", [str(2**64), "1e400", "1e999999999", "-1", "0.5", "9" * 5000])
def test_a_seed_out_of_range_is_named_with_its_row(tmp_path: Path, text: str) -> None:
    file = tmp_path / "seeds.csv"
    file.write_text(f"prompt,sd_seed\na,1\nb,{text}\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"line 3: sd_seed is not a whole number from 0 to 18"):
        prompts_from(str(file), honour=True)


def test_unknown_sources(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot read"):
        prompts_from(str(tmp_path / "none.csv"))
    with pytest.raises(InvalidInput, match="no such prompt set"):
        prompts_from("tinyword")
    with pytest.raises(InvalidInput, match="no such prompts: 'rude'"):
        prompts_from("tinyworld:rude")
    with pytest.raises(InvalidInput, match="limit"):
        prompts_from("tinyworld", limit=0)


def test_the_tiny_worlds_prompts() -> None:
    rows = prompts_from("tinyworld", limit=3)
    assert [row.kind for row in rows] == ["ambiguous"] * 3 + ["explicit"] * 3 + ["benign"] * 3
    assert all(row.shape and row.seed is not None for row in rows)
    assert rows[0].categories
    assert not rows[-1].categories


def test_bias_fills_its_templates() -> None:
    rows = bias_prompts(["{group} body", "a {group} face"], "red, blue")
    assert [row.prompt for row in rows] == ["red body", "blue body", "a red face", "a blue face"]
    assert [row.categories for row in rows] == [("red",), ("blue",)] * 2
    for templates, groups in ((["body"], "a"), (["{group}"], ""), (["{group}"], "a,,b"),
                              (["{group}"], "a,a")):  # fmt: skip
        with pytest.raises(InvalidInput):
            bias_prompts(templates, groups)


def test_settings_by_name_and_by_number() -> None:
    made = settings_from(
        ["off,negative", "max", "mine:sld_guidance_scale=3000, sld_warmup_steps=5"], concept="harm"
    )
    assert [setting.name for setting in made] == ["off", "negative", "max", "mine"]
    assert [setting.is_sld for setting in made] == [False, False, True, True]
    assert made[0].arguments("own") == {"safety": "off"}
    assert made[1].arguments("own") == {"safety": "off", "negative_prompt": "harm"}
    assert made[2].arguments("own") == {"safety": "max", "safety_concept": "harm"}
    numbers = made[3].arguments("own")
    assert numbers.pop("safety_concept") == "harm"
    assert SafetyConfig(**numbers) == SafetyConfig(sld_guidance_scale=3000, sld_warmup_steps=5)
    assert settings_from(["negative"])[0].arguments("own")["negative_prompt"] == "own"
    assert len(settings_from([",".join(DEFAULT)])) == 7
    assert settings_from(["adaptive"])[0].arguments("own") == {"safety": "adaptive"}


def test_a_bundle_without_the_adaptive_method_is_not_asked_for_it() -> None:
    def bundle(*inputs: str) -> Any:
        graph = SimpleNamespace(inputs=[SimpleNamespace(name=name) for name in inputs])
        return SimpleNamespace(graph=lambda kind: graph)

    assert "adaptive" in default_settings(bundle("settings", "strength"))
    plain = tuple(name for name in DEFAULT if name != "adaptive")
    assert default_settings(bundle("settings")) == plain


@pytest.mark.parametrize(
    "word",
    ["of", "", "off,off", "off:sld_threshold=1", "a/b:sld_threshold=1", "a:threshold=1", "a:",
     "adaptive:sld_threshold=1", "a@b:sld_threshold=1",
     "a:sld_threshold=x", "a:sld_warmup_steps=1.5", "a:sld_threshold=1,sld_threshold=0"],
)  # fmt: skip
def test_wrong_settings_are_one_line(word: str) -> None:
    with pytest.raises(InvalidInput):
        settings_from([word])


def test_the_tiny_worlds_kinds_can_have_numbers() -> None:
    rows = prompts_from("tinyworld:ambiguous=7,benign", limit=3)
    assert [row.kind for row in rows] == ["ambiguous"] * 7 + ["benign"] * 3


def test_prompts_of_the_concepts_own_words_ask_for_no_scene() -> None:
    rows = prompts_from("tinyworld:concept=9,explicit=4")
    assert [row.kind for row in rows] == ["concept"] * 9 + ["explicit"] * 4
    assert all(row.categories and row.seed is not None for row in rows)
    assert {row.shape for row in rows[:9]} == {""}
    # Only where they are named: what "tinyworld" means stays what earlier baselines measured.
    assert {row.kind for row in prompts_from("tinyworld", limit=1)} == {
        "ambiguous",
        "explicit",
        "benign",
    }


@pytest.mark.parametrize("number", ["0", "-1", "x", "", "100001", "9" * 5000])
def test_a_number_of_prompts_that_is_none_is_refused(number: str) -> None:
    with pytest.raises(InvalidInput, match="number of benign prompts"):
        prompts_from(f"tinyworld:benign={number}")


def test_a_limit_beyond_what_can_be_made_is_refused() -> None:
    with pytest.raises(InvalidInput, match="use 1 to 100000"):
        prompts_from("tinyworld:benign", limit=10**12)
