"""The layers that MixRec puts in place of a frozen decoder layer (paper, 2.2.5 and 2.3.3).

Each maps hidden states [M, d] to [M, d]; with `readouts_only` (the last layer) to the [Q, d] states that are read.
The backbone's residuals and norms stay where they are: what the layer computes in place of the attention output is
added to the residual stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from search_spaces.architecture import LayerDesign, Placement
from trainers.config import AdapterKind, ModelConfig
from trainers.model.adapter import (
    Activation,
    Adapter,
    LowRank,
    Map,
    Scale,
    SiteAdapter,
    adapt,
    build_adapter,
    finish,
    fold,
)
from trainers.model.attention import Geometry, Projected, causal_branch, context_branch
from trainers.model.backbone import Backbone, DecoderLayer
from trainers.model.causal_with_columns import causal_with_columns
from trainers.model.kernels import take


def _kept(x: Tensor, geometry: Geometry, projected: Projected) -> Tensor:
    return take(x, geometry.rows.readouts) if projected.readouts_only else x


def frozen_layer(layer: DecoderLayer, x: Tensor, projected: Projected, geometry: Geometry) -> Tensor:
    """The backbone's layer as it is: the layers between replaced ones when r > 1."""
    x = _kept(x, geometry, projected) + layer.attention_output(causal_branch(layer, projected, geometry))
    return x + layer.feed_forward(layer.feed_forward_norm(x))


