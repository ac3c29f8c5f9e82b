"""The words of the item sentences as features, for FDSA.

Legend: I items, F features of an item, V features in all.
"""

from __future__ import annotations

import re
from collections import Counter

import torch
from torch import Tensor

from trainers.data.sequence_data import Catalogue

_WORD = re.compile(r"\w+")


def word_features(catalogue: Catalogue, *, most: int, least_items: int) -> tuple[Tensor, int]:
    """Distinct words of each sentence in their order, lower-case, the first `most` that `least_items` items have.

    Returns:
        [I + 1, F] word indices, filled up with V (all of the last row), and V.
    """
    words = [list(dict.fromkeys(_WORD.findall(sentence.lower()))) for sentence in catalogue.sentences]
    counts = Counter(word for of_item in words for word in of_item)
    # A word that all items have (the keys of the attributes) tells none apart.
    kept = sorted(word for word, count in counts.items() if least_items <= count < len(catalogue))
    index = {word: place for place, word in enumerate(kept)}
    rows = [[index[word] for word in of_item if word in index][:most] for of_item in words]
    features = torch.full((len(catalogue) + 1, max(1, *map(len, rows))), len(kept))
    for item, row in enumerate(rows):
        features[item, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return features, len(kept)
