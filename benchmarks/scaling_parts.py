"""What `scaling.py` measures of a worker, one part in one process: deriving, starting, training steps.

No benchmark by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from scaling_data import Measured, draw, measured, memory
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from search_spaces.architecture import Architecture
from trainers import task as task_module
from trainers.config import BackboneConfig, DataConfig, FinetuneConfig, ModelConfig, TrainingConfig
from trainers.data import stored_hard_sets
from trainers.data.batches import Batch, collate
from trainers.data.co_occurrence import CoOccurrence
from trainers.data.hard_negatives import HardRows, HardSets
from trainers.data.sampler import share
from trainers.data.sequence_data import Catalogue, ItemTokens, SequenceData
from trainers.losses import weighted_loss
from trainers.model.backbone import as_backbone
from trainers.optim import build_optimizer, set_rates
from trainers.task import TrainingTask, build_model, load_task

LAYERS, WIDTH, CONTEXT = 2, 64, 1024
DESIGN = "010-101"
BATCH, ALIGNED, WARM_UP, STEPS = 8, 16, 2, 8
STAND_IN = 200
"""Hard negatives of each item where the true ones are not what is measured."""


def write_backbone(folder: str) -> Measured:
    """A random tiny Llama and a tokenizer that reads digits and words of the titles."""
    words = [*"0123456789", "title", "Thing", "brand", "Acme", *"ghIDtemdscrby:", "<s>", "?"]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", unk_token="?")
    tokenizer.save_pretrained(folder)
    untrained(len(vocabulary)).save_pretrained(folder)
    return {}


def untrained(vocabulary: int) -> LlamaModel:
    torch.manual_seed(0)
    return LlamaModel(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
        )
    )


def config(columns: str, aligned_share: float, batch: int = BATCH, backbone: str = "") -> FinetuneConfig:
    return FinetuneConfig(
        DataConfig("synthetic"),
        BackboneConfig(backbone) if backbone else BackboneConfig(),
        ModelConfig(collaborative_columns=columns),  # type: ignore[arg-type]
        TrainingConfig(batch_size=batch, align_share=aligned_share),
    )


def derive(folder: str, backbone: str, stand_in: bool) -> Measured:
    """The first `load_task` on a data set: tokens, text vectors, hard sets, alignment states."""
    if stand_in:
        stored_hard_sets.hard_rows = _random_rows  # type: ignore[assignment]
        task_module.mean_token_states = lambda _, tokens: _random_states(len(tokens.lengths))  # type: ignore[assignment]
        task_module.frozen_align_states = lambda *of: _random_states(of[2])  # type: ignore[assignment]
    found: Measured = {}
    with measured(found, "derive"):
        load_task(config("item", 1.0, backbone=backbone), Path(folder), Path(backbone))
    return found


def start_and_train(folder: str, backbone: str, columns: str) -> Measured:
    """A later `load_task`, and some training steps."""
    found: Measured = {"imports": memory("RssAnon")}
    setting = config(columns, 1.0, backbone=backbone)
    with measured(found, "start"):
        task = load_task(setting, Path(folder), Path(backbone))
    found["start_own"] = memory("RssAnon")
    steps = -(-task.data.num_users // BATCH)
    return found | train(config(columns, min(1.0, ALIGNED * steps / task.data.num_items)), task)


def train_by_hand(users: int, items: int, columns: str, workers: int, rank: int, meeting: str, batch: int) -> Measured:
    """Training steps on a task without a text pass; in a group of `workers` that meet at the file `meeting`."""
    if workers:
        torch.set_num_threads(1)
    if workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers)
    task = task_by_hand(users, items)
    found = train(config(columns, min(1.0, ALIGNED * -(-users // batch) / items), batch), task, rank, max(1, workers))
    if workers > 1:
        dist.destroy_process_group()
    return found


def train(setting: FinetuneConfig, task: TrainingTask, rank: int = 0, workers: int = 1) -> Measured:
    """Build the model as `finetune` does and take `WARM_UP + STEPS` steps of the first epoch."""
    found: Measured = {}
    with measured(found, "build"):
        model = build_model(setting, Architecture.parse(DESIGN), task, seed=0)
        optimizer = build_optimizer(model, setting.training)
    sampler, layout = task.sampler(setting, 0), task.layout(setting.model)
    wrapped: nn.Module = DistributedDataParallel(model) if workers > 1 else model
    batches = (collate(share(step, rank, workers), layout) for step in sampler.epoch(1))
    with measured(found, "first"):
        for batch in islice(batches, WARM_UP):
            take_step(wrapped, optimizer, batch, setting.training, workers)
    with measured(found, "steps"):
        for batch in islice(batches, STEPS):
            take_step(wrapped, optimizer, batch, setting.training, workers)
    found["steps_seconds"] /= STEPS
    found["steps_cpu"] /= STEPS
    found["train_peak"] = max(found[f"{name}_peak"] for name in ("build", "first", "steps"))
    found["train_own"] = memory("RssAnon")
    table = model.collaborative
    found["user_table"] = 0.0
    if table is not None:
        # Weights, gradient and two moments of everything that has a row for each user.
        rows = [weight for weight in table.parameters() if weight.shape[0] == task.data.num_users]
        found["user_table"] = sum(4 * weight.numel() * weight.element_size() for weight in rows) / 2**20
    return found


def take_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, training: TrainingConfig, workers: int
) -> None:
    """As `trainers.finetune` takes it."""
    model.train()
    counts = batch.counts
    if workers > 1:
        added = torch.tensor(list(counts.values()))
        dist.all_reduce(added)
        counts = dict(zip(counts, added.tolist(), strict=True))
    set_rates(optimizer, training, 1, 100)
    optimizer.zero_grad(set_to_none=True)
    loss = weighted_loss(model(batch), counts, training)
    if workers > 1:
        loss = workers * loss + 0 * torch.stack([parameter.sum() for parameter in model.parameters()]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), training.max_gradient_norm)
    optimizer.step()


def task_by_hand(users: int, items: int) -> TrainingTask:
    """Random sentences of four tokens and stand-ins for what the frozen backbone would say of them."""
    rng = np.random.default_rng(0)
    parts = list(draw(users, items))
    offsets = np.cumsum([0, *np.concatenate([lengths for lengths, _ in parts])]).astype(np.int64)
    names = tuple(map(str, range(items)))
    people = tuple(map(str, range(users)))
    data = SequenceData(
        offsets, np.concatenate([drawn for _, drawn in parts]), people, Catalogue(names, names, names), "synthetic"
    )
    vocabulary = 1000
    tokens = rng.integers(vocabulary, size=4 * items).astype(np.int32)
    together = CoOccurrence.of(data)
    rows = next(_random_rows(together, np.empty((items, 0), dtype=np.float32), 0.0))
    lengths = np.zeros(items, dtype=np.int64)
    lengths[rows.anchors] = rows.lengths
    counts = data.training_counts()
    return TrainingTask(
        data=data,
        item_tokens=ItemTokens(np.arange(items + 1, dtype=np.int64) * 4, tokens),
        prompt=(1, 2, 3),
        bos_token=None,
        item_counts=counts,
        backbone=as_backbone(untrained(vocabulary)),
        hard_sets=HardSets(np.concatenate([[0], np.cumsum(lengths)]), rows.items, together, "stand-in"),
        align_states=_random_states(items),
        fingerprint="synthetic",
    )


def _random_states(items: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((items, WIDTH), dtype=np.float32)


def _random_rows(together: CoOccurrence, _: NDArray[np.float32], __: float, *___: object) -> Iterator[HardRows]:
    """Random items as hard sets, which cost nothing: a start maps them, whatever they are."""
    anchors = np.flatnonzero(together.trained)
    width = min(STAND_IN, together.num_items // 4)
    items = np.random.default_rng(0).integers(together.num_items, size=(len(anchors), width), dtype=np.int32)
    items.sort(axis=1)
    yield HardRows(anchors, np.full(len(anchors), width), items.ravel())


PARTS = {"backbone": write_backbone, "derive": derive, "start": start_and_train, "by_hand": train_by_hand}
