"""MixRec: a frozen backbone, DAMoE layers, collaborative columns and one item projection (paper, 2.2 and 2.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize
from torch.utils.checkpoint import checkpoint

from search_spaces.architecture import Architecture, LayerDesign
from search_spaces.damoe import DamoeSpace
from trainers.config import ModelConfig, TrainingConfig, columns_of
from trainers.data.batches import Batch
from trainers.data.rows import Rows
from trainers.device import autocast
from trainers.model.attention import Geometry, Projected, project
from trainers.model.backbone import Backbone
from trainers.model.collaborative import CollaborativeModel, build_collaborative
from trainers.model.damoe import BaseLayer, DamoeLayer, frozen_layer
from trainers.model.inputs import embed, enter
from trainers.model.item_loss import gbce, item_cross_entropy, sampled_softmax
from trainers.model.kernels import take

_PROJECTION_STD = 0.02


@dataclass(frozen=True)
class Pass:
    """Token rows on their way through the backbone's layers."""

    backbone: Backbone
    special: Tensor
    """[R, d] what stands where the rows have a special token"""
    geometry: Geometry

    @classmethod
    def of(cls, backbone: Backbone, rows: Rows, special_tokens: Tensor, columns: Tensor | None) -> Pass:
        return cls(backbone, special_tokens[rows.kind], Geometry.of(backbone, rows, columns))

    def embed(self) -> Tensor:
        """[M, d] what the first layer reads."""
        return embed(self.backbone, self.geometry.rows, self.special)

    def project(self, index: int, x: Tensor) -> Projected:
        """Of the states `x` [M, d] before layer `index`."""
        layer, last = self.backbone.layers[index], len(self.backbone.layers) - 1
        if index == 0 and last > 0:
            return enter(self.backbone, layer, self.special, self.geometry)
        return project(layer, layer.attention_norm(x), self.geometry, readouts_only=index == last)


PassMaker = Callable[[Backbone, Rows, Tensor, Tensor | None], Pass]


def decode(
    backbone: Backbone,
    rows: Rows,
    special_tokens: Tensor,
    columns: Tensor | None,
    replaced: Mapping[int, nn.Module],
    *,
    recompute: bool = False,
    make_pass: PassMaker = Pass.of,
) -> Tensor:
    """Run token rows through the backbone; layers in `replaced` stand in for its own. Returns the readouts, [Q, d].

    Args:
        columns: [K, d] collaborative vectors of `rows.column_items`, then of `rows.column_users`; None: nobody looks.
        recompute: keep nothing but each layer's input, and compute the layer again in the backward pass.
        make_pass: `trainers.model.kv_cache` has another.
    """
    one = make_pass(backbone, rows, special_tokens, columns)

    def run(index: int, x: Tensor) -> Tensor:
        layer, replacement = backbone.layers[index], replaced.get(index, frozen_layer)
        return backbone.run_layer(index, lambda x: replacement(layer, x, one.project(index, x), one.geometry), x)

    x = one.embed()
    for index in range(len(backbone.layers)):
        if recompute and torch.is_grad_enabled():
            x = checkpoint(run, index, x, use_reentrant=False, preserve_rng_state=False)
        else:
            x = run(index, x)
    return backbone.final_norm(x)


def initial_special_tokens(backbone: Backbone) -> Tensor:
    """[2, d]: the mean token embedding for both `[SEQ]` and `[ALIGN]`, a plausible token from the start (ruling 8)."""
    return backbone.token_table.weight.mean(dim=0).repeat(2, 1)


@dataclass(frozen=True)
class Standardisation:
    """What W_item's starting point takes from a model's final states before any training; each design has its own."""

    centre: Tensor
    """[d] mean of the states"""
    spread: Tensor
    """Root mean square of the states less `centre`, over all dimensions"""
    logit_spread: Tensor
    """Standard deviation of the logits of the standardised states: what the starting rows of W_item are divided by"""


