"""Everything that a training needs besides its configuration and architecture, loaded once and shared by trials."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from search_spaces.architecture import Architecture, Placement
from search_spaces.damoe import DamoeSpace
from trainers.cached import cached_array
from trainers.collaborative_pretraining import pretrain
from trainers.config import FinetuneConfig, ModelConfig
from trainers.data.batches import ALIGN_PROMPT, Layout
from trainers.data.hard_negatives import HardSets
from trainers.data.item_text import item_tokens
from trainers.data.rows import Rows
from trainers.data.sampler import StepSampler
from trainers.data.sequence_data import ItemTokens, SequenceData
from trainers.data.store_format import open_prepared
from trainers.data.stored_hard_sets import stored_hard_sets
from trainers.data.users import sample_users
from trainers.device import move, pick_device, rank_and_workers
from trainers.errors import UserError
from trainers.model.backbone import Backbone, as_backbone
from trainers.model.mixrec import MixRec, decode, initial_special_tokens
from trainers.model.pretrained import load_pretrained
from trainers.model.sentence_encoder import sentence_vectors
from trainers.model.text_vectors import mean_token_states
from trainers.progress import Progress, silent

BACKBONE = "backbone"
"""`TrainingConfig.text_encoder`: none beside the language model"""
_ALIGN_ROWS_AT_ONCE = 64
_SAMPLE_USERS = 16
_USERS_HASHED_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class TrainingTask:
    """Data, text and frozen backbone of a training. Nothing in it depends on the architecture or the seed."""

    data: SequenceData
    """The users trained on, over the whole catalogue"""
    item_tokens: ItemTokens
    prompt: tuple[int, ...]
    bos_token: int | None
    item_counts: NDArray[np.int64]
    """[I] training interactions of each item"""
    backbone: Backbone
    hard_sets: HardSets
    align_states: NDArray[np.float32]
    """[I, d] [ALIGN] states of a pass of the frozen backbone: where `item_projection_init: align` starts"""
    fingerprint: str
    """Of data, users, tokeniser, backbone and hard sets"""

    @property
    def known_items(self) -> NDArray[np.bool_]:
        """[I] whether the item occurs in the training part, and so whether M_cf has a vector for it"""
        return self.item_counts > 0

    def layout(self, config: ModelConfig) -> Layout:
        return Layout.of(config, self.item_tokens, self.prompt, self.bos_token, self.known_items)

    def sampler(self, config: FinetuneConfig, seed: int) -> StepSampler:
        context = self.backbone.max_positions - int(config.model.leading_bos)
        return StepSampler(config, self.data, self.item_tokens, self.hard_sets, context, seed)


def load_task(
    config: FinetuneConfig,
    prepared: Path,
    backbones: Path,
    *,
    user_share: float = 1.0,
    user_seed: int = 0,
    shard_backbone: bool = False,
    progress: Progress = silent,
) -> TrainingTask:
    """Load what trials share. What is derived from data and backbone is computed once and kept with the data.

    Args:
        prepared: folder of the prepared data set; derived arrays are cached in it.
        backbones: folder of backbone weights.
        user_share: b, the share of users that forms Data_BO; 1 for all.
        shard_backbone: divide the layers among the workers of the process group, all of which call this. What is
            derived from the whole backbone is then computed on the CPU, where it is not there yet; a process without
            others keeps it there.
        progress: told the name of each stage that may take long.

    Raises:
        UserError: no such data or backbone, or a backbone of another family.
    """
    device = pick_device()
    progress("weights")
    pretrained = load_pretrained(config.backbone.name, config.backbone.layers, backbones)
    tokenizer = pretrained.tokenizer
    full = open_prepared(prepared)
    users = sample_users(full.num_users, user_share, user_seed)
    data = full if len(users) == full.num_users else full.select_users(users)
    if not (data.training_lengths >= 2).any():
        raise UserError(
            "no user of these data has two training items, and so a next one to learn from: prepare them with "
            "--min-user-interactions 4 or more, or take a larger search.user_share"
        )
    progress("item texts")
    tokens = item_tokens(prepared, full, tokenizer, config.data.sentence_tokens)
    if not shard_backbone:
        pretrained.model.to(device)
    backbone = as_backbone(pretrained.model)
    prompt = tuple(int(token) for token in tokenizer(ALIGN_PROMPT, add_special_tokens=False)["input_ids"])
    counts = data.training_counts()

    text = f"{full.fingerprint} {pretrained.fingerprint} {config.data.sentence_tokens}"
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    encoder = config.training.text_encoder
    if encoder == BACKBONE:
        made_of = key
        text_vectors = cached_array(
            prepared / f"text-vectors-{key}.npy", lambda: mean_token_states(pretrained.model, tokens)
        )
    else:
        progress(f"text encoder {encoder}")
        text_vectors, made_of = sentence_vectors(prepared, full, encoder, backbones)
    hard = stored_hard_sets(
        prepared,
        data,
        text_vectors,
        share=config.training.hard_share,
        encoder=encoder,
        made_of=f"{made_of} {hashlib.sha256(users.tobytes()).hexdigest()}",
        progress=progress,
    )
    progress("alignment states of the items")
    layout = Layout.of(config.model, tokens, prompt, tokenizer.bos_token_id, counts > 0)
    bos = "bos" if config.model.leading_bos else "plain"
    align_states = cached_array(
        prepared / f"align-states-{bos}-{key}.npy", lambda: frozen_align_states(backbone, layout, data.num_items)
    )
    if shard_backbone and rank_and_workers()[1] > 1:
        backbone.shard(device)
    return TrainingTask(
        data=data,
        item_tokens=tokens,
        prompt=prompt,
        bos_token=tokenizer.bos_token_id,
        item_counts=counts,
        backbone=backbone,
        hard_sets=hard,
        align_states=align_states,
        fingerprint=_fingerprint(text, users, hard),
    )


def _fingerprint(text: str, users: NDArray[np.int64], hard_sets: HardSets) -> str:
    """Of the text `{text} {list of users} {hard sets}`, which is not built whole: there may be a million users."""
    digest = hashlib.sha256(f"{text} [".encode())
    for first in range(0, len(users), _USERS_HASHED_AT_ONCE):
        part = ", ".join(map(str, users[first : first + _USERS_HASHED_AT_ONCE].tolist()))
        digest.update(f"{', ' if first else ''}{part}".encode())
    digest.update(f"] {hard_sets.fingerprint}".encode())
    return digest.hexdigest()[:16]


@torch.inference_mode()
def frozen_align_states(backbone: Backbone, layout: Layout, num_items: int) -> NDArray[np.float32]:
    """[I, d] [ALIGN] state of every item in the untouched backbone, without columns."""
    states = []
    special = initial_special_tokens(backbone)
    for first in range(0, num_items, _ALIGN_ROWS_AT_ONCE):
        rows = layout.alignments(range(first, min(num_items, first + _ALIGN_ROWS_AT_ONCE)))
        states.append(decode(backbone, move(rows, backbone.device), special, None, {}).float().cpu().numpy())
    return np.concatenate(states)


def build_model(config: FinetuneConfig, architecture: Architecture, task: TrainingTask, seed: int) -> MixRec:
    """A fresh model; its random weights come from `seed` alone and torch's global generator is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _unprepared_model(config, architecture, task).to(task.backbone.device, task.backbone.dtype)
    if model.collaborative is not None and config.model.collaborative_training == "frozen":
        pretrain(model.collaborative, task.data, config.training, seed)
    starts_from_text = config.model.item_projection_init == "align" or config.model.item_projection_form != "free"
    with torch.inference_mode():
        sample = model.encode(sample_rows(config, task, seed))
    model.start_projection(
        sample,
        task.align_states if starts_from_text else None,
        task.item_counts if config.model.item_bias_init == "popularity" else None,
    )
    return model


