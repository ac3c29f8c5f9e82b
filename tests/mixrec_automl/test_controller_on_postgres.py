"""A search whose database is a server that crashes or stands still, and comes back."""

from __future__ import annotations

import threading
import time

import pytest

from mixrec_automl import patience
from mixrec_automl.interruption import StopRequest
from mixrec_automl.store import postgres as bounds
from mixrec_automl.store.errors import DatabaseUnavailableError
from mixrec_automl.store.records import SearchState, Trial, TrialState
from tests.mixrec_automl.bench import Bench
from tests.mixrec_automl.cluster.trainings import Counting
from tests.postgres import PostgresServer

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "CONNECT_SECONDS", 2)  # the least that libpq takes
    monkeypatch.setattr(bounds, "SILENT_SECONDS", 0.5)


def take_away(
    bench: Bench, server: PostgresServer, state: str, seconds: float, *, stops: bool = False
) -> list[threading.Timer]:
    """Once the third training has begun; returns, once it has happened, what will bring it back.

    With `stops` the search is told to stop a second later.
    """
    returns: list[threading.Timer] = []

    def act(trial: Trial) -> None:
        if trial.number == 2 and trial.state is TrialState.RUNNING and not returns:
            (server.kill if state == "killed" else server.freeze)()
            returns.append(threading.Timer(seconds, server.restore))
            returns[0].start()
            if stops:
                threading.Timer(1.0, bench.stop.set).start()

    bench.watching.on_trial = act
    return returns


@pytest.mark.parametrize("state", ["killed", "frozen"])
def test_a_search_outlasts_an_outage_of_its_server(bench: Bench, postgres: PostgresServer, state: str) -> None:
    returns = take_away(bench, postgres, state, 4.0)
    search = bench.run(Counting(epochs=4, seconds=0.1), trials=6)
    returns[0].join()
    assert search.state is SearchState.COMPLETED
    assert bench.states == [TrialState.COMPLETED] * 6
    assert {trial.attempt for trial in bench.trials} == {1}, "trials went on meanwhile"
    epochs = [(it.trial, it.epoch) for it in bench.repository.observations("s")]
    assert epochs == [(number, epoch) for number in range(6) for epoch in (1, 2, 3, 4)]
    assert any("does not answer" in notice for notice in bench.watching.notices if notice)
    assert bench.watching.notices[-1] is None


@pytest.mark.parametrize("state", ["killed", "frozen"])
def test_a_stop_does_not_wait_for_a_server_that_is_away(
    bench: Bench, postgres: PostgresServer, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_WHEN_STOPPING", 0.3)
    returns = take_away(bench, postgres, state, 60.0, stops=True)
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailableError):
        bench.run(Counting(epochs=4, seconds=0.1))
    assert time.monotonic() - began < 20
    returns[0].cancel()
    postgres.restore()
    assert bench.repository.search("s").state is SearchState.RUNNING, "as if it had died"
    bench.stop = StopRequest()
    bench.watching.on_trial = lambda _: None
    assert bench.run(Counting(epochs=4)).state is SearchState.COMPLETED
    assert bench.states == [TrialState.COMPLETED] * 6
