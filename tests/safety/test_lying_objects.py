"""Arguments that lie: what a call decides on is what it then does, whatever an object says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sld_edge import CallArguments, Generator, PolicyError, SafePipeline, SafetyConfig, SldError
from sld_edge.bundle import Bundle
from sld_edge.engines.base import EngineOptions
from sld_edge.errors import InvalidInput
from sld_edge.manifest import Policy, Safety
from sld_edge.plain import plain_list, plain_number, plain_path, plain_text
from sld_edge.runtime.call import prepare_call
from sld_edge.runtime.memory_plan import checked_memory
from sld_edge.runtime.tokenize import Tokenizer
from tests.runtime.resolving import resolved

FLOOR = Safety(concept="violence", policy=Policy(minimum="strong", concept="required"))


class LyingText(str):
    """Equals everything, and says "strong" whenever it is asked."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return hash("strong")

    def strip(self, *_: Any) -> str:
        return "strong"

    def lower(self) -> str:
        return "strong"

    def __str__(self) -> str:
        return "strong"

    def __repr__(self) -> str:
        raise RuntimeError("no")


class LyingFloat(float):
    """Larger and smaller than everything, and another number each time it is converted."""

    def __ge__(self, other: object) -> bool:
        return True

    __le__ = __gt__ = __lt__ = __eq__ = __ge__

    __hash__ = float.__hash__

    def __float__(self) -> float:
        return 5000.0


class LyingInt(int):
    """As above."""

    def __le__(self, other: object) -> bool:
        return True

    __ge__ = __gt__ = __lt__ = __eq__ = __le__

    __hash__ = int.__hash__

    def __index__(self) -> int:
        return 0

    __int__ = __index__


class LyingNumpy(np.float32):
    """As above."""

    def item(self, *_: Any) -> float:
        return 5000.0

    def __float__(self) -> float:
        return 5000.0


class LyingList(list):  # type: ignore[type-arg]
    """Another list at every reading."""

    def __iter__(self) -> Iterator[Any]:
        return iter(["violence"])

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        return "violence"

    def __contains__(self, item: object) -> bool:
        return True


class Says(SafetyConfig):
    """Says that it is strong enough."""

    def at_least(self, floor: SafetyConfig) -> bool:
        return True

    def matters_at(self, evaluation: int) -> bool:
        return False


class Changes(SafetyConfig):
    """Strong when it is read first, weak from then on."""

    reads = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "sld_guidance_scale":
            Changes.reads += 1
            return 2000.0 if Changes.reads % 2 else 1.0
        return super().__getattribute__(name)


class Converts:
    """Is no number, but becomes one."""

    def __float__(self) -> float:
        return 1000.0

    def __index__(self) -> int:
        return 5


def guard(safety: Any, concepts: Any = None, **sld: Any) -> Any:
    """The guard of a call that the policy accepted."""
    return resolved(FLOOR, safety, concepts=concepts, **sld)[0]


WEAK: dict[str, Any] = {name: SafetyConfig.WEAK[name] for name in SafetyConfig.WEAK}


@pytest.mark.parametrize(
    "safety",
    [Says(**WEAK), LyingText("off"), LyingText("weak"), LyingText("medium")],
    ids=["config", "off", "weak", "medium"],
)
def test_a_policy_is_not_talked_out_of_its_floor(safety: Any) -> None:
    with pytest.raises((PolicyError, InvalidInput)):
        guard(safety)


@pytest.mark.parametrize("name", list(WEAK))
@pytest.mark.parametrize("kind", [LyingFloat, LyingInt, LyingNumpy])
def test_a_number_that_lies_is_what_it_is(name: str, kind: Any) -> None:
    strong = {key: SafetyConfig.STRONG[key] for key in WEAK}
    weaker = {"sld_warmup_steps": 30, "sld_guidance_scale": 1, "sld_mom_beta": 1}.get(name, 0)
    with pytest.raises((PolicyError, InvalidInput)):
        guard(None, **{**strong, name: kind(weaker)})


