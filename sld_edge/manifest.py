"""The bundle's manifest: plain, versioned, strictly validated data; :mod:`sld_edge.manifest_json` reads and writes it.

Graph contract (names, dtypes, shapes). ``N`` token rows, ``R`` branches, ``K = R − 2`` safety concepts, ``B`` samples,
``C`` latent channels, ``h × w`` latent size, ``H × W`` pixel size, ``T`` text length, ``S`` rows of scheduler state,
``L`` cross-attention layers numbered in the order the UNet runs them:

========  ==========================================================  ======================================
graph     inputs                                                      outputs
========  ==========================================================  ======================================
text      input_ids int64 [N, T]                                      k_00 [N, heads, dim, T], already scaled
                                                                      by dim^-1/2; v_00 [N, heads, T, dim]; …
unet      latents f32 [B, C, h, w]; input_scale f32 [1];              noise_pred f32 [R, B, C, h, w]
          timestep f32 [1]; k_00 [R, B, heads, dim, T];
          v_00 [R, B, heads, T, dim]; …
advance   noise_pred f32 [R, B, C, h, w]; state f32 [S, B, C, h, w];  next_state f32 [S, B, C, h, w];
          momentum f32 [B, C, h, w]; noise f32 [B, C, h, w];          next_momentum f32 [B, C, h, w];
          matrix f32 [S, S + 2]; settings f32 [9];                    next_strength f32 [K, B]
          strength f32 [K, B]
decode    latents f32 [B, C, h, w]                                    images uint8 [B, H, W, 3];
                                                                      raw_mean f32 [B]
safety    images uint8 [B, H, W, 3]                                   concept_scores f32 [B, n];
                                                                      special_scores f32 [B, m]; flags bool [B];
                                                                      raw_mean f32 [B]
========  ==========================================================  ======================================

k and v are float32 in an fp32 bundle and float16 in an fp16 bundle; every other array is as above in both.
Before version 3 ``advance`` has no strength and six settings: such a bundle knows the published method only.
What a port is for is its role (:data:`PortRole`), not its name; :mod:`sld_edge.kinds` has the roles of this table.
``h, w, H, W`` are fixed numbers in ``unet``, ``decode`` and ``safety`` (one graph file per size, all sharing
one weight file per network); ``N, R, B, S`` are free.

``raw_mean`` is the mean of an image's values as the network gave them: the decoder's before they are clipped and
rounded, the safety head's embedding before it is normalised. It is not finite where one of them is not, which pixels
cannot say and which clipping and comparing hide (OpenVINO's Clamp, Relu and Max drop NaN). Bundles made before it was
added lack it.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec

#: The output that says whether a network's values were finite, see above.
RAW_MEAN = "raw_mean"

# Bounds that every valid bundle is far below: a re-signed manifest with senseless numbers is refused before
# memory is allocated.
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
_Pixels = Annotated[int, msgspec.Meta(ge=8, le=1 << 14)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 12)]
_Dimension = Annotated[int, msgspec.Meta(ge=0, le=1 << 16)]
_TokenId = Annotated[int, msgspec.Meta(ge=0, lt=1 << 24)]
_Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]

#: A lower precision passes its gate where chance explains the pictures that turned unsafe, at this level, and where
#: at most this share more can be unsafe: with 200 pictures of which none turned that is shown, with 50 it is not.
GATE_ALPHA = 0.05
GATE_MOST = 0.03

GraphKind = Literal["text", "unet", "advance", "decode", "safety"]
#: What a port is for. ``tokens``: ids of texts. ``context``: what the texts give the denoiser, computed once a call.
#: ``latents``: the sample that is denoised or decoded. ``table``: a row for each evaluation, known before the first.
#: ``prediction``: the denoiser's output. ``state``: carried from one evaluation to the next (``next_x`` follows ``x``).
#: ``noise``: fresh noise of stochastic schedulers. ``image``, ``verdict``: the results. ``check``: whether all values
#: were finite.
PortRole = Literal[
    "tokens",
    "context",
    "latents",
    "table",
    "prediction",
    "state",
    "noise",
    "image",
    "verdict",
    "check",
]
Precision = Literal["fp32", "fp16"]
LowPrecision = Literal["bf16", "fp16", "int8"]
PresetName = Literal["weak", "medium", "strong", "max"]


class _Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all manifest parts: immutable, keyword-only, unknown fields refused."""


