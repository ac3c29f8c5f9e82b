"""What a trial costs beside its training: in a warm slot, and with processes of its own.

    python benchmarks/slot_overhead.py        about a minute

Trials are empty, so what is timed is everything else: from the controller's `submit` to the event that ends the trial,
one slot, one worker, an embedded Ray.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mixrec_automl.cluster.executor import Executor, TrialEnded
from mixrec_automl.cluster.ray_session import ray_session
from mixrec_automl.cluster.slot_executor import SlotExecutor
from mixrec_automl.cluster.training import OnEpoch, TrialScore, TrialTask
from mixrec_automl.search_config import ClusterConfig
from search_spaces.architecture import Architecture
from search_spaces.design import Design

WARM_TRIALS, COLD_TRIALS = 200, 5


@dataclass(frozen=True)
class Empty:
    def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore:  # noqa: ARG002
        return TrialScore(0.5, 0.1)


def seconds_of_trials(executor: Executor, trials: int, folder: Path) -> list[float]:
    """From each trial's submission to its end, one after another."""
    taken = []
    for number in range(trials):
        began = time.perf_counter()
        executor.submit(TrialTask(number, 1, Design(Architecture.parse("000-000")), 0, folder / str(number)))
        while not isinstance(executor.next_event(1.0), TrialEnded):
            pass
        taken.append(time.perf_counter() - began)
    return taken


def main() -> None:
    with tempfile.TemporaryDirectory() as name, ray_session():
        folder = Path(name)
        warm_cluster = ClusterConfig(trials_per_process=WARM_TRIALS + 1)
        with closing(SlotExecutor(Empty(), warm_cluster, folder / "warm")) as executor:
            first, *warm = seconds_of_trials(executor, WARM_TRIALS + 1, folder)
        with closing(SlotExecutor(Empty(), ClusterConfig(trials_per_process=1), folder / "cold")) as executor:
            _, *cold = seconds_of_trials(executor, COLD_TRIALS + 1, folder)
    warm.sort()
    print(f"first trial of a slot, its start included      {first:8.2f} s")
    print(f"later trials: median                           {1000 * statistics.median(warm):8.1f} ms")
    print(f"              95 % of {WARM_TRIALS} below                {1000 * warm[int(0.95 * len(warm))]:8.1f} ms")
    print(f"              longest                          {1000 * warm[-1]:8.1f} ms")
    print(f"processes of its own: median of {COLD_TRIALS}              {statistics.median(cold):8.2f} s")
    print(f"ratio of the medians                           {statistics.median(cold) / statistics.median(warm):8.0f}")


if __name__ == "__main__":
    main()
