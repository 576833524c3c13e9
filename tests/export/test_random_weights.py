"""Weights that are drawn directly: like torch's own in spread, the same for a seed, and whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sld_edge.export import random_weights
from sld_edge.export.random_weights import drawn


def network() -> Any:
    return nn.Sequential(nn.Conv2d(8, 64, 3), nn.GroupNorm(4, 64), nn.Linear(64, 256))


def test_weights_are_the_same_for_a_seed_and_others_for_another() -> None:
    first, again, other = (drawn(seed)(network).state_dict() for seed in (1, 1, 2))
    for name, tensor in first.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, again[name])
    assert not torch.equal(first["0.weight"], other["0.weight"])
    assert not torch.equal(first["0.weight"].flatten()[:64], first["2.weight"].flatten()[:64])


def test_spread_is_that_of_torchs_layers() -> None:
    torch.manual_seed(0)
    ours, theirs = drawn(0)(network).state_dict(), network().state_dict()
    for name in ("0.weight", "2.weight"):
        assert float(ours[name].std()) == pytest.approx(float(theirs[name].std()), rel=0.1)
    assert torch.equal(ours["1.weight"], torch.ones(64))
    assert torch.equal(ours["0.bias"], torch.zeros(64))


def test_pieces_do_not_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_weights, "_PIECE", 100)
    weight = drawn(0)(lambda: nn.Linear(64, 64)).weight.detach().flatten()
    assert len(torch.unique(weight)) == weight.numel()


def test_position_ids_are_counted_and_other_buffers_refused() -> None:
    def with_buffer(name: str) -> Any:
        layer = nn.Linear(2, 2)
        layer.register_buffer(name, torch.zeros(1, 5, dtype=torch.int64))
        return layer

    found = drawn(0)(lambda: with_buffer("position_ids"))
    assert found.position_ids.tolist() == [[0, 1, 2, 3, 4]]
    with pytest.raises(AssertionError, match="table"):
        drawn(0)(lambda: with_buffer("table"))