class MixRec(nn.Module):
    """The trained weights around a frozen backbone, which is no submodule: `state_dict` holds trained weights only.

    Args:
        architecture: one layer design for each DAMoE layer; only `mixrec` reads it.
        num_users: users that M_cf has a vector for.
        num_items: size of the catalogue, all of which is ranked.
        training: its losses and precision, and whether activations are kept.

    Raises:
        ValueError: the architecture does not have as many layers as the backbone has DAMoE layers.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: ModelConfig,
        architecture: Architecture,
        *,
        num_users: int,
        num_items: int,
        training: TrainingConfig,
    ) -> None:
        super().__init__()
        self.config = config
        self.objective = training
        self.backbone = backbone
        width = backbone.width
        space = DamoeSpace(len(backbone.layers), config.replacement_frequency)
        replaced = () if config.kind == "llmrec" else space.damoe_layers
        layers: list[DamoeLayer] | list[BaseLayer]
        if config.kind == "mixrec":
            space.check(architecture)
            layers = [
                DamoeLayer(backbone, backbone.layers[index], config, design)
                for index, design in zip(replaced, architecture.layers, strict=True)
            ]
        else:
            layers = [BaseLayer(backbone.width, config.bottleneck, config.activation) for _ in replaced]
        self.layers = nn.ModuleList(layers)
        self._replaced: dict[int, DamoeLayer | BaseLayer] = dict(zip(replaced, layers, strict=True))

        self.special_tokens = nn.Parameter(initial_special_tokens(backbone))
        self.item_projection = nn.Linear(width, num_items)
        nn.init.normal_(self.item_projection.weight, std=_PROJECTION_STD)
        nn.init.zeros_(self.item_projection.bias)
        self.centre = nn.Buffer(torch.zeros(width))
        self.spread = nn.Buffer(torch.ones(()))

        # Without a column nothing reads M_cf, and training it would only disturb the clipping of gradients.
        seen = columns_of(config)
        dim = config.collaborative_dim
        self.collaborative: CollaborativeModel | None = (
            build_collaborative(config.collaborative_model, num_users, num_items, dim) if seen else None
        )
        if self.collaborative is not None and config.collaborative_training == "frozen":
            self.collaborative.requires_grad_(False)
        self.item_column = nn.Linear(dim, width) if "item" in seen else None
        self.user_column = nn.Linear(dim, width) if "user" in seen else None

        # Last, so that its draws move no others: models with it and without start alike.
        has_text = config.item_projection_form == "text+free"
        self.item_text = nn.Buffer(torch.zeros(num_items, width)) if has_text else None
        self.text_map = nn.Linear(width, width, bias=False) if has_text else None

    def train(self, mode: bool = True) -> MixRec:
        """As torch's; and evaluation mode folds serial adapters into copies of the frozen maps until training goes on,
        unless the backbone is sharded: no worker has room for whole maps.

        Whoever changes the adapters' weights by hand in evaluation mode has to call `eval` again.
        """
        super().train(mode)
        for index, layer in self._replaced.items():
            if mode or self.backbone.is_sharded:
                layer.unfold()
            else:
                layer.fold(self.backbone.layers[index])
        return self

    @property
    def architecture(self) -> Architecture:
        """The design of the DAMoE layers. Setting it touches no weight: a bit says what an adapter reads, so the same
        weights fit every design; W_item alone has a starting point that is the design's (`start_projection`).

        Raises:
            ValueError: set to another number of layers, or a model without DAMoE layers.
        """
        return Architecture(tuple(layer.design for layer in self._damoe_layers.values()))

    @architecture.setter
    def architecture(self, architecture: Architecture) -> None:
        layers = self._damoe_layers
        DamoeSpace(len(self.backbone.layers), self.config.replacement_frequency).check(architecture)
        for (index, layer), design in zip(layers.items(), architecture.layers, strict=True):
            self._place(index, layer, design)

    @property
    def _damoe_layers(self) -> dict[int, DamoeLayer]:
        """By index of the backbone's layer, from the input up."""
        layers = {index: layer for index, layer in self._replaced.items() if isinstance(layer, DamoeLayer)}
        if not layers:
            raise ValueError(f"a model of kind {self.config.kind} has no design")
        return layers

    def _place(self, index: int, layer: DamoeLayer, design: LayerDesign) -> None:
        layer.design = design
        if not self.training:
            layer.fold(self.backbone.layers[index])

    def compile_layers(self, backend: str = "inductor") -> None:
        """Compile the element-wise part of each DAMoE layer; meant for a GPU, where its gain is not yet measured."""
        for layer in self._replaced.values():
            if isinstance(layer, DamoeLayer):
                layer.mix = torch.compile(layer.mix, dynamic=True, backend=backend)  # type: ignore[method-assign]

    @torch.no_grad()
    def start_projection(
        self, sample: Tensor, align_states: NDArray[np.float32] | None, counts: NDArray[np.int64] | None
    ) -> None:
        """Set the item projection's starting point; the backbone and the adapters stay as they are.

        Args:
            sample: [S, d] final states at `[SEQ]` of some training histories, by this very model.
            align_states: [I, d] `[ALIGN]` states of a frozen pass: their centred, normalised values become the rows
                of W_item, or of its text part. None keeps the random rows; a text part needs them.
            counts: [I] training interactions: b_item becomes their log (one added), less its mean. None keeps zero.
        """
        projection = self.item_projection
        if align_states is not None:
            rows = torch.tensor(align_states).to(projection.weight)
            (projection.weight if self.item_text is None else self.item_text).copy_(
                normalize(rows - rows.mean(dim=0), dim=-1)
            )
        if self.text_map is not None:
            nn.init.eye_(self.text_map.weight)
            nn.init.zeros_(projection.weight)
        if self.config.item_projection_input == "standardised":
            # Unit spread of the logits: neither flat nor peaked, whatever the backbone, the design and the rows.
            found = self.standardisation(sample)
            self.centre.copy_(found.centre)
            self.spread.copy_(found.spread)
            self.starting_weight.div_(found.logit_spread)
        if counts is not None:
            logarithms = torch.log1p(torch.tensor(counts, dtype=torch.float64))
            projection.bias.copy_(logarithms - logarithms.mean())

    def standardisation(self, sample: Tensor) -> Standardisation:
        """Of `sample`, [S, d] final states by this model under some design."""
        centre = sample.mean(dim=0)
        spread = (sample - centre).square().mean().sqrt()
        logits = (sample - centre) / spread @ self.item_weight.T
        return Standardisation(centre, spread, logits.std())

    @property
    def starting_weight(self) -> Tensor:
        """The part of W_item whose start is scaled: the map of the items' text where there is one, else all of it."""
        return (self.item_projection if self.text_map is None else self.text_map).weight

    @property
    def item_weight(self) -> Tensor:
        """W_item, [I, d]: a free matrix, or a trained map of the items' text and a free part."""
        if self.text_map is None or self.item_text is None:
            return self.item_projection.weight
        return self.item_projection.weight + self.item_text @ self.text_map.weight

    def item_logits(self, states: Tensor) -> Tensor:
        """[Q, d] final states -> [Q, I]: `W_item (h - centre) / spread + b_item`, `W_item h + b_item` for raw input."""
        return linear((states - self.centre) / self.spread, self.item_weight, self.item_projection.bias)

    def _item_loss(self, states: Tensor, targets: Tensor, sampled: Tensor, dropped: torch.Generator) -> Tensor:
        """Sum over the [Q, d] final states of the loss of ranking `targets` [Q] among the catalogue."""
        read = (states - self.centre) / self.spread
        if self.training and self.config.projection_dropout > 0:
            # Drawn on the CPU, so that every device leaves out the same values.
            kept = torch.rand(read.shape, generator=dropped) >= self.config.projection_dropout
            read = read * kept.to(read) / (1 - self.config.projection_dropout)
        weight, bias = self.item_weight, self.item_projection.bias
        if self.objective.item_loss == "full":
            return item_cross_entropy(read, weight, bias, targets)
        if self.objective.item_loss == "sampled_softmax":
            return sampled_softmax(read, weight, bias, targets, sampled)
        return gbce(read, weight, bias, targets, sampled, calibration=self.objective.gbce_calibration)

    def encode(self, rows: Rows, make_pass: PassMaker = Pass.of) -> Tensor:
        """Final states of the readouts, [Q, d], in the type of the trained weights."""
        with autocast(self.backbone.device, self.objective.precision):
            states = decode(
                self.backbone,
                rows,
                self.special_tokens,
                self._columns(rows),
                self._replaced,
                recompute=self.objective.activation_checkpointing,
                make_pass=make_pass,
            )
        return states.to(self.special_tokens.dtype)

    def encode_each(self, rows: Rows, architectures: Iterable[Architecture]) -> Iterator[tuple[Architecture, Tensor]]:
        """`encode` under each of `architectures`, in the order of their bits; duplicates once.

        Designs share all that comes before the first layer in which they differ, and the attention of that layer. The
        model is left under one of them. For scoring: nothing is kept for a backward pass but what autograd keeps.
        """
        with autocast(self.backbone.device, self.objective.precision):
            one = Pass.of(self.backbone, rows, self.special_tokens, self._columns(rows))
            x = one.embed()
        order = sorted(set(architectures), key=lambda architecture: architecture.bits)
        yield from self._encode_from(0, x, one, order)

    def _encode_from(
        self, index: int, x: Tensor, one: Pass, architectures: list[Architecture]
    ) -> Iterator[tuple[Architecture, Tensor]]:
        """The rest of `encode_each` from layer `index` on, for designs that are alike in the layers before it."""
        # Autocast is entered anew wherever something is computed: it must not stay on for the reader of the results.
        mixed_precision = partial(autocast, self.backbone.device, self.objective.precision)
        if index == len(self.backbone.layers):
            (architecture,) = architectures
            with mixed_precision():
                states = self.backbone.final_norm(x)
            yield architecture, states.to(self.special_tokens.dtype)
            return
        layer, replaced = self.backbone.layers[index], self._damoe_layers
        with mixed_precision():
            projected = one.project(index, x)
        if index not in replaced:
            with mixed_precision():
                x = frozen_layer(layer, x, projected, one.geometry)
            yield from self._encode_from(index + 1, x, one, architectures)
            return
        damoe, place = replaced[index], list(replaced).index(index)
        with mixed_precision():
            branches = damoe.branches(layer, projected, one.geometry)
        for design, alike in groupby(architectures, key=lambda architecture: architecture.layers[place]):
            self._place(index, damoe, design)
            with mixed_precision():
                after = damoe.after_attention(layer, x, branches, projected, one.geometry)
            yield from self._encode_from(index + 1, after, one, list(alike))

    def _columns(self, rows: Rows) -> Tensor | None:
        """The collaborative columns that some item of `rows` sees, [K, d], or None."""
        if self.collaborative is None:
            return None
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.collaborative_training == "joint"):
            items = None if self.item_column is None else self.collaborative.item_vectors(rows.column_items)
            users = None if self.user_column is None else self.collaborative.user_vectors(rows.column_users)
        read = ((self.item_column, items), (self.user_column, users))
        return torch.cat([column(vectors) for column, vectors in read if column is not None])

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Every loss as a *sum* over this batch's terms; divide by the global counts (`Batch.counts`).

        One call computes all of them, so that a distributed wrapper sees each trained weight once a step.
        """
        # A row without a target or an item is there for its pass alone (`Layout.unread`).
        histories = None if batch.histories is None else self.encode(batch.histories)[: len(batch.targets)]
        alignments = None if batch.alignments is None else self.encode(batch.alignments)[: len(batch.align_items)]
        dropped = torch.Generator().manual_seed(batch.seed)
        sums = {}
        if histories is not None:
            sums["seq"] = self._item_loss(histories, batch.targets, batch.sampled_items, dropped)
        if alignments is not None and (len(batch.align_terms) or not len(batch.anchors)):
            aligned, items = take(alignments, batch.align_terms), batch.align_items[batch.align_terms]
            sums["align"] = self._item_loss(aligned, items, batch.sampled_items, dropped)
        if histories is not None and alignments is not None and len(batch.anchors):
            sums["contrastive"] = self._contrastive(histories, alignments, batch)
        if self.collaborative is not None and len(batch.collaborative_users):
            total, terms = self.collaborative.loss_terms(
                batch.collaborative_users, batch.collaborative_positives, batch.collaborative_negatives
            )
            # A positive and its negatives are several terms; counting positives keeps the mean over terms.
            sums["collaborative"] = total * (len(batch.collaborative_users) / terms)
        return sums

    def _contrastive(self, histories: Tensor, alignments: Tensor, batch: Batch) -> Tensor:
        """InfoNCE with cosine similarity, the positive in the denominator (2.2.4)."""
        anchors = normalize(histories[batch.anchors], dim=-1).unsqueeze(1)
        candidates = normalize(alignments, dim=-1)[batch.candidates]
        similarity = (anchors * candidates).sum(dim=-1)
        positive = torch.zeros(len(similarity), dtype=torch.int64, device=similarity.device)
        return cross_entropy(similarity / self.objective.temperature, positive, reduction="sum")

    def scores(self, rows: Rows) -> Tensor:
        """Scores of the whole catalogue after each readout, [Q, I]."""
        return self.item_logits(self.encode(rows))
