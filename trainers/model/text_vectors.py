"""What a frozen language model makes of each item sentence: the text side of the hard sets (ruling 10)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from trainers.data.sequence_data import ItemTokens


@torch.no_grad()
def mean_token_states(
    model: PreTrainedModel, item_tokens: ItemTokens, *, tokens_at_once: int = 4096
) -> NDArray[np.float32]:
    """[I, d] mean over an item's tokens of the last hidden state of `model` (a transformers body).

    Sentences of one length form a batch, so nothing is padded; the result does not depend on other items but for
    rounding, and is the same bits for the same items, thread count and device.
    """
    lengths = item_tokens.lengths
    device = next(model.parameters()).device
    vectors = np.empty((len(lengths), int(model.config.hidden_size)), dtype=np.float32)
    for length in np.unique(lengths):
        same = np.flatnonzero(lengths == length)
        rows = max(1, tokens_at_once // int(length))
        for first in range(0, len(same), rows):
            items = same[first : first + rows]
            tokens = item_tokens.tokens[item_tokens.offsets[items][:, None] + np.arange(length)]  # [rows, length]
            batch = torch.from_numpy(tokens.astype(np.int64)).to(device)
            states = model(input_ids=batch, use_cache=False).last_hidden_state  # [rows, length, d]
            vectors[items] = states.float().mean(dim=1).cpu().numpy()
    return vectors
