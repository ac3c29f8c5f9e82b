"""From the winner of a search to what is trained on all users."""

from __future__ import annotations

from dataclasses import replace

from mixrec_automl import paths
from mixrec_automl.config import with_settings
from mixrec_automl.full_training import FullTraining, key_of
from mixrec_automl.search_config import SearchConfig
from mixrec_automl.store.records import Search, Trial
from trainers.data.sequence_data import SequenceData
from trainers.data.users import sample_users
from trainers.epochs import BEST
from trainers.errors import UserError
from trainers.start import Start


def plan_promotion(
    search: Search,
    config: SearchConfig,
    trial: Trial,
    data: SequenceData,
    workers: int | None,
    *,
    from_trial: bool = False,
) -> FullTraining:
    """Everything that decides on the training of `trial` on all users of `data`.

    Args:
        from_trial: begin with the weights of the trial's best epoch instead of fresh ones.

    Raises:
        UserError: the weights of the trial are not there, or cannot be begun with; too few workers for a backbone
            that is to be divided.
    """
    runs = paths.runs_folder() / search.name
    start: Start | None = None
    if from_trial:
        if config.model.collaborative_training == "frozen":
            raise UserError(
                "--from-trial: a frozen M_cf of the trial knows the trial's users alone; promote without the option"
            )
        users = sample_users(data.num_users, config.search.user_share, config.search.seed)
        start = Start(runs / "trials" / str(trial.number) / BEST, users)
    processes, fewest = workers or config.promotion.workers, config.promotion.fewest_workers
    had = config.cluster
    if had.shard_backbone and processes == 1:
        raise UserError("cluster.shard_backbone divides the backbone among processes: give --workers 2 or more")
    if fewest is not None:
        fewest = min(max(fewest, 1 + had.shard_backbone), processes)
    cores = had.slots * had.workers_per_trial * had.cpus_per_worker
    config = with_settings(config, dict(trial.design.settings), f"the design of trial {trial.number}")
    widened = replace(
        config,
        training=replace(config.training, epochs=config.promotion.epochs or config.training.epochs),
        search=replace(config.search, user_share=1.0),
        # The cores that ran the search's trials side by side now run one training; a GPU is shared with nobody.
        cluster=replace(
            had,
            slots=1,
            workers_per_trial=processes,
            cpus_per_worker=max(1, cores // processes),
            gpus_per_worker=1.0 if had.gpus_per_worker else 0.0,
        ),
    )
    stored = widened.as_dict()
    deciding = {name: stored[name] for name in ("data", "backbone", "model", "training")}
    identity = [search.fingerprint, data.fingerprint, str(trial.architecture), trial.seed, deciding]
    key = key_of([*identity, *([] if start is None else [start.fingerprint])])
    return FullTraining(
        what=f"trial-{trial.number}",
        design=trial.design,
        seed=trial.seed,
        config=widened,
        folder=runs / "promotions" / f"trial-{trial.number}-{key}",
        began_with="fresh weights" if start is None else f"the weights of trial {trial.number}",
        fewest_workers=fewest,
        start=start,
        task_number=trial.number,
    )
