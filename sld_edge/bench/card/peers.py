"""Who is compared on a card, and the one rule that says whose picture is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sld_edge.bench.compare.interleave import Outcome
from sld_edge.bench.compare.peers import Peer
from sld_edge.bench.compare.picture import psnr

_SAFE, _PLAIN = "safe-fp32", "plain-fp32"
#: A picture may be so many dB further from the fp32 reference than diffusers' eager fp16 picture is.
_WORSE = 6.0
#: And never further than this: different pictures have about 10 dB.
_LEAST = 15.0

RULE = (
    "All make the same picture from the same weights, text, noise and DDIM steps. The reference is diffusers in fp32 "
    "(no TF32) on the same device. A picture is right when its PSNR to the reference is at most "
    f"{_WORSE:g} dB below that of diffusers' eager half-precision picture, and at least {_LEAST:g} dB. "
    "What is not right does not count."
)


def references() -> list[Peer]:
    """The fp32 pipelines."""
    return [
        Peer(name=_SAFE, title="diffusers Safe, eager fp32 (reference)", branches=3, reference=_SAFE,
             adapter="torch_safe", process="fp32"),
        Peer(name=_PLAIN, title="diffusers plain, eager fp32 (reference)", branches=2, reference=_PLAIN,
             adapter="torch_safe", process="fp32"),
    ]  # fmt: skip


def eager() -> list[Peer]:
    """diffusers in half precision, launch by launch."""
    return [
        Peer(name="safe-eager", title="diffusers Safe, eager", branches=3, reference=_SAFE,
             adapter="torch_safe", least=_LEAST),
        Peer(name="plain-eager", title="diffusers plain, eager", branches=2, reference=_PLAIN,
             adapter="torch_safe", least=_LEAST),
    ]  # fmt: skip


def compiled() -> list[Peer]:
    """diffusers with its UNet through torch.compile."""
    return [
        replace(peer, name=peer.name.replace("eager", "compiled"), process="compiled",
                title=peer.title.replace("eager", "torch.compile"))
        for peer in eager()
    ]  # fmt: skip


def ours(library: str) -> list[Peer]:
    """This runtime on one library, with safety and without, in one process."""
    return [
        Peer(name=f"ours-{library}", title=f"sld-edge, {library}", branches=3, reference=_SAFE,
             adapter="ours", process=library, least=_LEAST),
        Peer(name=f"ours-{library}-off", title=f"sld-edge, {library}, safety off", branches=2,
             reference=_PLAIN, adapter="ours", process=library, least=_LEAST),
    ]  # fmt: skip


def by_the_rule(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes with what each picture must reach, from what the eager picture reached."""
    by_name = {outcome.peer.name: outcome for outcome in outcomes}
    judged = []
    for outcome in outcomes:
        peer = outcome.peer
        if peer.least is not None:
            kind = "safe-eager" if peer.branches == 3 else "plain-eager"
            reached = _psnr(by_name.get(kind), by_name.get(peer.reference))
            if reached is not None:
                peer = replace(peer, least=max(_LEAST, reached - _WORSE))
        judged.append(replace(outcome, peer=peer))
    return judged


def _psnr(one: Outcome | None, other: Outcome | None) -> float | None:
    if one is None or other is None:
        return None
    pairs = zip(one.pictures, other.pictures, strict=False)
    return min((psnr(a, b) for a, b in pairs if a.shape == b.shape), default=None)
