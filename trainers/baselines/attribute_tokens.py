"""Tokens of the item sentences, and which of them name an attribute (RecFormer, 2.1 and 2.2).

Legend: I items, L tokens of an item at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from trainers.data.sequence_data import Catalogue
from trainers.errors import UserError


class TokenType(IntEnum):
    """Rows of the token-type embedding, in the order of the authors' code."""

    CLS, KEY, VALUE, PAD = range(4)


class TypedTokens(NamedTuple):
    """Row I is empty and row I + 1 is [CLS] alone: so a history is a list of rows."""

    tokens: Tensor
    """[I + 2, L] int32, filled up with 0"""
    types: Tensor
    """[I + 2, L] int32 of `TokenType`, filled up with PAD"""

    @classmethod
    def blank(cls, items: int, longest: int) -> TypedTokens:
        """Of items without tokens."""
        tokens = torch.zeros(items + 2, longest, dtype=torch.int32)
        return cls(tokens, torch.full_like(tokens, TokenType.PAD))


def typed_tokens(
    catalogue: Catalogue,
    keys: Sequence[str],
    tokenizer: PreTrainedTokenizerFast,
    *,
    attribute_tokens: int,
    item_tokens: int,
) -> TypedTokens:
    """The sentences with their keys told from their values.

    Args:
        keys: of the sentences' attributes, in their order; without any of them all is value.
        attribute_tokens: of an attribute, key included; so that a long title leaves room for what comes after it.
        item_tokens: L.

    Raises:
        UserError: a tokenizer that cannot say where a sequence begins.
    """
    begin = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    if begin is None:
        raise UserError("this tokenizer has neither a [CLS] token nor one that begins a text")
    found = TypedTokens.blank(len(catalogue), item_tokens)
    found.tokens[-1, 0], found.types[-1, 0] = begin, TokenType.CLS
    encoded = tokenizer(
        list(catalogue.sentences),
        add_special_tokens=False,
        return_offsets_mapping=True,
        truncation=False,
        verbose=False,
    )
    read = zip(catalogue.titles, catalogue.sentences, encoded["input_ids"], encoded["offset_mapping"], strict=True)
    for item, (title, sentence, tokens, places) in enumerate(read):
        spans = key_spans(sentence, title, keys)
        row: list[tuple[int, TokenType]] = []
        attribute, taken = -1, 0
        for token, (first, after) in zip(tokens, places, strict=True):
            begun = sum(start < after for start, _ in spans)  # attributes, up to this token's
            attribute, taken = (attribute, taken + 1) if begun == attribute else (begun, 1)
            if taken <= attribute_tokens:
                is_key = any(first < end and start < after for start, end in spans)
                row.append((token, TokenType.KEY if is_key else TokenType.VALUE))
        for place, (token, kind) in enumerate(row[:item_tokens]):
            found.tokens[item, place], found.types[item, place] = token, kind
    return found


def key_spans(sentence: str, title: str, keys: Sequence[str]) -> list[tuple[int, int]]:
    """Where the keys of `trainers.data.item_text.item_sentence` stand: (first character, the one after the last).

    Sentences do not mark their keys. A key's first place after the value before it counts; the title is known and so
    may hold any word, another value that holds a later key is cut short there.

    >>> key_spans("title A brand new hose brand Gorilla", "A brand new hose", ["title", "brand"])
    [(0, 5), (23, 28)]
    """
    spans, place = [], 0
    for key in keys:
        start = place if sentence.startswith(f"{key} ", place) else sentence.find(f" {key} ", place) + 1
        if start == 0 < place or not sentence.startswith(f"{key} ", start):
            continue
        spans.append((start, start + len(key)))
        value = start + len(key) + 1
        is_title = key == "title" and sentence.startswith(title, value)
        place = value + len(title) if is_title else value
    return spans
