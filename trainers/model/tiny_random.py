"""A backbone of random weights that trains in seconds: it shows that everything runs, and nothing about results."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from trainers.model.saved import save_body

TINY_RANDOM = "tiny-random"
LAYERS, WIDTH, HEADS, CONTEXT, VOCABULARY = 6, 16, 2, 512, 320
BOS, EOS = "<s>", "</s>"


def write_tiny_random(folder: Path) -> None:
    """Write config, weights and tokenizer of a Llama of six layers; the same each time."""
    tokenizer = byte_tokenizer(["title", "Give the ID of the item described by:"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaModel(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=WIDTH,
                intermediate_size=2 * WIDTH,
                num_hidden_layers=LAYERS,
                num_attention_heads=HEADS,
                num_key_value_heads=1,
                max_position_embeddings=CONTEXT,
            )
        )
        for parameter in model.parameters():
            if parameter.ndim > 1:  # the usual .02 would leave a random body nearly the identity
                torch.nn.init.normal_(parameter, std=0.2)
    save_body(model, folder)
    tokenizer.save_pretrained(folder)


def byte_tokenizer(learned_from: list[str]) -> PreTrainedTokenizerFast:
    """Reads any text: all bytes, and some merges of the words given."""
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=1,
        show_progress=False,
    )
    core.train_from_iterator(learned_from, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=BOS, eos_token=EOS)
