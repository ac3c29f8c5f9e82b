"""The layers that MixRec puts in place of a frozen decoder layer (paper, 2.2.5 and 2.3.3).

Each maps hidden states [M, d] to [M, d]; with `readouts_only` (the last layer) to the [Q, d] states that are read.
The backbone's residuals and norms stay where they are: what the layer computes in place of the attention output is
added to the residual stream.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from search_spaces.architecture import LayerDesign, Placement
from trainers.model.adapter import Activation, Adapter, adapt
from trainers.model.attention import Geometry, Projected, causal_branch, context_branch
from trainers.model.backbone import DecoderLayer
from trainers.model.kernels import take


def _kept(x: Tensor, geometry: Geometry, projected: Projected) -> Tensor:
    return take(x, geometry.rows.readouts) if projected.readouts_only else x


class FrozenLayer(nn.Module):
    """The backbone's layer as it is: the layers between replaced ones when r > 1."""

    def forward(
        self, layer: DecoderLayer, x: Tensor, normed: Tensor, projected: Projected, geometry: Geometry
    ) -> Tensor:
        x = _kept(x, geometry, projected) + layer.attention_output(causal_branch(layer, projected, geometry))
        return x + layer.feed_forward(layer.feed_forward_norm(x))


class Gate(nn.Module):
    """`beta = softmax([q, p] W_gate + b_gate)`, per token (2.3.3). Starts at zero: an even mix of both branches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 2 * width))
        self.bias = nn.Parameter(torch.zeros(2))


class DamoeLayer(nn.Module):
    """Two adapter experts, a gate and a recommendation adapter around one frozen layer (2.3.3, Appendix D)."""

    def __init__(self, width: int, bottleneck: int, activation: Activation, design: LayerDesign) -> None:
        super().__init__()
        self.design = design
        self.causal_expert = Adapter(width, bottleneck, activation)
        self.context_expert = Adapter(width, bottleneck, activation)
        self.gate = Gate(width)
        self.recommendation_adapter = Adapter(width, bottleneck, activation)

    def forward(
        self, layer: DecoderLayer, x: Tensor, normed: Tensor, projected: Projected, geometry: Geometry
    ) -> Tensor:
        causal = causal_branch(layer, projected, geometry)
        context = context_branch(layer, projected, geometry)
        x, normed = _kept(x, geometry, projected), _kept(normed, geometry, projected)
        x = x + self._mix(layer, causal, context, normed)
        normed = layer.feed_forward_norm(x)
        placement = self.design.recommendation_adapter
        return x + adapt(self.recommendation_adapter, placement, layer.feed_forward(normed), normed)

    def _mix(self, layer: DecoderLayer, causal: Tensor, context: Tensor, normed: Tensor) -> Tensor:
        """`beta_1 q + beta_2 p`, with the frozen output map applied once instead of to both branches.

        An expert's output is `s (O a + W2 u + c)`, with `a` the branch's attention before the output map O, `u` the
        inner values of its adapter, s = 1 for a serial and 1/2 for a parallel expert, which has its input `normed` in
        c. So the mix is `O (w_1 a_1 + w_2 a_2) + W2_1 (w_1 u_1) + W2_2 (w_2 u_2) + ...` with w = s beta, and the gate,
        like the first map of a serial adapter, reads `O a` through small products such as `W_gate O`.

        Args:
            causal, context: [M, H * e] attention of each branch, before O.
            normed: [M, d] what a parallel adapter reads.
        """
        output, output_bias = layer.output_map
        bias = normed.new_zeros(len(output)) if output_bias is None else output_bias
        branches = (
            (causal, self.causal_expert, self.design.causal_expert),
            (context, self.context_expert, self.design.context_expert),
        )
        logits, inner, maps = self.gate.bias, [], []
        for (attended, expert, placement), gate in zip(branches, self.gate.weight.chunk(2, dim=1), strict=True):
            down, up, constant = expert.down, expert.up, bias + expert.up.bias
            both = torch.cat([down.weight, gate])  # [b + 2, d]: what is read of O a, or of the parallel input
            offset = torch.cat([down.bias, down.bias.new_zeros(2)])
            if placement is Placement.SERIAL:
                read = linear(attended, both @ output, offset + both @ bias)
                more = gate @ up.bias
            else:
                read = linear(normed, both, offset)
                more = linear(attended, gate @ output, gate @ constant)
            low, seen = read.split([len(down.weight), 2], dim=1)
            values = expert.activate(low)
            share = 1.0 if placement is Placement.SERIAL else 0.5
            logits = logits + share * (seen + linear(values, gate @ up.weight) + more)
            inner.append(values)
            maps += [up.weight, constant.unsqueeze(1)]
        weights = logits.softmax(dim=-1) * normed.new_tensor(
            [1.0 if placement is Placement.SERIAL else 0.5 for _, _, placement in branches]
        )
        first, second = weights.split(1, dim=1)
        mixed = linear(torch.addcmul(causal * first, context, second), output)
        low = torch.cat([inner[0] * first, first, inner[1] * second, second], dim=1)
        mixed = torch.addmm(mixed, low, torch.cat(maps, dim=1).T)
        parallel = [weight for weight, (_, _, placement) in zip((first, second), branches, strict=True)
                    if placement is Placement.PARALLEL]
        return torch.addcmul(mixed, normed, sum(parallel)) if parallel else mixed


class BaseLayer(nn.Module):
    """MixRec_base: serial adapters after attention and after the feed-forward, causal mask only (2.2.5)."""

    def __init__(self, width: int, bottleneck: int, activation: Activation) -> None:
        super().__init__()
        self.attention_adapter = Adapter(width, bottleneck, activation)
        self.feed_forward_adapter = Adapter(width, bottleneck, activation)

    def forward(
        self, layer: DecoderLayer, x: Tensor, normed: Tensor, projected: Projected, geometry: Geometry
    ) -> Tensor:
        attended = layer.attention_output(causal_branch(layer, projected, geometry))
        x = _kept(x, geometry, projected) + self.attention_adapter(attended)
        return x + self.feed_forward_adapter(layer.feed_forward(layer.feed_forward_norm(x)))
