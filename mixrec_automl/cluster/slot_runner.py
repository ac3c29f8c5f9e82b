"""The actor in which the slots live: a thread for each, which keeps a group of workers up, and the mailbox of all.

`TorchTrainer.fit` blocks, so slots side by side need a thread each. They are those of one actor and not of the
controller's process: where Ray is shut down under a thread that still waits in it, Ray ends the whole process.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
from pathlib import Path

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2.api.config import LoggingConfig
from ray.train.v2.api.exceptions import ControllerError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mixrec_automl.cluster.executor import Event, TrialEnded
from mixrec_automl.cluster.mailbox import Mailbox, WorkerProcess
from mixrec_automl.cluster.reservations import all_of_this_job, give_back
from mixrec_automl.cluster.slot_worker import SlotJob, WorkerError, work
from mixrec_automl.cluster.training import Training, TrialTask
from mixrec_automl.search_config import ClusterConfig

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds before another group is tried where one did not come up; each wait is twice the one before."""
OUT_OF_MEMORY = "low on memory"
MOST_FAILED_STARTS = 3
"""In a row, in one slot; machines that are away do not count, for they may come back."""


class SlotRunner:
    """An actor; see `SlotExecutor`."""

    def __init__(self, training: Training, cluster: ClusterConfig, folder: Path) -> None:
        self._training, self._cluster, self._folder = training, cluster, folder
        self._mailbox = Mailbox()
        self._reservations = _Reservations()
        self._trouble: str | None = None
        self._me = ray.get_runtime_context().current_actor
        for slot in range(cluster.slots):
            threading.Thread(target=self._keep_up, args=(slot,), name=f"slot-{slot}", daemon=True).start()

    # The controller calls

    def submit(self, trial: TrialTask) -> None:
        self._mailbox.submit(trial)

    def next_event(self, timeout: float) -> tuple[Event | None, str | None]:
        """The oldest event, waiting up to `timeout` seconds, and why no slot can work any more, where that is so."""
        return self._mailbox.next_event(timeout), self._trouble

    def cancel(self, number: int, attempt: int) -> None:
        for worker in self._mailbox.cancel(number, attempt):
            _kill(worker)

    def stop(self) -> None:
        self._mailbox.stop()

    # The workers call

    def get_training(self) -> Training:
        return self._training

    def join(self, group: str, worker: WorkerProcess, reservation: str) -> None:
        self._reservations.joined(group, reservation)
        self._mailbox.join(group, worker)

    def next_trial(self, group: str, rank: int, position: int) -> TrialTask | None:
        return self._mailbox.next_trial(group, rank, position)

    def begin(self, group: str) -> None:
        self._mailbox.begin(group)

    def post(self, group: str, event: Event) -> bool:
        return self._mailbox.post(group, event)

    def account(self, group: str, ended: TrialEnded) -> None:
        self._mailbox.account(group, ended)

    # The threads run

    def _keep_up(self, slot: int) -> None:
        """One group after another, until the search stops."""
        wait, failed_starts = FIRST_WAIT, 0
        while not self._mailbox.is_stopping:
            group = f"slot-{slot}-{secrets.token_hex(4)}"
            reason, has_died, may_come_back = "", False, False
            self._reservations.coming_up(group)
            try:
                self._trainer(group).fit()
            except Exception as error:
                reason, has_died, may_come_back = _explain(error), _has_died(error), _is_waiting_for_machines(error)
            self._reservations.ended(group)
            if self._mailbox.group_ended(group, reason or "its workers left", has_died=has_died):
                wait, failed_starts = FIRST_WAIT, 0
                continue
            failed_starts += not may_come_back
            if failed_starts >= MOST_FAILED_STARTS:
                self._trouble = f"no worker comes up: {reason}"
            self._mailbox.wait_for_stop(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def _trainer(self, group: str) -> TorchTrainer:
        cpus, gpus = self._cluster.cpus_per_worker, self._cluster.gpus_per_worker
        # Set in the environment of the new process, because torch reads them when it is imported.
        threads = {name: str(cpus) for name in THREAD_VARIABLES}
        job = SlotJob(self._me, group, self._cluster.trials_per_process)
        return TorchTrainer(
            work,
            train_loop_config={"job": job},
            scaling_config=ScalingConfig(
                num_workers=self._cluster.workers_per_trial,
                use_gpu=gpus > 0,
                resources_per_worker={"CPU": cpus} | ({"GPU": gpus} if gpus else {}),
            ),
            run_config=RunConfig(
                name=group,
                storage_path=str(self._folder),
                # The controller of the search decides on further attempts: they are recorded.
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
                worker_runtime_env={"env_vars": threads},
                logging_config=LoggingConfig(log_level="ERROR"),
            ),
        )


class _Reservations:
    """Gives back what a group reserved and left: its own where it came up, and else what is nobody's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[str, str | None] = {}
        """Of each group; None: not known yet"""
        self._is_some_lost = False

    def coming_up(self, group: str) -> None:
        with self._lock:
            if self._is_some_lost and None not in self._of.values():
                give_back(all_of_this_job() - set(self._of.values()))
                self._is_some_lost = False
            self._of[group] = None

    def joined(self, group: str, reservation: str) -> None:
        with self._lock:
            self._of[group] = reservation

    def ended(self, group: str) -> None:
        with self._lock:
            reservation = self._of.pop(group)
            if reservation is None:
                self._is_some_lost = True
            else:
                give_back({reservation} & all_of_this_job())


def _explain(error: Exception) -> str:
    """The traceback of each worker that raised, or how it died."""
    if not isinstance(error, WorkerGroupError):
        return str(error)
    failures = sorted(error.worker_failures.items())
    if len(failures) == 1:
        return _in_short(str(failures[0][1]))
    return "\n".join(f"worker {rank}: {_in_short(str(failure))}" for rank, failure in failures)


def _in_short(failure: str) -> str:
    """With a last line, which tables show, that says what Ray says in a paragraph of advice."""
    if OUT_OF_MEMORY in failure.lower():
        return f"{failure}\nRay ended its worker because the machine ran out of memory"
    return failure


def _has_died(error: Exception) -> bool:
    """Whether a worker's process ended, which is what is left where none of the failures is a raise."""
    if not isinstance(error, WorkerGroupError):
        return True
    return not all(_is_raise(failure) for failure in error.worker_failures.values())


def _is_raise(failure: BaseException) -> bool:
    return isinstance(failure, WorkerError) or isinstance(getattr(failure, "_base_exc", None), WorkerError)


def _is_waiting_for_machines(error: Exception) -> bool:
    return isinstance(error, ControllerError) and isinstance(error.controller_failure, WorkerGroupStartupTimeoutError)


def _kill(worker: WorkerProcess) -> None:
    """SIGKILL, from a task on the worker's node: Ray's own way waits for a thread that a stopped process never runs."""
    where = NodeAffinitySchedulingStrategy(worker.node, soft=False)
    ray.remote(num_cpus=0)(_send_kill).options(scheduling_strategy=where, max_retries=0).remote(worker.pid)


def _send_kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
