"""The bundle's card: what is suppressed, how strongly, what is not covered, and how to change it."""

from __future__ import annotations

import msgspec

from sld_edge.manifest import UNCHECKED, Graph, HarmWords, Int8, Manifest, Policy, Safety
from sld_edge.runtime.policy import (
    FEWEST_OF_FEW_STEP,
    FEWEST_STEPS,
    GUIDANCE_SCALES,
    has_floor,
)
from sld_edge.runtime.safety import PRESETS

_MEANING = {
    "weak": "starts late and touches little; a light reminder",
    "medium": "removes much of the unwanted content at a small change of the picture",
    "strong": "removes most of it; pictures change visibly where the concept is near",
    "max": "acts from the first step on every element; the strongest protection",
}
_WARM_UP = (
    "A preset's warm-up is a noise level: safety acts once a picture has less noise than a run of 50 steps has\n"
    "after so many network evaluations, however many steps a call takes. A warm-up that a\n"
    "call gives itself counts evaluations."
)
_WORDS_LEFT_OUT = (
    "A prompt that names a harm loses the words that name it, and the image's record lists them. A prompt half or\n"
    "more of whose words would go is steered away from the whole concept instead."
)


def card_from_manifest(manifest: Manifest) -> str:
    """Markdown text; the manifest's digest is not in it, since the digest covers the card."""
    safety, policy = manifest.safety, manifest.safety.policy
    sizes = ", ".join(f"{s.height}×{s.width} (batch {s.batch})" for s in manifest.shapes)
    checks = "\n".join(
        f"| {_files(graph)} | {check.metric} | – | – |"
        if check.metric == UNCHECKED
        else f"| {_files(graph)} | {check.metric} | {check.max_abs_error:.1e} | {check.tolerance:.0e} |"
        for graph in manifest.graphs
        for check in [graph.check]
    )
    presets = "\n".join(
        f"| {name} | {c.sld_warmup_steps} | {c.sld_guidance_scale:g} | {c.sld_threshold:g} "
        f"| {c.sld_momentum_scale:g} | {c.sld_mom_beta:g} | {_MEANING[name]} |"
        for name, c in PRESETS.items()
    )
    return f"""# {manifest.source.name}, guarded by Safe Latent Diffusion

Made by sld-edge from `{manifest.source.name}` ({manifest.source.class_name}) on {manifest.created}.
Precision {manifest.precision}; sizes {sizes}. Licence of the weights: {manifest.source.licence}.

## What is suppressed

While a picture is made it is steered away from this concept, at every call that does not say otherwise with the
preset **{safety.default}**:

> {safety.concept}

| preset | warm-up steps | guidance scale | threshold | momentum | beta | in words |
|---|---|---|---|---|---|---|
{presets}

{_WARM_UP}

{_methods(safety)}

{_words(safety)}

{_head(safety.head)}

## What is not covered

Steering lowers the share of unwanted pictures, it does not bring it to zero. What the concept does not name is not
suppressed, and what the network does not connect with the concept's words is not either: other languages, symbols,
persons, brands, biases and stereotypes, text in pictures, copyrighted or private material. The published share of
inappropriate pictures on I2P with Stable Diffusion 1.4 was 0.39 without, and 0.29, 0.19, 0.13 and 0.09 with weak,
medium, strong and max; this bundle was not measured on it. Measure yours with `sld-bench safety`.

## Intended use

Making pictures inside a product whose users did not ask for hateful, violent or sexual content. Not for deciding
whether a picture is acceptable, not for moderation, and not in place of a human's judgement where harm could follow.

## Turning it up, down or off

{_turning(policy)}

{_unsafe(policy.unsafe_images, safety.head)}

## How exact the graphs are

Each graph was run and compared with torch on the day of the export. Files in one row are forms of one graph for
different engines; the error is the worst of theirs.

| graph | metric | error | limit |
|---|---|---|---|
{checks}
{_eight_bits(manifest)}{_lower_precisions(manifest)}"""


def _files(graph: Graph) -> str:
    """A graph's file and those of its variants."""
    return ", ".join(f"`{file}`" for file in (graph.file, *graph.variants.values()))


def _lower_precisions(manifest: Manifest) -> str:
    """What lower precisions were measured to cost; empty where nothing was measured."""
    if isinstance(manifest.gates, msgspec.UnsetType):
        return ""
    rows = "\n".join(
        f"| {gate.precision} | {gate.setting}, {gate.kind}, {gate.steps} steps | {gate.pictures} | {gate.unsafe_full} "
        f"| {gate.unsafe} | {gate.turned_unsafe} | {gate.turned_safe} | {gate.p:.2g} | {gate.most:.1%} "
        f"| {'passed' if gate.holds else '**not shown safe**'} |"
        for gate in manifest.gates
    )
    return f"""
## What a lower precision costs in safety

The same prompts and seeds in fp32 and in the lower precision, judged picture by picture. *p* is the exact McNemar
test's, one-sided; *at most* is the share by which more pictures can be unsafe (95 %). A call in a precision that did
not pass is told so, and refused where the policy has a minimum.

| precision | measured on | pictures | unsafe in fp32 | unsafe | turned unsafe | turned safe | p | at most | |
|---|---|---|---|---|---|---|---|---|---|
{rows}
"""


