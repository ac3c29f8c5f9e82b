"""P5 as its paper reads: one user, one item, one forward of transformers' own T5 at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from trainers.baselines.p5 import P5


def plain_t5(model: P5) -> Any:
    """Library T5 with the weights of `model`."""
    t5 = T5ForConditionalGeneration(model.body_config)
    state = {key: value for key, value in model.state_dict().items() if "whole_word" not in key}
    for tied in ("shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head"):
        state[f"{tied}.weight"] = model.pieces.weight
    state.pop("pieces.weight")
    t5.load_state_dict(state)
    return t5.double().eval()


def prompt(model: P5, history: list[int]) -> tuple[list[int], list[int]]:
    """Tokens, and the index of the whole word that each is part of."""
    tokens: list[int] = []
    words: list[int] = []
    for place, item in enumerate(history, start=1):
        if place > 1:
            tokens += model.written.separator
            words += [0] * len(model.written.separator)
        tokens += model.written.items[item]
        words += [place] * len(model.written.items[item])
    return [*tokens, model.body_config.eos_token_id], [*words, 0]


def log_likelihoods(model: P5, t5: Any, history: list[int], item: int) -> Tensor:
    """[pieces of the item], teacher forcing."""
    tokens, words = prompt(model, history)
    vectors = torch.stack(
        [
            model.pieces.weight[token] + model.encoder.whole_word_embeddings.weight[word]
            for token, word in zip(tokens, words, strict=True)
        ]
    )
    pieces = model.written.items[item]
    logits = t5(inputs_embeds=vectors.unsqueeze(0), labels=torch.tensor([pieces])).logits[0]
    return logits.log_softmax(dim=-1)[torch.arange(len(pieces)), list(pieces)]
