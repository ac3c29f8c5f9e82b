"""A random tiny T5 and a small fast tokenizer in a folder, as `save_pretrained` writes them."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import T5Config, T5ForConditionalGeneration

from trainers.baselines.p5_weights import P5Body
from trainers.model.tiny_random import byte_tokenizer


def write_tiny_t5(folder: Path, *, is_p5: bool = False, width: int = 16) -> Path:
    """`is_p5`: with whole-word embeddings. Its tokenizer writes item_12 in one piece and two digits, or in fewer."""
    tokenizer = byte_tokenizer(["item_1", "item_12", "item_21"])
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=8,
        d_ff=24,
        num_layers=1,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = P5Body(config) if is_p5 else T5ForConditionalGeneration(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
