"""What is trained beside a frozen module: the paper's adapter (2.2.5) in its two placements (Appendix D), and the other
kinds that a site may have (the paper's future work names selective PEFT).

A *site* adapts one frozen module F of a DAMoE layer. F ends in a linear map, `F(h) = W u(h) + c`:

| site | F | W | u(h) |
|---|---|---|---|
| causal and context expert | attention under the branch's mask | output map, [d, H * e] | the heads' mixed values |
| recommendation adapter | feed-forward | its last map, [d, f] | its inner values, activated |

| kind | the site gives | trained |
|---|---|---|
| `bottleneck` | serial `Adapter(F(h))`, parallel `(F(h) + Adapter(h)) / 2` | 2 d b + b + d |
| `lora` | `(W + B A) u(h) + c` | b (n + d), with n the columns of W |
| `ia3` | experts: F with values `l_v * V`; recommendation adapter: `W (l_ff * u(h)) + c` | G e; f |
| `none` | `F(h)` | 0 |

LoRA (Hu et al. 2021, 4.1): the rank is b, and alpha equals it, so that the factor alpha / rank is one. They do not tune
alpha either: under Adam it acts like the learning rate. A starts as a linear layer does, B at zero. What is updated is
W, and not Q or V as there, because both branches share Q, K and V: W is where they part. So all before it is still
computed once, and in the last layer the update is computed for the states alone that are read.

(IA)3 (Liu et al. 2022, 3.3) learns scales l_k, l_v and l_ff, which start at one. Values times l_v are mixed to what the
heads mix, times l_v, so each branch can have its own after the shared projections. l_k is left out (a deviation): with
rotary positions it acts before the rotation, so each branch would need rotated keys of its own.

**Placement.** A bottleneck reads F's output or F's input, and that is what the bit says. The other kinds change F
itself: they have no input to choose, nothing is averaged, and they start as F. At such a site the bit does nothing, so
designs that differ there alone are one model; whoever searches kinds and bits together should count them as one (fix
the bit at 0), lest it train one model twice and take it for evidence on the bit. The paper's linear bottleneck is close
to LoRA: serial, it is the update `W2 W1 W` and a bias.

Legend: M tokens, d hidden width, b `bottleneck`, H query heads, G key-value heads, e head size, f inner width of the
feed-forward.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from search_spaces.architecture import Placement
from trainers.config import AdapterKind

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


class LowRank(nn.Module):
    """LoRA's update `B A` of a frozen map W in R^(d x n): A in R^(b x n) is `down`, B in R^(d x b) is `up`, at zero."""

    def __init__(self, read: int, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(read, rank, bias=False)
        self.up = nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, inner: Tensor) -> Tensor:
        """What is added to `W u`: [M, n] -> [M, d]"""
        return self.up(self.down(inner))  # type: ignore[no-any-return]


class Scale(nn.Module):
    """(IA)3's scales, at one. Each of `groups` blocks of them serves `shared_by` neighbours: with grouped-query
    attention, the query heads that read one head of values."""

    def __init__(self, width: int, *, groups: int = 1, shared_by: int = 1) -> None:
        super().__init__()
        self.groups, self.shared_by = groups, shared_by
        self.scale = nn.Parameter(torch.ones(width // shared_by))

    @property
    def spread(self) -> Tensor:
        """[n], one scale for each column of W."""
        return self.scale.view(self.groups, 1, -1).expand(-1, self.shared_by, -1).flatten()

    def forward(self, inner: Tensor) -> Tensor:
        """[M, n] -> [M, n]"""
        return inner * self.spread.to(inner.dtype)


SiteAdapter = Adapter | LowRank | Scale | None
"""What a site trains: by kind; None: nothing."""


def build_adapter(
    kind: AdapterKind,
    weight: Tensor,
    bottleneck: int,
    activation: Activation,
    *,
    groups: int = 1,
    shared_by: int = 1,
) -> SiteAdapter:
    """The adapter of a module that ends in `weight`, [d, n].

    Args:
        groups, shared_by: heads of values, and query heads that read each; one where no heads are.
    """
    width, read = weight.shape
    if kind == "bottleneck":
        return Adapter(width, bottleneck, activation)
    if kind == "lora":
        return LowRank(read, width, bottleneck)
    if kind == "ia3":
        return Scale(read, groups=groups, shared_by=shared_by)
    return None


Map = tuple[Tensor, Tensor | None]
"""Weight [d, n] and bias [d] of a linear map."""


@torch.no_grad()
def fold(adapter: SiteAdapter, weight: Tensor, bias: Tensor | None) -> Map | None:
    """The frozen map and what is trained behind or beside it as one linear map, for inference.

    A bottleneck stands behind the map, as a serial one does. None where there is nothing to fold, or an activation.
    """
    if adapter is None:
        return None
    if isinstance(adapter, LowRank):
        return weight + adapter.up.weight @ adapter.down.weight, bias
    if isinstance(adapter, Scale):
        return weight * adapter.spread, bias
    if not isinstance(adapter.activate, nn.Identity):
        return None
    down, up = adapter.down, adapter.up
    constant = torch.zeros_like(up.bias) if bias is None else bias
    return weight + up.weight @ (down.weight @ weight), adapter(constant)


def adapt(adapter: Adapter, placement: Placement, frozen_output: Tensor, frozen_input: Tensor) -> Tensor:
    """Combine a frozen module F with its bottleneck.

    Serial: `Adapter(F(h))`. Parallel: `(F(h) + Adapter(h)) / 2`, which does not start as F (ruling 1).

    Args:
        frozen_output: F(h), [M, d].
        frozen_input: the normed tensor h that F reads, [M, d].
    """
    if placement is Placement.SERIAL:
        return adapter(frozen_output)  # type: ignore[no-any-return]
    return torch.add(frozen_output, adapter(frozen_input)) / 2


def finish(adapter: LowRank | Scale | None, inner: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The end of a frozen module with what changes it: u(h), [M, n] -> [M, d]."""
    if isinstance(adapter, Scale):
        inner = adapter(inner)
    output = linear(inner, weight, bias)
    return output + adapter(inner) if isinstance(adapter, LowRank) else output
