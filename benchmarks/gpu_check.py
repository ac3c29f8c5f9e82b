"""Is a step on the GPU what it is on the CPU, and how long does it take there?

    python benchmarks/gpu_check.py        a minute or two; needs a CUDA GPU, and says so and exits with 1 without one

A random Llama body (no download), random sentences and histories. The same step runs on the CPU in float32, on the GPU
in float32, with bfloat16 products and variable-length attention, and as a training runs it, which has compiled layers
besides. Printed are the largest difference of a loss, relative, and the angle between the gradients of all weights;
then seconds of the first step, which compiles, and milliseconds of a step, medians of several. Each row is told as soon
as it is there. It exits with 1 where float32 or bfloat16 is further from the CPU than rounding explains.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from dataclasses import replace

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from search_spaces.architecture import Architecture
from trainers.config import ModelConfig, Precision, TrainingConfig
from trainers.data.batches import Batch, Layout, collate
from trainers.data.sequence_data import ItemTokens
from trainers.data.step import CollaborativeDraw, ContrastiveAnchor, Step
from trainers.device import move
from trainers.losses import weighted_loss
from trainers.model.backbone import as_backbone
from trainers.model.mixrec import MixRec
from trainers.optim import build_optimizer

USERS, ITEMS, HISTORY, VOCABULARY, LAYERS = 32, 2000, 20, 4000, 4
REPEATS = {"cpu": 5, "cuda": 20}
LARGEST_LOSS_DIFFERENCE: dict[Precision, float] = {"float32": 1e-3, "auto": 0.03}
LARGEST_ANGLE: dict[Precision, float] = {"float32": 1.0, "auto": 15.0}
"""Degrees; TF32 and bfloat16 keep 10 and 8 bits of each factor."""


def random_batch(config: ModelConfig) -> Batch:
    rng = np.random.default_rng(0)
    lengths = rng.integers(8, 31, size=ITEMS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = ItemTokens(offsets, rng.integers(1, VOCABULARY, size=int(offsets[-1]), dtype=np.int32))
    layout = Layout.of(config, tokens, tuple(range(2, 11)), None, np.ones(ITEMS, dtype=np.bool_))
    windows = [rng.integers(ITEMS, size=int(rng.integers(2, HISTORY + 1))).tolist() for _ in range(USERS)]
    anchors = [ContrastiveAnchor(row, 0, w[1], tuple(rng.integers(ITEMS, size=5))) for row, w in enumerate(windows)]
    contrasted = {int(item) for anchor in anchors for item in (anchor.positive, *anchor.negatives)}
    draws = [CollaborativeDraw(row, w[0], tuple(rng.integers(ITEMS, size=4))) for row, w in enumerate(windows)]
    step = Step(
        users=tuple(range(USERS)),
        inputs=tuple(tuple(w[:-1]) for w in windows),
        targets=tuple(tuple(w[1:]) for w in windows),
        anchors=tuple(anchors),
        align_items=tuple(sorted(contrasted)),
        collaborative=tuple(draws),
    )
    return collate(step, layout)


def random_model(device: torch.device, training: TrainingConfig) -> MixRec:
    """The same weights on every device."""
    torch.manual_seed(0)
    body = LlamaModel(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=LAYERS,
            num_attention_heads=9,
            num_key_value_heads=3,
        )
    )
    design = Architecture.parse("000-111-010-101")
    config = ModelConfig(collaborative_columns="user+item")
    model = MixRec(as_backbone(body), config, design, num_users=USERS, num_items=ITEMS, training=training)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    model.backbone.to(device)
    return model.to(device)


def step_of(model: MixRec, batch: Batch, training: TrainingConfig) -> tuple[dict[str, float], Tensor]:
    """Losses, and the gradients of all weights as one vector."""
    model.zero_grad(set_to_none=True)
    sums = model(batch)
    weighted_loss(sums, batch.counts, training).backward()  # type: ignore[no-untyped-call]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    losses = {name: float(value.detach()) / batch.counts[name] for name, value in sums.items()}
    return losses, torch.cat([gradient.flatten().double().cpu() for gradient in gradients])


def milliseconds(model: MixRec, batch: Batch, training: TrainingConfig, device: torch.device) -> list[float]:
    optimizer = build_optimizer(model, training)
    taken = []
    for repeat in range(REPEATS[device.type] + 3):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        on_device = move(batch, device)
        weighted_loss(model(on_device), batch.counts, training).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if repeat >= 3:
            taken.append(1000 * (time.perf_counter() - began))
    return taken


def main() -> int:
    if not torch.cuda.is_available():
        print("no CUDA GPU on this machine: nothing was checked")
        return 1
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    training = TrainingConfig(lambda_align=1.0, lambda_contrastive=1.0, lambda_collaborative=1.0)
    batch = random_batch(ModelConfig(collaborative_columns="user+item"))
    reference = random_model(cpu, replace(training, precision="float32"))
    expected, of_weights = step_of(reference, batch, training)
    columns = ("where", "loss differs by", "gradients turned by", "first step, s", "ms a step", "from", "to")
    table = Table(*columns, title=torch.cuda.get_device_name())

    def tell(*row: str) -> None:
        table.add_row(*row)
        print("   ".join(row), flush=True)

    tell("CPU float32", "", "", "", *_summary(milliseconds(copy.deepcopy(reference), batch, training, cpu)))
    right = True
    kinds: tuple[tuple[str, Precision, bool], ...] = (
        ("GPU float32 (TF32)", "float32", False),
        ("GPU bfloat16", "auto", False),
        ("GPU bfloat16, compiled", "auto", True),
    )
    for name, precision, is_compiled in kinds:
        model = random_model(gpu, replace(training, precision=precision))
        if is_compiled:
            model.compile_layers()
        began = time.perf_counter()
        losses, gradients = step_of(model, move(batch, gpu), training)
        first = time.perf_counter() - began
        off = max(abs(losses[name] / value - 1) for name, value in expected.items())
        cosine = torch.dot(gradients, of_weights) / gradients.norm() / of_weights.norm()
        angle = float(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))))
        right &= off <= LARGEST_LOSS_DIFFERENCE[precision] and angle <= LARGEST_ANGLE[precision]
        times = milliseconds(model, batch, training, gpu)
        tell(name, f"{off:.1e}", f"{angle:.2f} degrees", f"{first:.1f}", *_summary(times))
    Console(width=120).print(table)
    print(f"{batch.num_tokens} tokens a step;", "parity holds" if right else "NOT EQUAL: see above")
    return 0 if right else 1


def _summary(taken: list[float]) -> tuple[str, str, str]:
    return f"{statistics.median(taken):.1f}", f"{min(taken):.1f}", f"{max(taken):.1f}"


if __name__ == "__main__":
    sys.exit(main())