@pytest.mark.parametrize("before", range(4))
def test_a_config_is_read_once_and_is_of_the_very_class(before: int) -> None:
    strong: dict[str, Any] = dict(SafetyConfig.STRONG)
    config = Changes(**strong)
    Changes.reads = before
    try:
        made = guard(config).config
    except PolicyError:  # it was weak when it was read
        return
    assert type(made) is SafetyConfig
    assert made == SafetyConfig.STRONG
    assert {type(value) for value in vars(made).values()} == {int, float}


@pytest.mark.parametrize("concepts", [LyingList(["flowers"]), LyingText("flowers"), ["flowers"]])
def test_the_fixed_concept_is_not_replaced_by_one_that_says_it_equals_it(concepts: Any) -> None:
    with pytest.raises(PolicyError, match="concept"):
        guard("strong", concepts)


@given(st.text(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False))
def test_plain_values_are_exact_and_equal(text: str, whole: int, real: float) -> None:
    assert type(plain_text("x", LyingText(text))) is str
    assert str.__eq__(plain_text("x", LyingText(text)), text)
    for value, kind in ((LyingInt(whole), int), (LyingFloat(real), float)):
        plain = plain_number("x", value)
        assert type(plain) is kind
        assert plain == (whole if kind is int else real)
    items = plain_list("x", LyingList([text, whole]))
    assert type(items) is tuple
    assert items == (text, whole)


@pytest.mark.parametrize("value", [True, np.True_, Converts(), Fraction(1, 2), 1j, "1", None, [1]])
def test_what_merely_becomes_a_number_is_none(value: Any) -> None:
    with pytest.raises(InvalidInput):
        plain_number("x", value)


