"""Runs trials in threads of this process: the executor of tests and of debugging."""

from __future__ import annotations

import queue
import threading

from mixrec_automl.cluster.attempt import run_attempt
from mixrec_automl.cluster.executor import EpochEnded, Event, TrialBegan, TrialLost, TrialStopped
from mixrec_automl.cluster.training import Training, TrialTask


class InProcessExecutor:
    """An `Executor` without processes. `close` asks trials to end and waits for the end of their epochs.

    A thread cannot be killed, so an attempt that is cancelled is left alone: what it still reports is dropped.
    """

    def __init__(self, training: Training) -> None:
        self._training = training
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads: dict[tuple[int, int], threading.Thread] = {}
        """Of each (number, attempt) that has not ended"""
        self._ending: set[tuple[int, int]] = set()
        """Those of them that are told to stop at their next epoch"""

    def submit(self, trial: TrialTask) -> None:
        if self._stopping.is_set():
            self._events.put(TrialStopped(trial.number, trial.attempt))
            return
        thread = threading.Thread(target=self._run, args=(trial,), name=f"trial-{trial.number}", daemon=True)
        with self._lock:
            self._threads[trial.number, trial.attempt] = thread
        thread.start()

    def next_event(self, timeout: float) -> Event | None:
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return None

    def use(self, slots: int) -> None:
        """Nothing: a thread waits for no slot and keeps none."""

    def end_early(self, number: int, attempt: int) -> None:
        with self._lock:
            if (number, attempt) in self._threads:
                self._ending.add((number, attempt))

    def cancel(self, number: int, attempt: int) -> None:
        with self._lock:
            if self._threads.pop((number, attempt), None) is not None:
                self._events.put(TrialLost(number, attempt, "it was given up"))

    def stop(self) -> None:
        self._stopping.set()

    def close(self) -> None:
        self.stop()
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join()

    def _run(self, trial: TrialTask) -> None:
        key = (trial.number, trial.attempt)

        def report(event: EpochEnded) -> bool:
            with self._lock:
                if key not in self._threads:
                    return False
                self._events.put(event)
                return not (self._stopping.is_set() or key in self._ending)

        self._events.put(TrialBegan(trial.number, trial.attempt))
        ended = run_attempt(self._training, trial, report)
        with self._lock:
            self._ending.discard(key)
            if self._threads.pop(key, None) is not None:
                self._events.put(ended)
