"""Several threads and processes on one database: nothing is lost, nothing counted twice."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from sqlalchemy import update

from mixrec_automl.store.errors import WrongStateError
from mixrec_automl.store.models import SearchRow
from mixrec_automl.store.records import Origin
from mixrec_automl.store.repository import Repository
from search_spaces.architecture import Architecture

DESIGN = Architecture.parse("000")


def _add_many(url: str, count: int) -> list[int]:
    repository = Repository.open(url)
    try:
        return [repository.add_trial("s", DESIGN, 0, Origin.SOBOL, 0.0).number for _ in range(count)]
    finally:
        repository.close()


def _record_all(url: str, epochs: int) -> None:
    repository = Repository.open(url)
    for epoch in range(1, epochs + 1):
        repository.record_epoch("s", 0, 1, epoch, {"validation_mrr": 0.1})
    repository.close()


def _processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


def test_two_processes_open_an_empty_database_at_once(database_url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        for opened in [pool.submit(Repository.open, database_url) for _ in range(6)]:
            opened.result().close()


def test_two_processes_never_get_the_same_trial_number(database_url: str, repository: Repository) -> None:
    repository.create_search("s", {}, "")
    with _processes() as pool:
        futures = [pool.submit(_add_many, database_url, 20) for _ in range(2)]
        numbers = [number for future in futures for number in future.result()]
    assert sorted(numbers) == list(range(40)) == [trial.number for trial in repository.trials("s")]


def test_two_processes_that_report_the_same_epochs_leave_one_of_each(database_url: str, repository: Repository) -> None:
    repository.create_search("s", {}, "")
    repository.add_trial("s", DESIGN, 0, Origin.SOBOL, 0.0)
    repository.start_trial("s", 0)
    with _processes() as pool:
        for future in [pool.submit(_record_all, database_url, 15) for _ in range(2)]:
            future.result()
    assert [seen.epoch for seen in repository.observations("s")] == list(range(1, 16))


def test_only_one_of_many_threads_starts_a_trial(repository: Repository) -> None:
    repository.create_search("s", {}, "")
    repository.add_trial("s", DESIGN, 0, Origin.SOBOL, 0.0)

    def start(_: int) -> bool:
        try:
            repository.start_trial("s", 0)
        except WrongStateError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(start, range(8))) == 1
    assert repository.trials("s")[0].attempt == 1


def test_a_reader_is_not_blocked_by_an_open_write(database_url: str, repository: Repository) -> None:
    repository.create_search("s", {}, "")
    reader = Repository.open(database_url)
    with repository._writing() as session:
        session.execute(update(SearchRow).values(fingerprint="not yet written"))
        assert [found.fingerprint for found in reader.searches()] == [""]
    reader.close()
