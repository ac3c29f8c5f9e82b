"""The actor in which the slots live: a thread for each, which keeps a group of workers up, and the mailbox of all.

`TorchTrainer.fit` blocks, so slots side by side need a thread each. They are those of one actor and not of the
controller's process: where Ray is shut down under a thread that still waits in it, Ray ends the whole process.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2.api.config import LoggingConfig
from ray.train.v2.api.exceptions import ControllerError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mixrec_automl.cluster.executor import EpochEnded, Event, MachinesChanged, SlotsWaiting, TrialEnded
from mixrec_automl.cluster.growth import Growth
from mixrec_automl.cluster.mailbox import Mailbox, WorkerProcess
from mixrec_automl.cluster.ray_session import machines
from mixrec_automl.cluster.reservations import all_of_this_job, give_back
from mixrec_automl.cluster.slot_worker import SlotJob, WorkerError, work
from mixrec_automl.cluster.training import Training, TrialTask
from mixrec_automl.fair_share import Machine
from mixrec_automl.search_config import ClusterConfig
from trainers.errors import last_line

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds before another group is tried where one did not come up; each wait is twice the one before."""
OUT_OF_MEMORY = "low on memory"
MOST_FAILED_STARTS = 3
"""In a row, in every slot; machines that are away do not count, for they may come back."""
WATCH_SECONDS = 5.0
BEGIN_SECONDS = 30.0
"""Within this a worker begins the trial that it was handed, or its process stands still."""
SILENT_SECONDS = 30.0
"""After so long a group that has not come up is told of"""
START_SECONDS = 300.0
"""Within this a group comes up, its wait for machines included, or one of its processes stands still."""


@dataclass
class _Slot:
    """One thread's part."""

    index: int
    group: str = ""
    """The one that is coming up or is up"""
    run: str | None = None
    """The number of Ray Train's run that it is"""
    reservation: str | None = None
    """What Ray keeps for `group`; None until it has come up"""
    coming_up_since: float | None = None
    failed_starts: int = 0
    """In a row"""
    trouble: str | None = None
    """Why the last start failed, until one succeeds"""