class Gate(nn.Module):
    """`beta = softmax([q, p] W_gate + b_gate)`, per token (2.3.3). Starts at zero: an even mix of both branches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 2 * width))
        self.bias = nn.Parameter(torch.zeros(2))


Branch = Callable[[DecoderLayer, Projected, Geometry], Tensor]
SECOND_BRANCHES: Mapping[str, Branch] = {
    "context": context_branch,
    "causal": causal_branch,
    "causal+columns": causal_with_columns,
}
"""By `ModelConfig.second_mask`: the method, and the controls of Fig. 8."""


@dataclass(frozen=True)
class _Expert:
    """What `DamoeLayer.mix` needs of an expert, whose output is `share (O attended + W2 values + constant + ...)`."""

    attended: Tensor
    """[M, H * e]"""
    seen: Tensor
    """[M, 2] what the gate reads of the output, before its share"""
    values: list[Tensor]
    """[M, b] inner values of a bottleneck or an update; nothing for other kinds"""
    maps: list[Tensor]
    """W2 [d, b] where there are values, and the constant [d, 1]"""
    share: float
    """1/2 for a parallel bottleneck, whose input comes on top"""


def _read(
    expert: SiteAdapter,
    placement: Placement,
    attended: Tensor,
    normed: Tensor,
    output: Tensor,
    bias: Tensor,
    gate: Tensor,
) -> _Expert:
    """One expert, without applying the output map to [M, H * e]: the gate reads through `W_gate O`.

    Args:
        output, bias: the frozen map O, [d, H * e] and [d].
        gate: [2, d], the gate's part for this expert.
    """
    if isinstance(expert, Adapter):
        down, up, constant = expert.down, expert.up, bias + expert.up.bias
        both = torch.cat([down.weight, gate])  # [b + 2, d]: what is read of O a, or of the parallel input
        offset = torch.cat([down.bias, down.bias.new_zeros(2)])
        if placement is Placement.SERIAL:
            share, read = 1.0, linear(attended, both @ output, offset + both @ bias)
            seen_besides = gate @ up.bias
        else:
            share, read = 0.5, linear(normed, both, offset)
            seen_besides = linear(attended, gate @ output, gate @ constant)
        low, seen = torch.split(read, [len(down.weight), 2], dim=1)
        values = expert.activate(low)
        seen = seen + linear(values, gate @ up.weight) + seen_besides
        return _Expert(attended, seen, [values], [up.weight, constant.unsqueeze(1)], share)
    if isinstance(expert, LowRank):
        down, up = expert.down, expert.up
        read = linear(attended, torch.cat([down.weight, gate @ output]))
        low, seen = torch.split(read, [len(down.weight), 2], dim=1)
        seen = seen + linear(low, gate @ up.weight, gate @ bias)
        return _Expert(attended, seen, [low], [up.weight, bias.unsqueeze(1)], 1.0)
    if isinstance(expert, Scale):
        attended = expert(attended)
    return _Expert(attended, linear(attended, gate @ output, gate @ bias), [], [bias.unsqueeze(1)], 1.0)


class DamoeLayer(nn.Module):
    """Two experts, a gate and a recommendation adapter around one frozen layer (2.3.3, Appendix D).

    Args:
        layer: the frozen one of `backbone`, for its shapes.
        config: the kind of each site, among others.
        design: placements; those of sites that are no bottleneck are not read. The weights fit every design, so it may
            be changed at any time; in evaluation mode `fold` has to follow.
    """

    _folded: Map | None = None

    def __init__(self, backbone: Backbone, layer: DecoderLayer, config: ModelConfig, design: LayerDesign) -> None:
        super().__init__()
        self.design = design
        self.second_branch = SECOND_BRANCHES[config.second_mask]
        groups = backbone.num_key_value_heads
        shared_by = backbone.num_heads // groups
        (attention, _), (feed_forward, _) = layer.output_map, layer.feed_forward_map

        def expert(kind: AdapterKind) -> SiteAdapter:
            return build_adapter(
                kind, attention, config.bottleneck, config.activation, groups=groups, shared_by=shared_by
            )

        self.causal_expert = expert(config.causal_expert)
        self.context_expert = expert(config.context_expert)
        self.gate = Gate(backbone.width)
        self.recommendation_adapter = build_adapter(
            config.recommendation_adapter, feed_forward, config.bottleneck, config.activation
        )

    def forward(self, layer: DecoderLayer, x: Tensor, projected: Projected, geometry: Geometry) -> Tensor:
        return self.after_attention(layer, x, self.branches(layer, projected, geometry), projected, geometry)

    def branches(self, layer: DecoderLayer, projected: Projected, geometry: Geometry) -> tuple[Tensor, Tensor]:
        """[M, H * e] attention of the causal and of the context branch, before O: the same under every design."""
        return causal_branch(layer, projected, geometry), self.second_branch(layer, projected, geometry)

    def after_attention(
        self,
        layer: DecoderLayer,
        x: Tensor,
        branches: tuple[Tensor, Tensor],
        projected: Projected,
        geometry: Geometry,
    ) -> Tensor:
        """What `forward` does with `branches`: the part of the layer that the design changes."""
        x = _kept(x, geometry, projected) + self.mix(layer, *branches, projected.normed)
        normed = layer.feed_forward_norm(x)
        if self._folded is not None and not torch.is_grad_enabled():
            return x + linear(layer.feed_forward_inner(normed), *self._folded)
        adapter = self.recommendation_adapter
        if isinstance(adapter, Adapter):
            return x + adapt(adapter, self.design.recommendation_adapter, layer.feed_forward(normed), normed)
        return x + finish(adapter, layer.feed_forward_inner(normed), *layer.feed_forward_map)

    def fold(self, layer: DecoderLayer) -> None:
        """Fold the recommendation adapter into the feed-forward, unless it is a parallel bottleneck. (The experts
        already share one output map.)"""
        is_bottleneck = isinstance(self.recommendation_adapter, Adapter)
        folds = not is_bottleneck or self.design.recommendation_adapter is Placement.SERIAL
        self._folded = fold(self.recommendation_adapter, *layer.feed_forward_map) if folds else None

    def unfold(self) -> None:
        self._folded = None

    def mix(self, layer: DecoderLayer, causal: Tensor, context: Tensor, normed: Tensor) -> Tensor:
        """`beta_1 q + beta_2 p`, with the frozen output map applied once instead of to both branches.

        An expert's output is `s (O a + W2 u + c)`, with `a` the branch's attention before the output map O, `u` the
        inner values of its adapter, s = 1 for a serial and 1/2 for a parallel expert, which has its input `normed` in
        c. So the mix is `O (w_1 a_1 + w_2 a_2) + W2_1 (w_1 u_1) + W2_2 (w_2 u_2) + ...` with w = s beta, and the gate,
        like the first map of a serial adapter, reads `O a` through small products such as `W_gate O`. A LoRA expert
        has `B` for W2 and `A a` for u, an (IA)3 expert its scaled `a`; both have s = 1.

        Args:
            causal, context: [M, H * e] attention of each branch, before O.
            normed: [M, d] what a parallel adapter reads.
        """
        output, output_bias = layer.output_map
        bias = normed.new_zeros(len(output)) if output_bias is None else output_bias
        gates = self.gate.weight.chunk(2, dim=1)
        one = _read(self.causal_expert, self.design.causal_expert, causal, normed, output, bias, gates[0])
        two = _read(self.context_expert, self.design.context_expert, context, normed, output, bias, gates[1])
        logits = self.gate.bias + one.share * one.seen + two.share * two.seen
        weights = logits.softmax(dim=-1) * normed.new_tensor([one.share, two.share])
        first, second = weights.to(causal.dtype).chunk(2, dim=1)
        mixed = linear(torch.addcmul(one.attended * first, two.attended, second), output)
        low = torch.cat(
            [*(u * first for u in one.values), first, *(u * second for u in two.values), second],
            dim=1,
        )
        mixed = torch.addmm(mixed, low, torch.cat([*one.maps, *two.maps], dim=1).T)
        for weight, expert in ((first, one), (second, two)):
            if expert.share != 1.0:
                mixed = torch.addcmul(mixed, normed, weight)
        return mixed


class BaseLayer(nn.Module):
    """MixRec_base: serial adapters after attention and after the feed-forward, causal mask only (2.2.5)."""

    _folded: tuple[Map, Map] | None = None

    def __init__(self, width: int, bottleneck: int, activation: Activation) -> None:
        super().__init__()
        self.attention_adapter = Adapter(width, bottleneck, activation)
        self.feed_forward_adapter = Adapter(width, bottleneck, activation)

    def forward(self, layer: DecoderLayer, x: Tensor, projected: Projected, geometry: Geometry) -> Tensor:
        attended, x = causal_branch(layer, projected, geometry), _kept(x, geometry, projected)
        if self._folded is not None and not torch.is_grad_enabled():
            output, feed_forward = self._folded
            x = x + linear(attended, *output)
            return x + linear(layer.feed_forward_inner(layer.feed_forward_norm(x)), *feed_forward)
        x = x + self.attention_adapter(layer.attention_output(attended))
        return x + self.feed_forward_adapter(layer.feed_forward(layer.feed_forward_norm(x)))  # type: ignore[no-any-return]

    def fold(self, layer: DecoderLayer) -> None:
        """Fold both adapters into the maps before them."""
        output = fold(self.attention_adapter, *layer.output_map)
        feed_forward = fold(self.feed_forward_adapter, *layer.feed_forward_map)
        self._folded = (output, feed_forward) if output and feed_forward else None

    def unfold(self) -> None:
        self._folded = None
