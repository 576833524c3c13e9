"""A network in half precision with the parts that need single precision left in it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_NORMS = (nn.GroupNorm, nn.LayerNorm)


class SinglePrecision(nn.Module):
    """Runs a module in float32 between half-precision neighbours."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: Tensor) -> Tensor:
        """The inner module on float32, its result in the caller's type."""
        return self.inner(hidden.float()).to(hidden.dtype)


def half_from_module(module: Any) -> Any:
    """Make a module's weights float16 in place, with every normalisation kept in float32.

    Before: float32 throughout. After: convolutions, matrix products and embeddings in float16; group and layer
    norms compute in float32 between explicit casts, so a strongly typed engine keeps them there.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _NORMS) and not isinstance(parent, SinglePrecision):
                setattr(parent, name, SinglePrecision(child))
    nn.Module.to(module, torch.float16)  # diffusers' own `to` has a remark that does not apply here
    for child in module.modules():
        if isinstance(child, SinglePrecision):
            child.inner.float()
    return module
