"""The layers that MixRec puts in place of a frozen decoder layer (paper, 2.2.5 and 2.3.3).

Each maps hidden states [M, d] to [M, d]; with `readouts_only` (the last layer) to the [Q, d] states that are read.
The backbone's residuals and norms stay where they are: what the layer computes in place of the attention output is
added to the residual stream.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.architecture import LayerDesign, Placement
from trainers.model.adapter import Activation, Adapter, adapt
from trainers.model.attention import Geometry, causal_branch, context_branch, project
from trainers.model.backbone import DecoderLayer


def _kept(x: Tensor, geometry: Geometry, readouts_only: bool) -> Tensor:
    return x[geometry.rows.readouts] if readouts_only else x


def frozen_layer(layer: DecoderLayer, x: Tensor, geometry: Geometry, *, readouts_only: bool) -> Tensor:
    """The backbone's layer as it is: the layers between replaced ones when r > 1."""
    normed = layer.attention_norm(x)
    projected = project(layer, normed, geometry, readouts_only=readouts_only)
    x = _kept(x, geometry, readouts_only) + causal_branch(layer, projected, geometry)
    return x + layer.feed_forward(layer.feed_forward_norm(x))


class Gate(nn.Module):
    """`beta = softmax([q, p] W_gate + b_gate)`, per token (2.3.3). Starts at zero: an even mix of both branches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 2 * width))
        self.bias = nn.Parameter(torch.zeros(2))

    def forward(self, causal: Tensor, context: Tensor) -> Tensor:
        """Two experts' outputs, [M, d] each -> their mix [M, d]."""
        # W [q; p] without building the concatenation, which would copy both branches.
        on_causal, on_context = self.weight.chunk(2, dim=1)
        logits = causal @ on_causal.T + context @ on_context.T + self.bias
        share = logits.softmax(dim=-1)
        return share[:, :1] * causal + share[:, 1:] * context


class DamoeLayer(nn.Module):
    """Two adapter experts, a gate and a recommendation adapter around one frozen layer (2.3.3, Appendix D)."""

    def __init__(self, width: int, bottleneck: int, activation: Activation, design: LayerDesign) -> None:
        super().__init__()
        self.design = design
        self.causal_expert = Adapter(width, bottleneck, activation)
        self.context_expert = Adapter(width, bottleneck, activation)
        self.gate = Gate(width)
        self.recommendation_adapter = Adapter(width, bottleneck, activation)

    def forward(self, layer: DecoderLayer, x: Tensor, geometry: Geometry, *, readouts_only: bool) -> Tensor:
        normed = layer.attention_norm(x)
        projected = project(layer, normed, geometry, readouts_only=readouts_only)
        x, normed = _kept(x, geometry, readouts_only), _kept(normed, geometry, readouts_only)

        causal = causal_branch(layer, projected, geometry)
        context = context_branch(layer, projected, geometry)
        design = self.design
        x = x + self.gate(
            adapt(self.causal_expert, design.causal_expert, causal, normed),
            adapt(self.context_expert, design.context_expert, context, normed),
        )
        normed = layer.feed_forward_norm(x)
        return x + adapt(self.recommendation_adapter, design.recommendation_adapter, layer.feed_forward(normed), normed)


class BaseLayer(nn.Module):
    """MixRec_base: serial adapters after attention and after the feed-forward, causal mask only (2.2.5)."""

    def __init__(self, width: int, bottleneck: int, activation: Activation) -> None:
        super().__init__()
        self.attention_adapter = Adapter(width, bottleneck, activation)
        self.feed_forward_adapter = Adapter(width, bottleneck, activation)

    def forward(self, layer: DecoderLayer, x: Tensor, geometry: Geometry, *, readouts_only: bool) -> Tensor:
        normed = layer.attention_norm(x)
        projected = project(layer, normed, geometry, readouts_only=readouts_only)
        attended = causal_branch(layer, projected, geometry)
        x = _kept(x, geometry, readouts_only) + adapt(self.attention_adapter, Placement.SERIAL, attended, normed)
        normed = layer.feed_forward_norm(x)
        return x + adapt(self.feed_forward_adapter, Placement.SERIAL, layer.feed_forward(normed), normed)
