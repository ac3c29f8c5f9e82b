"""The adapter of the paper (2.2.5) and its two placements (Appendix D)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from search_spaces.architecture import Placement

Activation = Literal["none", "gelu"]


class Adapter(nn.Module):
    """`Adapter(h) = W2 act(W1 h + b1) + b2 + h`, with W1 in R^(b x d) and W2 in R^(d x b).

    The paper prints no activation, so none is the default. W2 and b2 start at zero: a serial adapter starts as the
    identity (ruling 1).
    """

    def __init__(self, width: int, bottleneck: int, activation: Activation) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.activate = nn.GELU() if activation == "gelu" else nn.Identity()

    def forward(self, hidden: Tensor) -> Tensor:
        """[M, d] -> [M, d]"""
        return self.up(self.activate(self.down(hidden))) + hidden  # type: ignore[no-any-return]


Folded = tuple[Tensor, Tensor]
"""Weight [d, f] and bias [d] of a frozen map with the serial adapter behind it."""


@torch.no_grad()
def fold(adapter: Adapter, weight: Tensor, bias: Tensor | None) -> Folded | None:
    """`x -> Adapter(weight x + bias)` as one linear map, for inference; None where the adapter has an activation."""
    if not isinstance(adapter.activate, nn.Identity):
        return None
    down, up = adapter.down, adapter.up
    constant = torch.zeros_like(up.bias) if bias is None else bias
    return weight + up.weight @ (down.weight @ weight), adapter(constant)


def adapt(adapter: Adapter, placement: Placement, frozen_output: Tensor, frozen_input: Tensor) -> Tensor:
    """Combine a frozen module F with its adapter.

    Serial: `Adapter(F(h))`. Parallel: `(F(h) + Adapter(h)) / 2`, which does not start as F (ruling 1).

    Args:
        frozen_output: F(h), [M, d].
        frozen_input: the normed tensor h that F reads, [M, d].
    """
    if placement is Placement.SERIAL:
        return adapter(frozen_output)  # type: ignore[no-any-return]
    return torch.add(frozen_output, adapter(frozen_input)) / 2