class Port(_Data, frozen=True):
    """One input or output of a graph; a dimension is a number, or a name where it is free."""

    name: str
    dtype: Literal["float32", "float16", "int64", "int32", "uint8", "bool"]
    shape: tuple[_Dimension | str, ...]
    role: PortRole


#: Metric of a graph that was not compared with anything.
UNCHECKED = "unchecked"


class Check(_Data, frozen=True):
    """How far a written graph was from torch: largest absolute error against its tolerance."""

    reference: str
    max_abs_error: float
    tolerance: float
    metric: str = "max_abs"

    @property
    def line(self) -> str:
        """All of it in a few words."""
        if self.metric == UNCHECKED:
            return self.reference
        return (
            f"{self.metric} error {self.max_abs_error:.1e} of {self.tolerance:.0e}"
            f" against {self.reference}"
        )


class Proof(_Data, frozen=True):
    """One figure of a comparison with the full-precision graph: the worst that was seen, and its limit."""

    name: str
    worst: float
    limit: float
    #: Whether ``worst`` must not be below the limit, rather than above.
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the figure is finite and within its limit."""
        within = self.worst >= self.limit if self.at_least else self.worst <= self.limit
        return within and math.isfinite(self.worst)


class Int8(_Data, frozen=True):
    """A graph with products in 8 bits, and what showed that safety acts in it as in full precision.

    ``layers`` are in 8 bits; ``kept`` are blocks whose convolutions or attention products stayed in higher precision,
    because their rounding would have disturbed too much, with the noise power each would have added to the safety
    direction.
    """

    file: str
    weights: tuple[str, ...]
    layers: tuple[str, ...]
    kept: dict[str, float]
    noise_budget: float
    #: Network evaluations that gave the activations' ranges, and that were compared.
    calibrated_on: int
    compared_on: int
    proofs: tuple[Proof, ...]
    created: str
    tools: dict[str, str]
    #: Neighbours in a row of a linear layer's activation that share one scale, found while it runs.
    group: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)] = 32


class Graph(_Data, frozen=True):
    """One ONNX file. ``height`` and ``width`` are pixels, 0 where the graph serves every size."""

    kind: GraphKind
    file: str
    weights: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    check: Check
    height: Annotated[int, msgspec.Meta(ge=0, le=1 << 14)] = 0
    width: Annotated[int, msgspec.Meta(ge=0, le=1 << 14)] = 0
    #: The same graph rewritten for one engine, as engine name → file (``{"onnxruntime": "graphs/…"}``).
    variants: dict[str, str] = {}
    #: Left out of the file where there is none, so that older bundles keep their digest.
    int8: Int8 | msgspec.UnsetType = msgspec.UNSET


class CrossAttention(_Data, frozen=True):
    """Heads and head dimension of one cross-attention layer, in running order."""

    name: str
    heads: _Count
    head_dim: _Count


class Model(_Data, frozen=True):
    """What the runtime must know about the network."""

    family: str
    latent_channels: Annotated[int, msgspec.Meta(ge=1, le=256)]
    vae_scale_factor: Annotated[int, msgspec.Meta(ge=1, le=256)]
    #: Tokens: at least a beginning, one of the text and an end.
    text_length: Annotated[int, msgspec.Meta(ge=3, le=1 << 12)]
    prediction_type: Literal["epsilon", "v_prediction", "sample"]
    cross_attention: tuple[CrossAttention, ...]


class Tokenizer(_Data, frozen=True):
    """A ``tokenizers`` file and the ids CLIP needs; ``bos`` + text + ``eos``, padded with ``pad``."""

    file: str
    bos: _TokenId
    eos: _TokenId
    pad: _TokenId


class Policy(_Data, frozen=True):
    """What the bundle's maker allows its users.

    ``minimum`` is the weakest safety a call may ask for (``"off"`` allows all); ``concept`` says whether a
    call may choose other concepts (``"free"``) or not (``"required"``); ``unsafe_images``
    whether flagged pictures are handed to the caller beside the blacked-out ones.
    """

    minimum: Literal["off", "weak", "medium", "strong", "max"] = "off"
    concept: Literal["free", "required"] = "free"
    unsafe_images: Literal["return", "withhold"] = "return"
    #: Whether a call may give negative prompts. Left out: it may.
    negative_prompt: Literal["free", "forbid"] | msgspec.UnsetType = msgspec.UNSET
    #: Whether a call may choose its own ``timesteps`` and ``sigmas``, and any number of steps. Left out: only where
    #: ``minimum`` is ``"off"``.
    schedule: Literal["free", "standard"] | msgspec.UnsetType = msgspec.UNSET
    #: What becomes of a prompt that names a harm: its words are taken out, the call is refused, or nothing. Left out:
    #: words are taken out where ``minimum`` is not ``"off"`` or the method is adaptive.
    harmful_words: Literal["remove", "refuse", "allow"] | msgspec.UnsetType = msgspec.UNSET


class Harm(_Data, frozen=True):
    """One category of harm: its name, and the text of its safety concept, phrases separated by commas."""

    name: str
    text: str


class HarmWords(_Data, frozen=True):
    """How words that bring a harm are told from others in the cross-attention values of this text encoder.

    ``file`` is a NumPy archive: ``mean`` float32 [T, D], what all words share at each place of a text, and
    ``directions`` float32 [K, D], one unit vector for each of ``Safety.harms``; D is the length of all layers' values
    of one token. A token whose values, less the mean, have a cosine of ``threshold`` or more with a direction names
    that harm. ``neutral`` and ``harmful`` are the cosines that the threshold was put between, see
    :func:`sld_edge.runtime.words.measure_words`.
    """

    file: str
    threshold: float
    neutral: float
    harmful: float


class Safety(_Data, frozen=True):
    """The concept a bundle suppresses and how strongly when a call does not say."""

    concept: str
    default: PresetName = "medium"
    policy: Policy = Policy()
    #: False when the checkpoint had no safety checker and the export was told to go on without one.
    head: bool = True
    #: Categories of the concept, for the adaptive method; left out before version 3.
    harms: tuple[Harm, ...] | msgspec.UnsetType = msgspec.UNSET
    #: Left out where the text encoder does not tell harms' words from others.
    words: HarmWords | msgspec.UnsetType = msgspec.UNSET
    #: The method of calls that do not say; left out it is the published one.
    method: Literal["sld", "adaptive"] | msgspec.UnsetType = msgspec.UNSET


class Gate(_Data, frozen=True):
    """Unsafe pictures in a lower precision beside those in fp32, of the same prompts, seeds and settings."""

    precision: LowPrecision
    #: The strength of safety, the kind of prompts, and how the pictures were made and judged.
    setting: str
    kind: str
    steps: int
    scheduler: str
    scorers: tuple[str, ...]
    pictures: int
    #: Unsafe pictures in fp32 and in the lower precision, and how many verdicts changed either way.
    unsafe_full: int
    unsafe: int
    turned_unsafe: int
    turned_safe: int
    #: One-sided exact McNemar test: the chance of so many that turned unsafe, had nothing changed.
    p: float
    #: Upper end of the one-sided 95 % interval of the share by which more pictures are unsafe.
    most: float
    #: Digest of the bundle that was measured, which differs from this one in these records only.
    measured: str

    @property
    def holds(self) -> bool:
        """Whether no more pictures are unsafe than chance explains, and enough were made to say so."""
        return self.p > GATE_ALPHA and self.most <= GATE_MOST


class Source(_Data, frozen=True):
    """The checkpoint a bundle was made from."""

    name: str
    class_name: str
    licence: str
    #: sha256 of every weight file that was read, keyed by its path in the checkpoint.
    weights: dict[str, str]


class Shape(_Data, frozen=True):
    """A pixel size the bundle serves and the largest batch it was planned for."""

    height: _Pixels
    width: _Pixels
    batch: _Count = 1


class File(_Data, frozen=True):
    """Size in bytes and sha256 (hex) of one file of the bundle."""

    size: Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
    sha256: _Sha256


class Manifest(_Data, frozen=True):
    """Everything ``manifest.json`` says. ``digest`` is the sha256 of the manifest without that field."""

    format: str
    version: int
    created: str
    precision: Precision
    opset: int
    source: Source
    model: Model
    shapes: Annotated[tuple[Shape, ...], msgspec.Meta(min_length=1, max_length=1024)]
    scheduler: dict[str, Any]
    tokenizer: Tokenizer
    safety: Safety
    graphs: tuple[Graph, ...]
    files: dict[_Name, File]
    tools: dict[str, str]
    digest: str = ""
    #: What lower precisions were shown to cost; left out of the file where nothing was.
    gates: tuple[Gate, ...] | msgspec.UnsetType = msgspec.UNSET