class SlotRunner:
    """An actor; see `SlotExecutor`."""

    def __init__(
        self,
        training: Training,
        cluster: ClusterConfig,
        folder: Path,
        is_shared: bool = False,
        fewest_workers: int | None = None,
    ) -> None:
        self._training, self._cluster, self._folder = training, cluster, folder
        self._fewest_workers = fewest_workers
        self._growth = None if fewest_workers is None else Growth(cluster)
        self._mailbox = Mailbox()
        self._is_shared = is_shared
        self._machines: tuple[Machine, ...] = ()
        """As last told"""
        self._slots = [_Slot(index) for index in range(cluster.slots)]
        self._lock = threading.Lock()
        """Of the slots and of what Ray keeps for them"""
        self._is_some_lost = False
        """Whether a group that never came up has left something reserved"""
        self._told: str | None = None
        self.use(0 if is_shared else cluster.slots)
        self._me = ray.get_runtime_context().current_actor
        for slot in self._slots:
            threading.Thread(target=self._keep_up, args=(slot,), name=f"slot-{slot.index}", daemon=True).start()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    # The controller calls

    def submit(self, trial: TrialTask) -> None:
        self._mailbox.submit(trial)

    def next_event(self, timeout: float) -> tuple[Event | None, str | None]:
        """The oldest event, waiting up to `timeout` seconds, and why no slot can work any more, where that is so."""
        return self._mailbox.next_event(timeout), self._why_none_works()

    def use(self, slots: int) -> None:
        with self._lock:
            self._wanted = slots
        self._mailbox.use(slots)
        self._tell_of_trouble()

    def end_early(self, number: int, attempt: int) -> None:
        self._mailbox.end_early(number, attempt)

    def cancel(self, number: int, attempt: int) -> None:
        for worker in self._mailbox.cancel(number, attempt):
            _kill(worker)

    def stop(self) -> None:
        self._mailbox.stop()

    def runs(self) -> list[str]:
        """Those of Ray Train that have begun and have not ended."""
        with self._lock:
            return [slot.run for slot in self._slots if slot.run is not None]

    # The workers call

    def get_training(self) -> Training:
        return self._training

    def join(self, group: str, worker: WorkerProcess, reservation: str) -> bool:
        with self._lock:
            for slot in self._slots:
                if slot.group == group:
                    slot.reservation, slot.coming_up_since = reservation, None
                    slot.failed_starts, slot.trouble = 0, None
        self._tell_of_trouble()
        return self._mailbox.join(group, worker)

    def next_trial(self, group: str, rank: int, position: int) -> TrialTask | None:
        return self._mailbox.next_trial(group, rank, position)

    def begin(self, group: str) -> bool:
        return self._mailbox.begin(group)

    def post(self, group: str, event: EpochEnded | TrialEnded) -> bool:
        if self._growth is not None and isinstance(event, EpochEnded) and self._growth.is_due():
            self._mailbox.retire(group)
        return self._mailbox.post(group, event)

    def account(self, group: str, ended: TrialEnded) -> None:
        self._mailbox.account(group, ended)

    # The threads of the slots run

    def _keep_up(self, slot: _Slot) -> None:
        """One group after another, until the search stops."""
        wait = FIRST_WAIT
        while True:
            group = f"slot-{slot.index}-{secrets.token_hex(4)}"
            self._mailbox.expect(group)
            if self._mailbox.is_stopping:
                return
            error: Exception | None = None
            try:
                trainer = self._trainer(group)
                self._start(slot, group, trainer.train_run_context.run_id)
                trainer.fit()
            except Exception as raised:
                error = raised
            reason = "its workers left" if error is None else _explain(error)
            # Whatever else fails: a trial that the group held ends here.
            came_up = self._mailbox.group_ended(group, reason, has_died=error is not None and _has_died(error))
            with contextlib.suppress(Exception):  # what is not given back now is so before a later start
                self._clean_up(slot)
            if came_up:
                wait = FIRST_WAIT
                continue
            with self._lock:
                slot.trouble = reason
                slot.failed_starts += not _is_waiting_for_machines(error)
            self._tell_of_trouble()
            self._mailbox.wait_for_stop(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def _start(self, slot: _Slot, group: str, run: str) -> None:
        with self._lock:
            if self._is_some_lost and all(other.coming_up_since is None for other in self._slots):
                self._give_back_what_is_nobodys()
            slot.group, slot.run, slot.reservation, slot.coming_up_since = group, run, None, time.monotonic()

    def _clean_up(self, slot: _Slot) -> None:
        """Give back what Ray keeps for a group that has ended; if it never came up, later, as what is nobody's."""
        with self._lock:
            reservation, slot.group, slot.run = slot.reservation, "", None
            slot.reservation = slot.coming_up_since = None
            if reservation is None:
                self._is_some_lost = True
            else:
                give_back({reservation} & all_of_this_job())

    def _give_back_what_is_nobodys(self) -> None:
        give_back(all_of_this_job() - {slot.reservation for slot in self._slots if slot.reservation is not None})
        self._is_some_lost = False

    def _why_none_works(self) -> str | None:
        with self._lock:
            if all(slot.failed_starts >= MOST_FAILED_STARTS for slot in self._slots):
                return f"no worker comes up: {self._slots[0].trouble}"
        return None

    def _tell_of_trouble(self) -> None:
        """Pass on, once, that slots are waited for, or that all are up again."""
        with self._lock:
            troubles = [slot.trouble for slot in self._slots if slot.trouble is not None]
            up = sum(slot.reservation is not None for slot in self._slots)
            waiting = min(len(troubles), self._wanted - up)  # others were given up and are missed by nobody
            why = f"{waiting} of {self._wanted} slots wait: {last_line(troubles[0])}" if waiting > 0 else None
            if why == self._told:
                return
            self._told = why
        self._mailbox.tell(SlotsWaiting(why))

    # One more thread runs

    def _watch(self) -> None:
        """Tell what a shared cluster has, end groups that stand still where neither Ray nor the controller would
        notice, and look for room for more workers."""
        while not self._mailbox.is_stopping:
            with contextlib.suppress(Exception):  # Ray's head may be away
                if self._is_shared and self._machines != (found := machines()):
                    self._machines = found
                    self._mailbox.tell(MachinesChanged(found))
            self._mailbox.wait_for_stop(WATCH_SECONDS)
            with contextlib.suppress(Exception):  # tried again in a moment
                for worker in self._mailbox.give_up_deaf(BEGIN_SECONDS):
                    _kill(worker)
                self._tell_of_a_silent_wait()
                if self._growth is not None:
                    self._growth.look(self._mailbox.workers)
                with self._lock:
                    since = [slot.coming_up_since for slot in self._slots if slot.coming_up_since is not None]
                    if any(time.monotonic() - moment > START_SECONDS for moment in since):
                        self._give_back_what_is_nobodys()

    def _tell_of_a_silent_wait(self) -> None:
        """Where a group may come up with fewer workers Ray waits without end, and without a word."""
        with self._lock:
            for slot in self._slots:
                since = slot.coming_up_since
                if self._fewest_workers is not None and since is not None and time.monotonic() - since > SILENT_SECONDS:
                    slot.trouble = f"no machine has room for {self._fewest_workers} processes"
        self._tell_of_trouble()

    def _trainer(self, group: str) -> TorchTrainer:
        cpus, gpus = self._cluster.cpus_per_worker, self._cluster.gpus_per_worker
        fewest, most = self._fewest_workers, self._cluster.workers_per_trial
        # Set in the environment of the new process, because torch reads them when it is imported.
        threads = {name: str(cpus) for name in THREAD_VARIABLES}
        job = SlotJob(self._me, group, self._cluster.trials_per_process)
        return TorchTrainer(
            work,
            train_loop_config={"job": job},
            scaling_config=ScalingConfig(
                num_workers=most if fewest is None else (fewest, most),
                # Ray would end all processes of a group in the middle of an epoch; see `growth`.
                elastic_resize_monitor_interval_s=math.inf,
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


def _is_waiting_for_machines(error: Exception | None) -> bool:
    return isinstance(error, ControllerError) and isinstance(error.controller_failure, WorkerGroupStartupTimeoutError)


def _kill(worker: WorkerProcess) -> None:
    """SIGKILL, from a task on the worker's node: Ray's own way waits for a thread that a stopped process never runs."""
    where = NodeAffinitySchedulingStrategy(worker.node, soft=False)
    ray.remote(num_cpus=0)(_send_kill).options(scheduling_strategy=where, max_retries=0).remote(worker.pid)


def _send_kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
