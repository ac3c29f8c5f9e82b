"""A random tiny decoder and a small fast tokenizer in a folder, as `save_pretrained` writes them (float32)."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    OPTConfig,
    OPTModel,
    PreTrainedModel,
)

from tests.oracles.tiny_backbones import Family
from trainers.model.tiny_random import byte_tokenizer

LEARNED_FROM = ("title Thing 1 brand Acme category Tools", "Give the ID of the item described by:")
WIDTH, HEADS, CONTEXT = 16, 2, 256


def write_tiny_backbone(folder: Path, family: Family = "llama", *, layers: int = 1, seed: int = 0) -> Path:
    """Write body and tokenizer; returns `folder`, a name that `load_pretrained` takes."""
    tokenizer = byte_tokenizer(list(LEARNED_FROM))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _untrained(family, layers, len(tokenizer))
        for parameter in model.parameters():
            if parameter.ndim > 1:  # the usual .02 would leave a random body nearly the identity
                torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _untrained(family: Family, layers: int, vocabulary: int) -> PreTrainedModel:
    if family == "llama":
        return LlamaModel(
            LlamaConfig(
                vocab_size=vocabulary,
                hidden_size=WIDTH,
                intermediate_size=24,
                num_hidden_layers=layers,
                num_attention_heads=HEADS,
                num_key_value_heads=1,
                max_position_embeddings=CONTEXT,
            )
        )
    if family == "opt":
        return OPTModel(
            OPTConfig(
                vocab_size=vocabulary,
                hidden_size=WIDTH,
                word_embed_proj_dim=WIDTH,
                ffn_dim=24,
                num_hidden_layers=layers,
                num_attention_heads=HEADS,
                max_position_embeddings=CONTEXT,
            )
        )
    return GPT2Model(
        GPT2Config(vocab_size=vocabulary, n_embd=WIDTH, n_layer=layers, n_head=HEADS, n_inner=24, n_positions=CONTEXT)
    )