@pytest.mark.parametrize("value", [None, 5, b"x", "", "  ", "a\0b", Converts()])
def test_what_is_no_path_is_one_line(value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        plain_path("the folder", value)
    assert "\n" not in str(caught.value)
    with pytest.raises(SldError):
        SafePipeline.from_pretrained(value)


@pytest.fixture(scope="module")
def opened(tiny_bundle: Path) -> tuple[Bundle, Tokenizer]:
    bundle = Bundle.open(tiny_bundle)
    return bundle, Tokenizer(bundle)


HUGE = 10**400
RAGGED = [[0.0], [0.0, 1.0]]
BAD: list[dict[str, Any]] = [
    {"guidance_scale": HUGE},
    {"guidance_scale": Converts()},
    {"guidance_scale": np.array([7.5])},
    {"num_inference_steps": Converts()},
    {"num_inference_steps": HUGE},
    {"num_inference_steps": np.float64(5.0)},
    {"eta": HUGE, "scheduler": "ddim"},
    {"eta": np.True_, "scheduler": "ddim"},
    {"height": HUGE},
    {"seed": HUGE},
    {"seed": [HUGE]},
    {"seed": np.array(3.0)},
    {"seed": np.broadcast_to(np.int64(0), (10**12,))},
    {"generator": Converts()},
    {"generator": type("Mine", (Generator,), {})(1)},
    {"latents": RAGGED},
    {"latents": np.broadcast_to(np.float32(0), (10**9, 4, 8, 8))},
    {"latents": np.full((1, 4, 8, 8), 1e300)},
    {"latents": Converts()},
    {"latents": [[[[HUGE]]]]},
    {"latents": "text"},
    {"timesteps": [HUGE, 5], "scheduler": "euler"},
    {"timesteps": RAGGED, "scheduler": "euler"},
    {"timesteps": "999", "scheduler": "euler"},
    {"timesteps": [float("nan")], "scheduler": "euler"},
    {"timesteps": {999: 1}, "scheduler": "euler"},
    {"sigmas": [Converts(), 0.0], "scheduler": "euler"},
    {"sigmas": np.array([[1.0], [0.0]]), "scheduler": "euler"},
    {"sld_warmup_steps": np.float32(3)},
    {"sld_guidance_scale": HUGE},
    {"sld_threshold": Converts()},
    {"safety": {"sld_guidance_scale": 1000.0}},
    {"safety": ["strong"]},
    {"safety": dict(SafetyConfig.STRONG).items()},
    {"safety_concept": {"violence": 1}},
    {"safety_concept": [["violence"]]},
    {"scheduler": Converts()},
    {"output_type": Converts()},
    {"output_type": ["pil"]},
    {"callback_steps": HUGE},
    {"prompt": LyingList([5])},
    {"prompt": {"a": 1}},
]


@pytest.mark.parametrize("call", BAD, ids=lambda call: next(iter(call)))
def test_a_value_of_no_exact_type_is_one_clear_line(
    opened: tuple[Bundle, Tokenizer], call: dict[str, Any]
) -> None:
    with pytest.raises(SldError) as caught:
        prepare_call(*opened, CallArguments(**{"prompt": "a castle", **call}))
    text = str(caught.value)
    assert "\n" not in text
    assert 10 < len(text) < 500


def test_numpys_own_numbers_are_numbers(opened: tuple[Bundle, Tokenizer]) -> None:
    call = prepare_call(
        *opened,
        CallArguments(
            prompt=np.str_("a castle"),
            num_inference_steps=np.int64(20),  # type: ignore[arg-type]
            guidance_scale=np.float32(7.5),  # type: ignore[arg-type]
            seed=np.uint32(3),  # type: ignore[arg-type]
            scheduler="euler",
            timesteps=np.arange(900, 0, -100),  # type: ignore[arg-type]
            sld_warmup_steps=np.int32(2),  # type: ignore[arg-type]
        ),
    )
    assert type(call.request.prompts[0]) is str
    assert type(call.request.guidance_scale) is float
    assert call.request.generators.seed == 3
    assert type(call.request.generators.seed) is int
    assert call.schedule.evaluations == 9


def test_engine_options_are_plain_too() -> None:
    options = EngineOptions.parse(LyingText("openvino"), compute_precision=LyingText("fp32"))
    assert (type(options.backend), options.backend) == (str, "openvino")

    class Mine(EngineOptions):
        pass

    assert type(EngineOptions.parse(Mine(threads=np.int64(2)))) is EngineOptions  # type: ignore[arg-type]
    for threads in (-1, 2.0, True, HUGE, 10**9, Converts()):
        with pytest.raises(InvalidInput):
            EngineOptions(threads=threads)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        EngineOptions(compute_precision=LyingText("fp4"))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        checked_memory(LyingText("tiny"))


@pytest.mark.parametrize("threads", [0, -5, 2.5, HUGE, True])
def test_a_generator_has_a_card_that_could_be(threads: Any) -> None:
    with pytest.raises(InvalidInput, match="threads"):
        Generator(1, "cuda", threads=threads)


def test_keywords_that_no_function_has_are_told_with_the_nearest(tiny_bundle: Path) -> None:
    pipe = SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu", lazy=True)
    with pytest.raises(InvalidInput, match=r"did you mean branches\?"):
        pipe.memory_plan(branchs=3)
    with pytest.raises(InvalidInput, match=r"did you mean guidance_scale\?"):
        pipe.check("a castle", guidance_scal=3)
    for setting in ({"height": "64"}, {"batch": HUGE}, {"steps": 2.5}, {"memory": 5}):
        with pytest.raises(InvalidInput):
            pipe.memory_plan(**setting)
    calls: tuple[dict[str, Any], ...] = ({"callback": 5}, {"return_dict": "no"}, {"progress": 1})
    for call in calls:
        with pytest.raises(InvalidInput):
            pipe("a castle", **call)  # found before a network is loaded
    assert pipe.engines == {}
