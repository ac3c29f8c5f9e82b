"""`mixrec_automl.update`: the update of the command line, with its outcome as a value instead of in print."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixrec_automl.full_run import Outcome


def update(model: str, data: str, *, epochs: int | None = None, workers: int = 1) -> Outcome:
    """Train a registered model on with newer data, and register it as the next version of the same model.

    Args:
        model: a registered name (its champion), `name@alias` or `name/version`.
        data: name of a prepared data set: the model's own events and those that have come since.
        epochs: a third of those of the model's last training where it is None.
        workers: data-parallel processes.

    Returns:
        Test results, the registered version, and whether it is champion, which it is unless it is surely worse.

    Raises:
        UserError: no such model or data, data that it was trained on, a frozen M_cf, or this is not the main thread.
        FullTrainingError: the training raised.
        KeyboardInterrupt: Ctrl-C stopped it; the same call goes on with it.
    """
    from mixrec_automl import paths
    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.interruption import check_main_thread
    from mixrec_automl.model_update import plan_update, run_update
    from mixrec_automl.registry import Registry

    check_main_thread()
    console, registry = make_console(), Registry(paths.tracking_uri())
    with console.status("the model and its new items"):
        planned = plan_update(registry, model, data, epochs=epochs, workers=workers)
    outcome = run_update(planned, registry, console)
    if outcome is None:
        raise KeyboardInterrupt(f"the update of {model} is stopped; the same call goes on with it")
    return outcome
