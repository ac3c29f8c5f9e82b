"""A random tiny decoder and a small fast tokenizer in a folder, as `save_pretrained` writes them (float32)."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    OPTConfig,
    OPTModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tests.oracles.tiny_backbones import Family

BOS, EOS = "<s>", "</s>"
LEARNED_FROM = ("title Thing 1 brand Acme category Tools", "Give the ID of the item described by:")
WIDTH, HEADS, CONTEXT = 16, 2, 256


def write_tiny_backbone(folder: Path, family: Family = "llama", *, layers: int = 1, seed: int = 0) -> Path:
    """Write body and tokenizer; returns `folder`, a name that `load_pretrained` takes."""
    tokenizer = byte_pair_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _untrained(family, layers, len(tokenizer))
        for parameter in model.parameters():
            if parameter.ndim > 1:  # the usual .02 would leave a random body nearly the identity
                torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_pair_tokenizer() -> PreTrainedTokenizerFast:
    """Reads any text: all bytes, and some merges of words that the tiny catalogues use."""
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=320, special_tokens=[BOS, EOS], initial_alphabet=alphabet, min_frequency=1, show_progress=False
    )
    core.train_from_iterator(LEARNED_FROM, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=BOS, eos_token=EOS)


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
