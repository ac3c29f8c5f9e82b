"""The T5 that P5 starts from: of random weights, published ones, or those of a package."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from trainers.baselines.config import P5Config
from trainers.baselines.p5 import P5
from trainers.baselines.p5_tokens import BASE, END, FIRST_DIGITS, PADDING, ItemPieces, digit_pieces, item_numbers
from trainers.errors import UserError, refusing
from trainers.model.pretrained import folder_or_hub, quiet, read_model, read_tokenizer

WHAT = "P5's weights"
WHOLE_WORDS = 512
"""Whole words that P5's own code has vectors for"""
WHOLE_WORD_WEIGHTS = "encoder.whole_word_embeddings.weight"


class P5Body(T5ForConditionalGeneration):  # type: ignore[misc]
    """T5 with whole-word embeddings, under the name that they have in P5's own checkpoints."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.encoder.whole_word_embeddings = nn.Embedding(WHOLE_WORDS, config.d_model)
        self.start_whole_words()

    def start_whole_words(self) -> None:
        """As wide as T5 starts its other vectors of places: small beside those of the pieces."""
        nn.init.normal_(self.encoder.whole_word_embeddings.weight, std=self.config.d_model**-0.5)


def build_p5(config: P5Config, num_items: int, description: Mapping[str, Any] | None = None) -> P5:
    """The model with its first weights, or with any for a `description`, `P5.description` of one whose are at hand.

    Raises:
        UserError: `config.weights` cannot be had, or are not those of a T5 that can be read.
    """
    if description is not None:
        with quiet():
            body = P5Body(T5Config.from_dict(description["body"]))
        items = tuple(tuple(pieces) for pieces in description["items"])
        written = ItemPieces(items, tuple(description["separator"]))
        return P5(config.history, body, written)
    if config.weights is not None:
        return _published(config, config.weights, num_items)
    size = T5Config(
        vocab_size=FIRST_DIGITS + BASE,
        d_model=config.width,
        d_kv=config.width // config.heads,
        d_ff=4 * config.width,
        num_layers=config.layers,
        num_heads=config.heads,
        dropout_rate=config.dropout,
        pad_token_id=PADDING,
        eos_token_id=END,
        decoder_start_token_id=PADDING,
    )
    return P5(config.history, P5Body(size), digit_pieces(num_items))


def _published(config: P5Config, name: str, num_items: int) -> P5:
    """Items are written as `item_1234` by the tokenizer that lies beside the weights; their numbers are our draw."""
    folder = folder_or_hub(name, WHAT)
    body = _read_body(name, folder, config.dropout)
    tokenizer = read_tokenizer(name, folder, WHAT)

    def pieces(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    with refusing(f"{WHAT} {name!r}: the tokenizer in {folder} does not tell IDs apart"):
        # From 1, as P5 numbers them. The end tells item_12 from the beginning of item_123.
        items = tuple((*pieces(f"item_{number + 1}"), body.config.eos_token_id) for number in item_numbers(num_items))
        model = P5(config.history, body, ItemPieces(items, pieces(" , ")))
    model.started_from = f"{name} (sha256 {_sha256(folder)})"
    return model


def _read_body(name: str, folder: Path, dropout: float) -> P5Body:
    with refusing(f"{WHAT} {name!r}: cannot read a T5 in {folder}"):
        config = T5Config.from_pretrained(folder, dropout_rate=dropout)
    is_first = config.model_type == "t5" and config.scale_decoder_outputs
    body: P5Body
    body, lacked = read_model(P5Body, name, folder, WHAT, wanted="a T5", may_lack=(WHOLE_WORD_WEIGHTS,), config=config)
    if not is_first or body.lm_head.weight is not body.shared.weight:
        raise UserError(f"{WHAT} {name!r}: {folder} holds no T5 of the first version, such as t5-small")
    if lacked:
        body.start_whole_words()  # else they would be as transformers starts any embedding
    return body


def _sha256(folder: Path) -> str:
    """First digits of that of the weights' file, or of all files one after another."""
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
