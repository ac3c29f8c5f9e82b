"""How near a training step comes to the speed at which this processor multiplies large matrices.

    python benchmarks/hardware_limit.py        about three minutes; scientific-small has to be prepared

For each history length two steps of the first epoch are run, one of median length and one longer than 95 % of them, and
around each run a product of two 4096 x 4096 matrices in float32: the speed of a machine drifts, so both are measured
side by side.
A step that two history lengths share is run once. The share is the least operations of the step by its median time,
over those of the product by its; executed are those that PyTorch sees in the step (`benchmarks/flops.py` says what
each leaves out). The split of the time comes from PyTorch's profiler over one more run, which slows small operations
down a little. Attention is its products with their softmax; to move data is to gather, scatter, join, copy and fill;
element-wise is all the rest, the cost of calls included.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.flops import MULTIPLY_ADD, least_operations, operations_run
from benchmarks.training_steps import MIXED_DESIGN, SEED, load, setting, smallest, steps_of_epoch, train_step, with_body
from search_spaces.architecture import Architecture
from trainers.data.batches import Batch, collate
from trainers.data.step import Step
from trainers.device import keep_freed_memory
from trainers.losses import weighted_loss
from trainers.optim import build_optimizer
from trainers.task import build_model

SIZE = 4096
GIGA = 1e9
PARTS = ("matrix products", "attention", "element-wise", "data movement", "optimiser")
OPERATIONS = {
    "matrix products": {"mm", "addmm", "addmm_"},
    "attention": {"bmm", "baddbmm", "_softmax", "_softmax_backward_data"},
    "data movement": {
        *("index_select", "index_copy_", "index_copy", "index", "index_put_", "_index_put_impl_", "gather", "scatter_"),
        *("scatter_add_", "cat", "copy_", "clone", "fill_", "zero_", "repeat", "roll", "embedding"),
        *("embedding_dense_backward", "index_add_", "index_add", "_unsafe_index_put", "slice_backward"),
        *("select_backward", "new_zeros", "new_full", "zeros", "empty_like", "empty", "empty_strided"),
    },
}
OPTIMISER = ("_foreach", "_fused", "Optimizer")


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def part_of(name: str) -> str:
    """Which of `PARTS` the profiler's operation belongs to, softmax of the gate and the like included by name."""
    bare = name.removeprefix("aten::")
    if bare.startswith(OPTIMISER):
        return "optimiser"
    if "attention" in bare:
        return "attention"
    return next((part for part, names in OPERATIONS.items() if bare in names), "element-wise")


def split_of_time(step: Callable[[], object]) -> dict[str, float]:
    """Share of each part in the time that operations of `step` take themselves."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step()
    taken: Counter[str] = Counter()
    for event in recorded.key_averages():
        taken[part_of(event.key)] += event.self_cpu_time_total
    return {part: taken[part] / taken.total() for part in PARTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="scientific-small", help="name of a prepared data set")
    parser.add_argument("--histories", type=int, nargs="+", default=[5, 20, 50])
    parser.add_argument("--designs", nargs="+", default=[MIXED_DESIGN])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3, help="of each step")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)

    began = time.perf_counter()
    title = f"{arguments.data}, {arguments.threads} threads, float32"
    limits = Table("design", "history", "step", title=f"a training step against a large matrix product; {title}")
    for heading in ("tokens", "GFLOP", "executed", "seconds", "GFLOP/s", "product GFLOP/s", "share"):
        limits.add_column(heading, justify="right")
    splits = Table("design", "history", "step", title=f"where the time of a step goes; {title}")
    for part in PARTS:
        splits.add_column(part, justify="right")

    left, right = torch.randn(2, SIZE, SIZE)
    product = torch.empty(SIZE, SIZE)

    def multiply() -> Tensor:
        return torch.mm(left, right, out=product)

    multiply()
    seen: list[tuple[str, Step]] = []
    task, body = with_body(setting(arguments.data, 1), load(setting(arguments.data, 1)))
    for text in arguments.designs:
        design = Architecture.parse(text)
        for history in arguments.histories:
            config = setting(arguments.data, history)
            model = build_model(config, design, task, SEED)
            optimizer = build_optimizer(model, config.training)
            total = config.training.epochs * task.sampler(config, SEED).steps_per_epoch
            steps = steps_of_epoch(config, task)

            def losses(batch: Batch) -> dict[str, Tensor]:
                return {"total": weighted_loss(model(batch), batch.counts, config.training)}  # noqa: B023

            def run(batch: Batch) -> object:
                return train_step(losses, batch, model, optimizer, config.training, (0, total))  # noqa: B023

            run(collate(smallest(steps["median"]), task.layout(config.model)))
            for name, step in steps.items():
                if (text, step) in seen:
                    continue
                seen.append((text, step))
                batch = collate(step, task.layout(config.model))
                executed = sum(operations_run(lambda: run(batch)).values())  # noqa: B023
                seconds, products = [], [timed(multiply)]
                for _ in range(arguments.runs):
                    seconds.append(timed(lambda: run(batch)))  # noqa: B023
                    products.append(timed(multiply))
                least = sum(least_operations(batch, body.config, config.model, design, task.data.num_items).values())
                if least > executed:
                    print(f"warning: {least / GIGA:.1f} GFLOP are counted, but PyTorch sees {executed / GIGA:.1f}")
                speed = least / statistics.median(seconds)
                limit = MULTIPLY_ADD * SIZE**3 / statistics.median(products)
                limits.add_row(
                    text,
                    str(history),
                    name,
                    f"{batch.num_tokens:,}",
                    f"{least / GIGA:.1f}",
                    f"{executed / GIGA:.1f}",
                    f"{statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})",
                    f"{speed / GIGA:.1f}",
                    f"{limit / GIGA:.1f}",
                    f"{speed / limit:.0%}",
                )
                shares = split_of_time(lambda: run(batch))  # noqa: B023
                splits.add_row(text, str(history), name, *(f"{shares[part]:.1%}" for part in PARTS))
    console = Console(width=150)
    console.print(limits, splits)
    print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
