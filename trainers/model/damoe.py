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

    def forward(self, seen: Tensor) -> Tensor:
        """beta, [M, 2], of `[q, p] W_gate`. A module's call, so that a hook can listen (`trainers.gates`)."""
        return (self.bias + seen).softmax(dim=-1)


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


def _through(expert: SiteAdapter, placement: Placement, output: Tensor, bias: Tensor, gate: Tensor) -> Map:
    """What expert and gate read of the attention before the frozen map O, as a map of its own: products of weights.

    Args:
        output, bias: O, [d, H * e] and [d].
        gate: [2, d], the gate's part for this expert.

    Returns:
        Weight [n, H * e] and bias [n]: n = b + 2 where the expert's first map reads there as well, else 2.
    """
    if isinstance(expert, Adapter) and placement is Placement.SERIAL:
        both = torch.cat([expert.down.weight, gate])
        return both @ output, torch.cat([expert.down.bias, gate.new_zeros(2)]) + both @ bias
    if isinstance(expert, LowRank):
        down = expert.down.weight
        return torch.cat([down, gate @ output]), torch.cat([down.new_zeros(len(down)), gate @ bias])
    return gate @ output, gate @ bias


def _read(
    expert: SiteAdapter,
    placement: Placement,
    attended: Tensor,
    normed: Tensor,
    through: Map,
    bias: Tensor,
    gate: Tensor,
) -> _Expert:
    """One expert, without applying the output map to [M, H * e].

    Args:
        through, bias, gate: as `_through` gives and reads them.
    """
    if isinstance(expert, Scale):
        attended = expert(attended)
    read = linear(attended, *through)
    if isinstance(expert, Adapter):
        down, up, share = expert.down, expert.up, 1.0
        if placement is Placement.PARALLEL:
            of_input = linear(normed, torch.cat([down.weight, gate]), torch.cat([down.bias, down.bias.new_zeros(2)]))
            low, seen = torch.split(of_input, [len(down.weight), 2], dim=1)
            share, seen = 0.5, seen + read
        else:
            low, seen = torch.split(read, [len(down.weight), 2], dim=1)
        values = expert.activate(low)
        seen = seen + linear(values, gate @ up.weight, gate @ up.bias)
        return _Expert(attended, seen, [values], [up.weight, (bias + up.bias).unsqueeze(1)], share)
    maps = [bias.unsqueeze(1)]
    if isinstance(expert, LowRank):
        low, seen = torch.split(read, [len(expert.down.weight), 2], dim=1)
        up_weight = expert.up.weight
        return _Expert(attended, seen + linear(low, gate @ up_weight), [low], [up_weight, *maps], 1.0)
    return _Expert(attended, read, [], maps, 1.0)


class DamoeLayer(nn.Module):
    """Two experts, a gate and a recommendation adapter around one frozen layer (2.3.3, Appendix D).

    Args:
        layer: the frozen one of `backbone`, for its shapes.
        config: the kind of each site, among others.
        design: placements; those of sites that are no bottleneck are not read. The weights fit every design, so it may
            be changed at any time; in evaluation mode `fold` has to follow.
    """

    _folded: Map | None = None
    _kept_products: tuple[Map, Map] | None = None

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
        """Fold the recommendation adapter into the feed-forward, unless it is a parallel bottleneck, and keep what the
        experts and the gate read through the output map, which costs a short reading more than the reading itself."""
        is_bottleneck = isinstance(self.recommendation_adapter, Adapter)
        folds = not is_bottleneck or self.design.recommendation_adapter is Placement.SERIAL
        self._folded = fold(self.recommendation_adapter, *layer.feed_forward_map) if folds else None
        with torch.no_grad():
            self._kept_products = self._products(*self._output_map(layer))

    def unfold(self) -> None:
        self._folded = self._kept_products = None

    def _output_map(self, layer: DecoderLayer) -> tuple[Tensor, Tensor]:
        output, bias = layer.output_map
        return output, self.gate.bias.new_zeros(len(output)) if bias is None else bias

    def _products(self, output: Tensor, bias: Tensor) -> tuple[Map, Map]:
        gates = self.gate.weight.chunk(2, dim=1)
        return (
            _through(self.causal_expert, self.design.causal_expert, output, bias, gates[0]),
            _through(self.context_expert, self.design.context_expert, output, bias, gates[1]),
        )

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
        output, bias = self._output_map(layer)
        gates = self.gate.weight.chunk(2, dim=1)
        kept = None if torch.is_grad_enabled() else self._kept_products
        through = kept or self._products(output, bias)
        one = _read(self.causal_expert, self.design.causal_expert, causal, normed, through[0], bias, gates[0])
        two = _read(self.context_expert, self.design.context_expert, context, normed, through[1], bias, gates[1])
        beta = self.gate(one.share * one.seen + two.share * two.seen)
        weights = beta * normed.new_tensor([one.share, two.share])
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
