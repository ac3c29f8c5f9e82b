"""Several threads and processes on one database: nothing is lost, nothing counted twice."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from sqlalchemy import update

from mixrec_automl.store.models import SearchRow
from mixrec_automl.store.records import Lease
from mixrec_automl.store.repository import Repository
from mixrec_automl.store.writer import SearchWriter
from tests.mixrec_automl.store.writing import started, writer_of


def _record_all(url: str, epochs: int) -> None:
    repository = Repository.open(url)
    writer = SearchWriter(repository._transactions, Lease("s", 1))  # two threads of one controller, say
    for epoch in range(1, epochs + 1):
        writer.record_epoch(0, 1, epoch, {"validation_mrr": 0.1})
    repository.close()


def _processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


def test_threads_open_an_empty_database_at_once(database_url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        for opened in [pool.submit(Repository.open, database_url) for _ in range(6)]:
            opened.result().close()


def test_two_processes_that_report_the_same_epochs_leave_one_of_each(database_url: str, repository: Repository) -> None:
    repository.create_search("s", {}, "")
    started(writer_of(repository, "s"), 0)
    with _processes() as pool:
        for future in [pool.submit(_record_all, database_url, 15) for _ in range(2)]:
            future.result()
    assert [seen.epoch for seen in repository.observations("s")] == list(range(1, 16))


def test_a_reader_is_not_blocked_by_an_open_write(database_url: str, repository: Repository) -> None:
    repository.create_search("s", {}, "")
    reader = Repository.open(database_url)
    with repository._transactions.writing() as session:
        session.execute(update(SearchRow).values(fingerprint="not yet written"))
        assert [found.fingerprint for found in reader.searches()] == [""]
    reader.close()
