"""P5-small (Geng et al., "Recommendation as Language Processing", RecSys 2022): T5 reads IDs and writes the next one.

Of its five tasks it is trained on sequential recommendation alone, and reads no user's ID, so that a user who was not
there in training can be scored.

Legend: B rows, N places of a row, S tokens of a prompt, I items, D pieces of the longest ID, V pieces in all,
Q prefixes decoded at once, d width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Buffer
from torch.nn.functional import cross_entropy, embedding, linear

from trainers.baselines.p5_tokens import NOTHING, ItemPieces, PrefixTree, filled_up
from trainers.baselines.rows import Rows, closed_up
from trainers.baselines.sequential import SequentialModel

USERS_AT_ONCE, PREFIXES_AT_ONCE = 32, 128
"""In scoring: with T5's 32,128 pieces their logits take half a gigabyte"""


class P5(SequentialModel):
    """Scores an item by the log-likelihood of its ID after the history; ranks the whole catalogue, not a beam.

    Args:
        body: a `P5Body`, whose parts it takes over.
    """

    def __init__(self, history: int, body: Any, written: ItemPieces) -> None:
        super().__init__(len(written.items), history)
        self.written, self.body_config = written, body.config
        self.pieces, self.encoder, self.decoder = body.shared, body.encoder, body.decoder
        for stack in (self.encoder, self.decoder):
            stack.set_input_embeddings(None)  # one matrix is saved once
        self.tree = PrefixTree(written.items, body.config.decoder_start_token_id)
        words = filled_up([*((*written.separator, *pieces) for pieces in written.items), ()])
        self.words = Buffer(words, persistent=False)
        """[I + 1, separator and D] what is read of each item, and of the index that fills rows up"""

    @property
    def description(self) -> dict[str, Any]:
        return {
            "body": self.body_config.to_dict(),
            "items": self.written.items,
            "separator": self.written.separator,
        }

    def loss_terms(self, rows: Rows) -> tuple[Tensor, int]:
        """Of one target a row, drawn anew each epoch, as P5's authors do: each target needs a prompt of its own."""
        draws = torch.rand(len(rows.items), device=rows.items.device)
        places = (rows.counted_from + (draws * (rows.lengths - rows.counted_from)).long()).unsqueeze(1)
        is_read = torch.arange(rows.items.shape[1], device=places.device) < places
        states, mask = self._encode(rows.items.where(is_read, self.num_items))
        target = self.words[rows.items.gather(1, places).squeeze(1), len(self.written.separator) :]
        logits = self.logits(self.decoder(inputs_embeds=self._embed(self._shifted(target)), **_read(states, mask)))
        total = cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=NOTHING, reduction="sum")
        return total, int((target != NOTHING).sum())

    def scores(self, rows: Rows) -> Tensor:
        by_length = rows.lengths.argsort(stable=True)
        parts = [
            self._score(rows.items[some, : int(rows.lengths[some].max())])
            for some in torch.split(by_length, USERS_AT_ONCE)
        ]
        return torch.cat(parts)[by_length.argsort()]

    def prompt(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N] items -> [B, S] tokens, filled up behind with `NOTHING`, and whole-word indices.

        A prompt is the items, oldest first, with separators between them, and T5's end. All pieces of the item at place
        n have the whole-word index n, from 1; what belongs to no item has 0.
        """
        separators = len(self.written.separator)
        tokens = self.words[items]
        tokens[:, 0, :separators] = NOTHING
        words = torch.arange(1, items.shape[1] + 1, device=items.device).view(1, -1, 1).expand(tokens.shape).clone()
        words[:, :, :separators] = 0
        end = torch.full((len(items), 1), self.body_config.eos_token_id, device=items.device)
        tokens, words = torch.cat([tokens.flatten(1), end], 1), torch.cat([words.flatten(1), torch.zeros_like(end)], 1)
        # Positions are relative, so that gaps between tokens would count.
        order = closed_up(tokens == NOTHING)
        return tokens.gather(1, order), words.gather(1, order)

    def _encode(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N] items -> [B, S, d] states and [B, S] which of them are read."""
        tokens, words = self.prompt(items)
        mask = tokens != NOTHING
        vectors = self._embed(tokens) + self.encoder.whole_word_embeddings(words)
        return self.encoder(inputs_embeds=vectors, attention_mask=mask).last_hidden_state, mask

    def _embed(self, tokens: Tensor) -> Tensor:
        return embedding(tokens.where(tokens != NOTHING, self.body_config.pad_token_id), self.pieces.weight)

    def _shifted(self, target: Tensor) -> Tensor:
        start = torch.full_like(target[:, :1], self.body_config.decoder_start_token_id)
        return torch.cat([start, target[:, :-1]], dim=1)

    def logits(self, decoded: Any) -> Tensor:
        """[..., V] of the next piece, by T5's tied and scaled head."""
        states: Tensor = decoded.last_hidden_state
        return linear(states * states.shape[-1] ** -0.5, self.pieces.weight)

    def _score(self, items: Tensor) -> Tensor:
        """[B, N] items -> [B, I] sums of the log-likelihoods of all steps of each ID."""
        encoded = _read(*self._encode(items))
        starts = range(0, self.tree.num_nodes, PREFIXES_AT_ONCE)
        steps = [self._steps(encoded, first, min(first + PREFIXES_AT_ONCE, self.tree.num_nodes)) for first in starts]
        found = torch.cat([*steps, steps[0].new_zeros(len(items), 1)], dim=1)
        return torch.stack([found[:, step] for step in self.tree.paths.T]).sum(dim=0)

    def _steps(self, encoded: dict[str, Tensor], first: int, end: int) -> Tensor:
        """[B, steps] log-likelihood of every step from the prefixes `first` to `end`, each decoded once.

        The prefixes stand side by side as if they were one text, of which each piece sees its own prefix alone.
        """
        nodes = self.tree.with_ancestors(first, end)
        vectors = self._embed(self.tree.read[nodes]).expand(len(encoded["encoder_hidden_states"]), -1, -1)
        decoded = self.decoder(inputs_embeds=vectors, attention_mask=self._mask(nodes), **encoded)
        logits = self.logits(decoded)
        bounds = torch.searchsorted(self.tree.step_node, torch.tensor([first, end], device=nodes.device))
        steps = slice(*bounds.tolist())
        place = self.tree.step_node[steps] - first + (len(nodes) - (end - first))
        return logits[:, place, self.tree.step_piece[steps]] - logits.logsumexp(dim=-1)[:, place]

    def _mask(self, nodes: Tensor) -> Tensor:
        """[1, heads, Q, Q] to add to the decoder's scores: ancestors alone, at their distance in the tree.

        T5 adds a bias of the distance between two tokens; here that is the difference of depths, not of places.
        """
        attention = self.decoder.block[0].layer[0].SelfAttention
        depth, count = self.tree.depth[nodes], int(self.tree.depth.max()) + 1
        wanted = attention.compute_bias(count, count)[:, :, depth.unsqueeze(1), depth]
        instead: Tensor = wanted - attention.compute_bias(len(nodes), len(nodes))
        return instead.masked_fill(~self.tree.sees(nodes), torch.finfo(instead.dtype).min)


def _read(states: Tensor, mask: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": states, "encoder_attention_mask": mask}