def trainable_parameters(config: FinetuneConfig, task: TrainingTask) -> int:
    """How many numbers a training changes, W_item and M_cf included.

    It is the same for every architecture, as a bit says what an adapter reads and not how large it is.

    The model itself is built and counted, on torch's meta device: no layer is allocated and no random number drawn.
    """
    layers = len(DamoeSpace(len(task.backbone.layers), config.model.replacement_frequency).damoe_layers)
    with torch.device("meta"):
        model = _unprepared_model(config, Architecture.uniform(Placement.SERIAL, layers), task)
    return sum(own.numel() for own in model.parameters() if own.requires_grad)


def _unprepared_model(config: FinetuneConfig, architecture: Architecture, task: TrainingTask) -> MixRec:
    return MixRec(
        task.backbone,
        config.model,
        architecture,
        num_users=task.data.num_users,
        num_items=task.data.num_items,
        training=config.training,
    )


def sample_rows(config: FinetuneConfig, task: TrainingTask, seed: int) -> Rows:
    """Some users' training inputs, on the backbone's device: the item projection starts from the states at their
    `[SEQ]`, before any training."""
    sampler = task.sampler(config, seed)
    users = np.random.default_rng(seed).permutation(sampler.users)[:_SAMPLE_USERS]
    inputs = [sampler.window(int(user))[:-1].tolist() for user in users]
    return move(task.layout(config.model).histories(inputs, users.tolist()), task.backbone.device)