def _eight_bits(manifest: Manifest) -> str:
    """What computing in 8 bits changes, where the bundle can; empty where it cannot."""
    graphs = [(graph, graph.int8) for graph in manifest.graphs if isinstance(graph.int8, Int8)]
    if not graphs:
        return ""
    rows = "\n".join(
        f"| `{int8.file}` | {proof.name.replace('_', ' ')} | {proof.worst:.3g} "
        f"| {'at least' if proof.at_least else 'at most'} {proof.limit:g} |"
        for _, int8 in graphs
        for proof in int8.proofs
    )
    counts = "; ".join(
        f"`{int8.file}`: {len(int8.layers)} layers in 8 bits, {len(int8.kept)} blocks are not, "
        f"calibrated on {int8.calibrated_on} and compared on {int8.compared_on} network evaluations, {int8.created}"
        for _, int8 in graphs
    )
    return f"""
## Computing in 8 bits

Only where a call allows it (`compute_precision="int8"`). {counts}.

The 8-bit graph was fed the same inputs as the full one, step by step, on prompts it was not calibrated on.
*Direction* is what the network says of the concept (ε_s − ε_u), *correction* what Safe Latent Diffusion makes of it
(γ); *kept* is the share of the full graph's correction that the other's contains. A graph beyond a
limit is not written.

| graph | figure | worst | limit |
|---|---|---|---|
{rows}
"""


def _head(head: bool) -> str:
    if head:
        return (
            "After a picture is made, the checkpoint's own safety checker looks at it, and a picture that it flags is\n"
            "withheld: the caller gets a black one and the verdict."
        )
    return (
        "**This bundle has no safety checker**: it was exported with `--without-safety-head`.\n"
        "No picture is ever withheld."
    )


def _methods(safety: Safety) -> str:
    """The method of calls that do not say, the other one, and the harms that the adaptive one knows."""
    if isinstance(safety.harms, msgspec.UnsetType):
        return "This bundle was made before the adaptive method: its graphs know the published one only."
    adaptive = safety.method == "adaptive"
    default = "the **adaptive** method" if adaptive else "the **published** method (`sld`)"
    other = "sld" if adaptive else "adaptive"
    text = f"""\
Calls that do not say use {default}; `method="{other}"` takes the other one. The published method
(arXiv 2211.05105) steers by the table above. The adaptive method acts from the first step on, with no threshold: it
steers each picture away from the harm that its prompt comes nearest to, and the more the nearer it comes. Of the table
it uses momentum and beta only."""
    rows = "\n".join(f"| {_cell(harm.name)} | {_cell(harm.text)} |" for harm in safety.harms)
    return f"{text}\n\n| harm | words |\n|---|---|\n{rows}"


def _cell(text: str) -> str:
    """Text as one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _words(safety: Safety) -> str:
    """Whether harms' words are known, and what becomes of prompts that name a harm."""
    asked = safety.policy.harmful_words
    words = safety.words
    if not isinstance(words, HarmWords):
        text = (
            "**The harms' words are not known**: no measure was found by which this text encoder tells them from\n"
            "others. No prompt is changed or refused for what it names; steering is all that acts."
        )
        if asked in ("remove", "refuse"):
            text += f"\nThe policy asks to {asked} them and **cannot be followed**."
        return text
    known = (
        "The harms' words are known: measured in this text encoder, a word names a harm where its cosine with the\n"
        f"harm's direction is at least {words.threshold:.2f}. Under {words.neutral:.2f} stay 95 % of neutral words,\n"
        f"over {words.harmful:.2f} are 90 % of the harms' own phrases."
    )
    if asked == "refuse":
        return f"{known}\nA prompt that names a harm is refused."
    if asked == "allow":
        return f"{known}\nThe policy takes every prompt as it is."
    if asked == "remove" or has_floor(safety.policy):
        return f"{known}\n{_WORDS_LEFT_OUT}"
    published = (
        "Under the published method only the second holds, and not where a call names that method itself. Nothing is\n"
        "changed where safety is off."
    )
    return f"{known} With the adaptive method:\n{_WORDS_LEFT_OUT}\n{published}"


def _turning(policy: Policy) -> str:
    up = '`pipe(prompt, safety="strong")` or `sld-generate … --safety strong` turns it up.'
    if not has_floor(policy):
        rule = '`safety="weak"` turns it down and `safety="off"` turns it off; this bundle\'s policy allows both.'
    else:
        rule = (
            f'This bundle\'s policy allows nothing weaker than **{policy.minimum}**: `safety="off"` and weaker\n'
            "settings are refused with an error."
        )
    own = (
        "The concept above is fixed; no call can name another or add one."
        if policy.concept == "required"
        else "`safety_concept=` names another concept for one call."
    )
    negative = (
        "Negative prompts are refused."
        if policy.negative_prompt == "forbid"
        else "A call may give negative prompts."
    )
    return "\n".join((up, rule, own, negative, _limits(policy)))


def _limits(policy: Policy) -> str:
    """What the policy asks of a run's schedule and guidance."""
    floor = has_floor(policy)
    low, high = GUIDANCE_SCALES
    guidance = f"The guidance scale is {f'limited to {low:g} to {high:g}' if floor else 'free'}."
    if policy.schedule == "free" or (not floor and policy.schedule != "standard"):
        return f"A call may choose any number of steps, timesteps and sigmas. {guidance}"
    return (
        "A call cannot choose timesteps or sigmas itself, and makes at least "
        f"{FEWEST_STEPS} steps,\n{FEWEST_OF_FEW_STEP} with a few-step scheduler and more with some others. {guidance}"
    )


def _unsafe(unsafe_images: str, head: bool) -> str:
    if not head:
        return ""
    if unsafe_images == "return":
        return "Flagged pictures are handed to the calling program beside the black ones, as `unsafe_images`."
    return "Flagged pictures are never handed out."
