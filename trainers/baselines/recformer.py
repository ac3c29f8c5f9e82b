"""RecFormer (Li et al., "Text Is All You Need", KDD 2023): items are their texts, and so is a history.

A history is read as [CLS] and the item sentences, the newest first; what the encoder makes of [CLS] stands for it, and
for an item that is read alone. Items are ranked by the cosine of the two over a temperature (2.2).

Three stages; each begins from the best epoch of the one before, once that has not become better for a while:

1. The item-item contrastive task of the authors' pre-training (2.3.1): a history is to be told from the batch's other
   histories by its next item, and both are encoded with gradients. The authors train on reviews of other shops; here it
   is the data at hand, for no other model of the table is given more. Masked words are left out: a language model's
   weights have seen such before. Weights that the authors have pre-trained skip this stage.
2. Fine-tuning, first stage (2.3.2, Algorithm 1): before each epoch the items are encoded anew; the encoder learns to
   point at them, by the cross entropy over all items.
3. Second stage: the items stay as they were in the best epoch, and the encoder goes on.

Without the first stage a language model's [CLS] says much the same of all items. An item alone is the same input as a
history of it alone, which therefore ranks that item first.

Legend: B rows, N items of a history, I items, L tokens of an item, S tokens of an input, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from trainers.baselines.attribute_tokens import TokenType
from trainers.baselines.baseline import TrainingPart
from trainers.baselines.rows import Rows, closed_up, to_rows
from trainers.baselines.sequential import INITIAL_STD, SequentialModel
from trainers.baselines.text_body import TextBody, read_first_alone, sizes
from trainers.data.sequence_data import SequenceData
from trainers.model.item_loss import item_cross_entropy
from trainers.model.sentence_encoder import places

ROWS_AT_ONCE = 128
"""Histories or items that are encoded at a time where no gradient is wanted"""


@dataclass(frozen=True, eq=False)
class DrawnTargets:
    """One target of each user, drawn anew each epoch, as the authors do: a bidirectional encoder has one vector for a
    history, so each further target would cost another pass."""

    data: SequenceData
    history: int

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Rows]:
        """Rows end with the target."""
        starts, ends = self.data.offsets[:-1], self.data.training_ends
        users = rng.permutation(np.flatnonzero(ends - starts > 1))
        targets = rng.integers(starts[users] + 1, ends[users])
        firsts = np.maximum(starts[users], targets - self.history)
        for first in range(0, len(users), size):
            chosen = slice(first, first + size)
            drawn = zip(firsts[chosen].tolist(), targets[chosen].tolist(), strict=True)
            sequences = [self.data.items[begin : target + 1] for begin, target in drawn]
            yield to_rows(sequences, self.data.num_items, [len(sequence) - 1 for sequence in sequences])


def newest_first(rows: Rows, skipped: int, fill: int) -> Tensor:
    """[B, N - skipped] items of each row without its `skipped` newest, the newest first, filled up with `fill`."""
    back = torch.arange(skipped, rows.items.shape[1], device=rows.items.device)
    at = rows.last.unsqueeze(1) - back
    return rows.items.gather(1, at.clamp(min=0)).masked_fill(at < 0, fill)


class Stage(IntEnum):
    """Of the training."""

    CONTRAST, ITEMS_FOLLOW, ITEMS_STAY = range(3)


class RecFormer(SequentialModel):
    """Scores items by what one encoder makes of a history's texts and of each item's.

    Args:
        start: body and tokens.
        stage_patience: epochs of a stage without a better one after which it ends.
    """

    def __init__(self, history: int, start: TextBody, *, temperature: float, stage_patience: int) -> None:
        num_items = len(start.items.tokens) - 2
        super().__init__(num_items, history)
        self.temperature, self.stage_patience = temperature, stage_patience
        self.started_from = start.started_from
        self.body = start.body.train()
        read_first_alone(self.body)
        self.places = places(start.body.config)
        width = int(start.body.config.hidden_size)
        self.item_positions = nn.Embedding(1 + history, width)
        nn.init.normal_(self.item_positions.weight, std=INITIAL_STD)
        if start.item_positions is not None:
            known = start.item_positions[: 1 + history]
            with torch.no_grad():
                self.item_positions.weight[: len(known)] = known
        self.tokens, self.types = nn.Buffer(start.items.tokens), nn.Buffer(start.items.types)
        self.item_vectors = nn.Buffer(torch.zeros(num_items, width))
        """Of length 1, as of the last time that the items were encoded"""
        first = Stage.CONTRAST if start.item_positions is None else Stage.ITEMS_FOLLOW
        self.stage, self.stage_epochs = nn.Buffer(torch.tensor(first)), nn.Buffer(torch.tensor(0))

    @property
    def description(self) -> dict[str, Any]:
        return sizes(self.body)

    def training_part(self, data: SequenceData) -> TrainingPart[Rows]:
        return DrawnTargets(data, self.history)

    def begin_epoch(self) -> None:
        if self.stage == Stage.ITEMS_FOLLOW:
            self.encode_items()

    def begin_validation(self) -> None:
        if self.stage == Stage.CONTRAST:
            self.encode_items()

    def end_epoch(self, waited: int, load_best: Callable[[], None]) -> None:
        self.stage_epochs.add_(1)
        if self.stage != Stage.ITEMS_STAY and min(waited, int(self.stage_epochs)) >= self.stage_patience:
            following = int(self.stage) + 1
            load_best()
            self.stage.fill_(following)
            self.stage_epochs.zero_()

    @torch.no_grad()
    def encode_items(self) -> None:
        """Bring `item_vectors` up to the weights."""
        self.eval()
        alone = torch.arange(self.num_items, device=self.tokens.device).unsqueeze(1)
        self.item_vectors.copy_(self._encode_in_parts(alone))

    def encode(self, histories: Tensor) -> Tensor:
        """[B, N] items, the newest first, filled up with I -> [B, d].

        Inputs that are longer than the body reads lose their oldest tokens.
        """
        begin = histories.new_full((len(histories), 1), self.num_items + 1)
        read = torch.cat([begin, histories], dim=1)
        tokens, types = self.tokens[read].flatten(1), self.types[read].flatten(1)
        item = torch.arange(read.shape[1], device=read.device).repeat_interleave(self.tokens.shape[1])
        kept = closed_up(types == TokenType.PAD)[:, : self.places]
        tokens, types, items = tokens.gather(1, kept), types.gather(1, kept).long(), item[kept]
        mask = (types != TokenType.PAD).long()
        more = {}
        if self.body.config.model_type == "longformer":
            more["global_attention_mask"] = (types == TokenType.CLS).long()
        vectors = self.body.get_input_embeddings()(tokens) + self.item_positions(items)
        states = self.body(inputs_embeds=vectors, attention_mask=mask, token_type_ids=types, **more).last_hidden_state
        first: Tensor = states[:, 0]
        return first

    def loss_terms(self, rows: Rows) -> tuple[Tensor, int]:
        targets = rows.items.gather(1, rows.last.unsqueeze(1)).squeeze(1)
        vectors: Tensor = self.item_vectors
        if self.stage == Stage.CONTRAST:
            items, targets = torch.unique(targets, return_inverse=True)
            vectors = normalize(self.encode(items.unsqueeze(1)), dim=-1)
        asked = normalize(self.encode(newest_first(rows, 1, self.num_items)), dim=-1) / self.temperature
        return item_cross_entropy(asked, vectors, asked.new_zeros(len(vectors)), targets), len(targets)

    def scores(self, rows: Rows) -> Tensor:
        histories = newest_first(rows, 0, self.num_items)[:, : self.history]
        return self._encode_in_parts(histories) @ self.item_vectors.T / self.temperature

    def _encode_in_parts(self, histories: Tensor) -> Tensor:
        """As `encode`, of length 1. Those with as many items go together, so that little is filled up."""
        order = (histories != self.num_items).sum(dim=1).argsort(stable=True)
        parts = [self.encode(some) for some in torch.split(histories[order], ROWS_AT_ONCE)]
        return normalize(torch.cat(parts), dim=-1)[order.argsort()]
