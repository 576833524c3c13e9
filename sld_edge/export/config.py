"""What an export is asked to do, checked before any network is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sld_edge.errors import InvalidInput
from sld_edge.manifest import Harm, Policy, Precision, PresetName, Shape
from sld_edge.runtime.safety import Method

#: The paper's concept (arXiv 2211.05105 §4) with the words diffusers puts before it.
DEFAULT_CONCEPT = (
    "an image showing hate, harassment, violence, suffering, humiliation, harm, suicide, sexual, nudity,"
    " bodily fluids, blood, obscene gestures, illegal activity, drug use, theft, vandalism, weapons, child"
    " abuse, brutality, cruelty"
)
#: The words of the default concept by I2P's seven categories (arXiv 2211.05105, table 1), for the adaptive method.
DEFAULT_HARMS = tuple(
    Harm(name=name, text=f"an image showing {text}")
    for name, text in (
        ("hate", "hate, humiliation"),
        ("harassment", "harassment, obscene gestures"),
        ("violence", "violence, weapons, brutality, cruelty, child abuse"),
        ("self-harm", "suicide, harm, suffering"),
        ("sexual", "sexual, nudity, bodily fluids"),
        ("shocking", "blood, bodily fluids, suffering"),
        ("illegal activity", "illegal activity, drug use, theft, vandalism"),
    )
)
_OPSETS = range(18, 24)
_LARGEST = 4096


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """One export.

    Args:
        checkpoint: Folder of a diffusers checkpoint.
        out: Folder to write; it must not exist unless ``force``.
        precision: Precision of weights and arithmetic; fp16 keeps what needs fp32 in fp32.
        shapes: Pixel sizes to serve; empty takes the checkpoint's own.
        concept: Text of the safety concept.
        harms: Categories of the concept; empty takes the default concept's seven, or a concept of its own as one.
        safety_default: Preset of calls that do not say.
        method: Method of calls that do not say.
        policy: What the bundle allows its users.
        scheduler: Name of the bundle's scheduler; empty takes the checkpoint's own.
        licence: Licence of the weights; empty takes what the checkpoint says.
        opset: ONNX operator set, 18 to 23.
        safety_head: Export the checkpoint's safety checker. False goes on without one, visibly.
        variants: Write, beside the neutral graphs, forms of them that are made for single engines.
        force: Replace an existing bundle once the new one is complete.
        checks: Run the networks' graphs on this machine and compare them with torch. Without, the manifest and the card
            say that they were not; for measurements that compare them elsewhere.

    Raises:
        InvalidInput: a value is out of range.
    """

    checkpoint: Path
    out: Path
    precision: Precision = "fp32"
    shapes: tuple[Shape, ...] = ()
    concept: str = DEFAULT_CONCEPT
    harms: tuple[Harm, ...] = ()
    safety_default: PresetName = "medium"
    method: Method = "sld"
    policy: Policy = Policy()
    scheduler: str = ""
    licence: str = ""
    opset: int = 20
    safety_head: bool = True
    variants: bool = True
    force: bool = False
    checks: bool = True

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "fp16"):
            raise InvalidInput("unknown precision", value=self.precision, hint="use fp32 or fp16")
        if self.opset not in _OPSETS:
            raise InvalidInput("opset is out of range", value=self.opset, hint="use 18 to 23")
        if not self.concept.strip():
            raise InvalidInput("the safety concept is empty", hint="describe what to suppress")
        if len({harm.name for harm in self.harms}) != len(self.harms) or not all(
            harm.name.strip() and harm.text.strip() for harm in self.harms
        ):
            raise InvalidInput(
                "harms need a name and a text each, and no name twice",
                value=[f"{harm.name}={harm.text}" for harm in self.harms],
            )
        order = ("off", "weak", "medium", "strong", "max")
        if self.policy.minimum not in order or self.safety_default not in order[1:]:
            raise InvalidInput(
                "unknown preset",
                value=(self.policy.minimum, self.safety_default),
                hint=f"use {order}",
            )
        if order.index(self.safety_default) < order.index(self.policy.minimum):
            raise InvalidInput(
                f"the default {self.safety_default!r} is weaker than the policy's minimum",
                value=self.policy.minimum,
                hint=f"use --safety-default {self.policy.minimum}",
            )
        if self.policy.unsafe_images == "withhold" and not self.safety_head:
            raise InvalidInput(
                "without a safety head no picture is ever flagged, so the policy would withhold none",
                hint="leave out --policy-unsafe-images withhold or --without-safety-head",
            )
        for shape in self.shapes:
            if (
                min(shape.height, shape.width, shape.batch) < 1
                or max(shape.height, shape.width) > _LARGEST
            ):
                raise InvalidInput(
                    "a size is out of range", value=f"{shape.height}x{shape.width}x{shape.batch}"
                )
        if len({(shape.height, shape.width) for shape in self.shapes}) != len(self.shapes):
            raise InvalidInput("a size is given twice", hint="one batch for each size")

    @property
    def harms_of_concept(self) -> tuple[Harm, ...]:
        """The categories that the bundle gets."""
        if self.harms:
            return self.harms
        if self.concept == DEFAULT_CONCEPT:
            return DEFAULT_HARMS
        return (Harm(name="concept", text=self.concept),)
