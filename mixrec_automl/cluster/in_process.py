"""Runs trials in threads of this process: the executor of tests and of debugging."""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Mapping

from mixrec_automl.cluster.executor import EpochEnded, Event, TrialCompleted, TrialEnded, TrialFailed, TrialStopped
from mixrec_automl.cluster.training import Training, TrialTask, run_training


class InProcessExecutor:
    """An `Executor` without processes. `close` asks trials to end and waits for the end of their epochs."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def submit(self, trial: TrialTask) -> None:
        thread = threading.Thread(target=self._run, args=(trial,), name=f"trial-{trial.number}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def next_event(self, timeout: float) -> Event | None:
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return None

    def stop(self) -> None:
        self._stopping.set()

    def close(self) -> None:
        self.stop()
        for thread in self._threads:
            thread.join()

    def _run(self, trial: TrialTask) -> None:
        def on_epoch(epoch: int, metrics: Mapping[str, float]) -> bool:
            self._events.put(EpochEnded(trial.number, trial.attempt, epoch, metrics))
            return not self._stopping.is_set()

        ended: TrialEnded
        try:
            score = run_training(self._training, trial, on_epoch)
        except Exception:
            ended = TrialFailed(trial.number, trial.attempt, traceback.format_exc())
        else:
            if score is None:
                ended = TrialStopped(trial.number, trial.attempt)
            else:
                ended = TrialCompleted(trial.number, trial.attempt, score.mrr, score.standard_error)
        self._events.put(ended)
