"""Time and memory of a training step: ours, padded with PyTorch's attention, and the literal reference of the tests.

    python benchmarks/training_speed.py        about ten minutes; scientific-small has to be prepared

A step is forward and backward pass, clipping and AdamW, not the layout of the batch. For each history length (items of
a user that are read) two steps of the first epoch are run: one of median length and one longer than 95 % of them. Each
implementation runs in processes of its own, in turn and in the opposite order in the next round; all see the same
weights and the same steps, and their losses and gradient norms have to agree. Peak memory is the largest resident set
during a step, reset before it (/proc/self/clear_refs), in all and above what was resident before the first step.
Places are tokens with padding. The literal reference (tests/oracles) is written for certainty, one row and one head at
a time: it bounds what a transcription of the formulas costs, and `padded` is the rival to beat
(benchmarks/padded_sdpa.py). Ours keeps freed memory as a worker does (`trainers.device.keep_freed_memory`); the rivals
have glibc's defaults, unless `--same-memory` gives them the same.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import LlamaModel

from benchmarks.padded_sdpa import PaddedMixRec, collate_padded
from benchmarks.training_steps import (
    MIXED_DESIGN,
    RANKS,
    SEED,
    load,
    setting,
    smallest,
    steps_of_epoch,
    train_step,
    with_body,
)
from search_spaces.architecture import Architecture
from tests.oracles import literal_mixrec
from trainers.config import FinetuneConfig
from trainers.data.batches import collate
from trainers.data.step import Step
from trainers.device import keep_freed_memory
from trainers.losses import weighted_loss
from trainers.model.mixrec import MixRec
from trainers.optim import build_optimizer
from trainers.task import TrainingTask, build_model

ROOT = Path(__file__).parents[1]
IMPLEMENTATIONS = ("ours", "padded", "literal")
TOLERANCE = 1e-3
"""Relative, between losses and gradient norms in float32."""
MEGABYTE = 1 << 20

Implementation = tuple[Callable[[Step], Any], Callable[[Any], dict[str, Tensor]]]
"""What lays out a step, and what gives the means of its losses and their weighted `total`."""


# ---- in a process of its own ----------------------------------------------------------------------------------------


def ours(config: FinetuneConfig, task: TrainingTask, model: MixRec) -> Implementation:
    layout = task.layout(config.model)

    def losses(batch: Any) -> dict[str, Tensor]:
        sums = model(batch)
        means = {name: part.detach() / batch.counts[name] for name, part in sums.items()}
        return {**means, "total": weighted_loss(sums, batch.counts, config.training)}

    return lambda step: collate(step, layout), losses


def padded(
    config: FinetuneConfig, task: TrainingTask, model: MixRec, body: LlamaModel, design: Architecture
) -> Implementation:
    layout, rival = task.layout(config.model), PaddedMixRec(model, body, design, config.training.temperature)

    def losses(batch: Any) -> dict[str, Tensor]:
        sums = rival(batch)
        means = {name: part.detach() / batch.counts[name] for name, part in sums.items()}
        return {**means, "total": weighted_loss(sums, batch.counts, config.training)}

    return lambda step: collate_padded(step, layout), losses


def literal(
    config: FinetuneConfig, task: TrainingTask, model: MixRec, body: LlamaModel, design: Architecture
) -> Implementation:
    text = task.item_tokens
    tokens = [text.tokens[text.offsets[item] : text.offsets[item + 1]].tolist() for item in range(task.data.num_items)]
    known = task.known_items.tolist()

    def losses(step: Step) -> dict[str, Tensor]:
        # The formulas have no standardised input of W_item: it is the same as other weights, made of ours.
        own = dict(model.named_parameters())
        weight = own["item_projection.weight"] / model.spread
        bias = own["item_projection.bias"] - weight @ model.centre
        return literal_mixrec.literal_losses(
            backbone=body,
            parameters={**own, "item_projection.weight": weight, "item_projection.bias": bias},
            architecture=design,
            model=config.model,
            training=config.training,
            step=step,
            item_tokens=tokens,
            prompt_tokens=task.prompt,
            bos_token=task.bos_token,
            known_users=[True] * task.data.num_users,
            known_items=known,
        )

    # The reference makes masks and empty columns in float64, which would not mix with float32.
    for name in ("additive", "_column_vectors"):
        patch.object(literal_mixrec, name, _single(getattr(literal_mixrec, name))).start()
    return lambda step: step, losses


def _single(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *arguments: function(*arguments).float()


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, or VmHWM at most since `clear_refs` was written."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"), re.M)
    assert found is not None, field
    return int(found[1]) * 1024


def work(name: str, data: str, history: int, design: Architecture, passes: int) -> dict[str, Any]:
    """Run the steps `passes` times and tell what each took, in the order of the runs."""
    config = setting(data, history)
    task, body = with_body(config, load(config))
    model = build_model(config, design, task, SEED)
    optimizer = build_optimizer(model, config.training)
    total = config.training.epochs * task.sampler(config, SEED).steps_per_epoch
    lay_out, losses = {
        "ours": lambda: ours(config, task, model),
        "padded": lambda: padded(config, task, model, body, design),
        "literal": lambda: literal(config, task, model, body, design),
    }[name]()
    steps = list(steps_of_epoch(config, task).values())
    tokens = [collate(step, task.layout(config.model)).num_tokens for step in steps]
    places = [collate_padded(step, task.layout(config.model)).num_tokens for step in steps]
    runs = []
    before = resident("VmRSS")
    train_step(losses, lay_out(smallest(steps[0])), model, optimizer, config.training, (0, total))
    for number in range(passes * len(steps)):
        given = lay_out(steps[number % len(steps)])
        Path("/proc/self/clear_refs").write_text("5")
        began = time.perf_counter()
        found, norm = train_step(losses, given, model, optimizer, config.training, (number + 1, total))
        seconds = time.perf_counter() - began
        values = {part: value.item() for part, value in found.items()} | {"gradient norm": float(norm)}
        runs.append({"step": number % len(steps), "seconds": seconds, "peak": resident("VmHWM"), "values": values})
    return {"before": before, "tokens": tokens, "places": places, "runs": runs}


# ---- the comparison -------------------------------------------------------------------------------------------------


def start(name: str, history: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """`work` in a fresh process."""
    passes = 1 if name == "literal" else arguments.passes
    command = [sys.executable, "-m", "benchmarks.training_speed", "--data", arguments.data, "--work", name]
    command += ["--design", arguments.design, "--threads", str(arguments.threads), "--passes", str(passes)]
    command += ["--same-memory"] if arguments.same_memory else []
    command += ["--histories", str(history)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def largest_difference(reports: dict[str, list[dict[str, Any]]]) -> float:
    """Between the implementations' losses and gradient norms, relative, at each process's first runs of the steps.

    Raises:
        SystemExit: it is above `TOLERANCE`, so that times would not compare.
    """
    largest = 0.0
    reference = reports["ours"][0]
    for name, of_name in reports.items():
        for report in of_name:
            for number in range(len(report["tokens"])):
                expected, got = reference["runs"][number]["values"], report["runs"][number]["values"]
                if set(expected) != set(got):
                    raise SystemExit(f"{name} has the losses {sorted(got)}, ours has {sorted(expected)}")
                for part, value in expected.items():
                    difference = abs(got[part] - value) / max(abs(value), 1e-6)
                    largest = max(largest, difference)
                    if not difference <= TOLERANCE:
                        raise SystemExit(f"{name} differs from ours: {part} is {got[part]}, not {value}")
    return largest


def spread(values: Iterable[float]) -> str:
    """Median, least and most."""
    ordered = sorted(values)
    return f"{statistics.median(ordered):.2f} ({ordered[0]:.2f}-{ordered[-1]:.2f})"


def add_rows(times: Table, memory: Table, history: int, reports: dict[str, list[dict[str, Any]]]) -> None:
    first = reports["ours"][0]
    for number, tokens in enumerate(first["tokens"]):
        taken: dict[str, list[float]] = defaultdict(list)
        above: dict[str, int] = defaultdict(int)
        in_all: dict[str, int] = defaultdict(int)
        for name, of_name in reports.items():
            for report in of_name:
                for place, run in enumerate(report["runs"]):
                    if run["step"] == number:
                        # A process's first pass fetches its memory from the system; all others of a training find it.
                        if place >= len(first["tokens"]) or len(report["runs"]) == len(first["tokens"]):
                            taken[name].append(run["seconds"])
                        above[name] = max(above[name], run["peak"] - report["before"])
                        in_all[name] = max(in_all[name], run["peak"])
        medians = {name: statistics.median(values) for name, values in taken.items()}
        times.add_row(
            str(history),
            list(RANKS)[number],
            f"{tokens:,}",
            f"{first['places'][number]:,}",
            *(spread(taken[name]) for name in IMPLEMENTATIONS),
            *(f"{medians[name] / medians['ours']:.2f}" for name in IMPLEMENTATIONS[1:]),
        )
        memory.add_row(
            str(history),
            list(RANKS)[number],
            *(f"{above[name] / MEGABYTE:,.0f} / {in_all[name] / MEGABYTE:,.0f}" for name in IMPLEMENTATIONS),
            *(
                f"{above[name] / above['ours']:.2f} / {in_all[name] / in_all['ours']:.2f}"
                for name in IMPLEMENTATIONS[1:]
            ),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="scientific-small", help="name of a prepared data set")
    parser.add_argument("--histories", type=int, nargs="+", default=[5, 20, 50])
    parser.add_argument("--design", default=MIXED_DESIGN)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2, help="processes of each implementation and history")
    parser.add_argument(
        "--passes", type=int, default=4, help="of the steps in a process, the first to warm up; one for the literal one"
    )
    parser.add_argument(
        "--same-memory", action="store_true", help="let the rivals keep freed memory too, as our workers do"
    )
    parser.add_argument("--work", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        if arguments.work == "ours" or arguments.same_memory:
            keep_freed_memory()
        torch.set_num_threads(arguments.threads)
        design = Architecture.parse(arguments.design)
        found = work(arguments.work, arguments.data, arguments.histories[0], design, arguments.passes)
        print(json.dumps(found))
        return

    began = time.perf_counter()
    title = f"{arguments.data}, design {arguments.design}, {arguments.threads} threads"
    times = Table("history", "step", "tokens", "places", title=f"seconds a step, median (min-max); {title}")
    memory = Table("history", "step", title=f"peak MB above the start / in all; {title}")
    for heading in (*IMPLEMENTATIONS, "padded / ours", "literal / ours"):
        times.add_column(heading, justify="right")
        memory.add_column(heading, justify="right")
    difference = 0.0
    for history in arguments.histories:
        reports: dict[str, list[dict[str, Any]]] = {name: [] for name in IMPLEMENTATIONS}
        for turn in range(arguments.rounds):
            for name in IMPLEMENTATIONS if turn % 2 == 0 else IMPLEMENTATIONS[::-1]:
                reports[name].append(start(name, history, arguments))
        difference = max(difference, largest_difference(reports))
        add_rows(times, memory, history, reports)
    console = Console(width=150)
    console.print(times, memory)
    print(f"losses and gradient norms differ by at most {difference:.1e}, relative")
    print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
