"""Takes the lease of a search, and keeps it while the search runs."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from mixrec_automl.holder import Holder, is_dead, this_process
from mixrec_automl.interruption import StopRequest
from mixrec_automl.store.errors import DatabaseUnavailableError, LeaseHeldError, LeaseLostError
from mixrec_automl.store.repository import Repository
from mixrec_automl.store.writer import SearchWriter
from trainers.errors import UserError
from trainers.secrecy import without_secrets

LEASE_SECONDS = 15.0
"""How long a search is left alone after its controller was last heard of."""
RENEW_SECONDS = 3.0
"""How often a controller lets itself be heard, and learns that somebody asked it to stop."""
LOOK_SECONDS = 0.25

_log = logging.getLogger(__name__)


def acquire(
    repository: Repository,
    search: str,
    *,
    holder: Holder | None = None,
    cluster: str | None = None,
    waiting: Callable[[str], None] = lambda _: None,
) -> SearchWriter:
    """Become the controller of `search`, after one that ended or died.

    A holder that is known to be dead is not waited for. Another one is watched until its lease runs out, or until it
    shows that it is alive.

    Args:
        cluster: as of `Repository.take_lease`.
        waiting: called once, with the holder's name, where there is one to wait for.

    Raises:
        UserError: the search has a controller that is alive, or there is no such search.
    """
    me = holder or this_process()
    first: LeaseHeldError | None = None
    dead: str | None = None
    while True:
        try:
            return repository.take_lease(search, me.name, me.process, LEASE_SECONDS, dead=dead, cluster=cluster)
        except LeaseHeldError as held:
            if is_dead(held.process):
                dead = held.process
                continue
            if first is None:
                first = held
                waiting(held.holder)
            elif (held.process, held.until) != (first.process, first.until):
                raise UserError(f"{held}: `mixrec-automl stop {search}` stops it there") from held
            time.sleep(LOOK_SECONDS)


@contextmanager
def heartbeat(writer: SearchWriter, stop: StopRequest) -> Iterator[None]:
    """Renew the lease in a thread of its own, so that nothing that the controller waits for loses it.

    Sets `stop` once somebody has asked the search to stop, or another process has taken it over; the next write of
    the controller then says which.
    """
    done = Event()

    def run() -> None:
        while not done.wait(RENEW_SECONDS):
            try:
                if writer.renew(LEASE_SECONDS):
                    stop.set()
            except LeaseLostError:
                stop.set()
                return
            except DatabaseUnavailableError as error:
                _log.info("the lease could not be renewed: %s", without_secrets(str(error)))
            except Exception:  # a thread that ended here would never hear of a stop again
                _log.error("the lease could not be renewed: %s", without_secrets(traceback.format_exc()))

    thread = Thread(target=run, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(RENEW_SECONDS)
