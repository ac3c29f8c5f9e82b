"""Item sentences and their tokens (paper, 2.2.1 and 3.1.4; ruling 7)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainers.cached import cached_folder
from trainers.data.errors import DataError
from trainers.data.sequence_data import ItemTokens, SequenceData

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONVENTION = "alone, no special tokens, no leading space"
BATCH = 4_096
PROBE = "title Garden hose, 15 m brand O'Brien category Outdoor \u00e9\u4e2d"
"""Tokenised into the fingerprint of a tokenizer that cannot be written down whole."""


def item_sentence(attributes: Mapping[str, str]) -> str:
    """Flatten attributes to `k1 v1 k2 v2 ...`; one without a value is left out with its key.

    >>> item_sentence({"title": "Garden hose", "brand": "", "year": "1995"})
    'title Garden hose year 1995'
    """
    return " ".join(f"{key} {value}" for key, value in attributes.items() if value)


def tokenize_items(sentences: Sequence[str], tokenizer: PreTrainedTokenizerBase, limit: int) -> ItemTokens:
    """Tokenise every sentence alone, without special tokens, cut to its first `limit` tokens.

    No space is put before a sentence: it is tokenised as if it began a text, which every tokenizer family can do
    alike (some add such a space themselves). Where the sentence stands later, after a prompt or another item's
    `[SEQ]`, its tokens are the same.

    Raises:
        DataError: a sentence without tokens.
    """
    offsets = np.zeros(len(sentences) + 1, dtype=np.int64)
    rows: list[np.ndarray] = []
    for start in range(0, len(sentences), BATCH):
        batch = list(sentences[start : start + BATCH])
        encoded = tokenizer(batch, add_special_tokens=False, truncation=False, padding=False, verbose=False)
        for position, tokens in enumerate(encoded["input_ids"], start=start):
            if not tokens:
                raise DataError(
                    f"item number {position} ({sentences[position]!r}) has no tokens with this tokenizer. "
                    "Give the item a title that the tokenizer knows, or remove it"
                )
            rows.append(np.asarray(tokens[:limit], dtype=np.int32))
            offsets[position + 1] = offsets[position] + len(rows[-1])
    return ItemTokens(offsets, np.concatenate(rows) if rows else np.empty(0, dtype=np.int32))


def item_tokens(
    prepared_folder: Path, data: SequenceData, tokenizer: PreTrainedTokenizerBase, limit: int
) -> ItemTokens:
    """`tokenize_items` of the catalogue, kept in the prepared folder and memory-mapped."""
    key = hashlib.sha256(f"{CONVENTION}|{data.fingerprint}|{tokenizer_fingerprint(tokenizer)}|{limit}".encode())

    def write(folder: Path) -> None:
        tokens = tokenize_items(data.catalogue.sentences, tokenizer, limit)
        np.save(folder / "offsets.npy", tokens.offsets)
        np.save(folder / "tokens.npy", tokens.tokens)

    cached = cached_folder(prepared_folder / f"tokens-{key.hexdigest()[:16]}", write)
    return ItemTokens(np.load(cached / "offsets.npy", mmap_mode="r"), np.load(cached / "tokens.npy", mmap_mode="r"))


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of everything that decides how a tokenizer splits text; truncation and padding settings do not count."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str())
        rules.pop("truncation", None)
        rules.pop("padding", None)
    else:
        rules = {
            "class": type(tokenizer).__name__,
            "vocabulary": tokenizer.get_vocab(),
            "probe": tokenizer(PROBE, add_special_tokens=False)["input_ids"],
        }
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()
