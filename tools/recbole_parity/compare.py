"""Our GRU4Rec, SASRec, BERT4Rec and FDSA against RecBole's, on the same split of the same users.

    python -m tools.recbole_parity.compare --data scientific-small

Both sides have the settings of our defaults and the same training seeds, stop at the plateau of their validation MRR,
and rank each user's test item among the whole catalogue, seen items included. Ours holds where the lower end of the
paired 95 % interval of the difference in MRR is above -5 % of RecBole's MRR; it does not where the upper end is below.
Between them the verdict is open, and more users or seeds may tell. RecBole is installed into an environment of its own
when it is first needed. A finished training is kept and not run again, unless its data, settings or code change; so the
same command goes on after an interruption.

Exit code: 0 where all models hold, 1 where one is open or does not hold, 2 for an error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from rich.console import Console

from mixrec_automl import paths
from tools.recbole_parity.sides import Comparison, ours, recbole, same_step
from tools.recbole_parity.verdict import Verdict, verdict, verdicts_table
from trainers.baselines.config import BaselinesConfig, SequentialConfig
from trainers.data.users import open_users
from trainers.epochs import NotFiniteError
from trainers.errors import UserError

MODELS = ("gru4rec", "sasrec", "bert4rec", "fdsa")
SHARE_SEED = 0
"""Draws the users"""
EXIT_ERROR, EXIT_INTERRUPTED = 2, 130


def compared(arguments: argparse.Namespace) -> list[Verdict]:
    """Train what is missing and compare.

    Raises:
        UserError: no such data, data split in time, or RecBole failed.
        NotFiniteError: a training of ours diverged.
    """
    data = open_users(paths.data_folder(arguments.data), arguments.user_share, SHARE_SEED)
    if data.held_out is not None:
        raise UserError(f"{arguments.data} is split in time, RecBole holds out each last item: prepare it without")
    folder = paths.home() / "recbole-parity" / f"{arguments.data}-{arguments.user_share:g}"
    environment = arguments.environment or paths.home() / "recbole"
    found = []
    for model in arguments.models:
        config = replace(cast(SequentialConfig, BaselinesConfig().of(model)), history=arguments.history)
        batch = arguments.recbole_batch or same_step(config, data)
        one = Comparison(model, config, data, batch, folder / model)
        seeds = range(1, arguments.seeds + 1)
        found.append(
            verdict(model, [ours(one, seed) for seed in seeds], [recbole(one, seed, environment) for seed in seeds])
        )
    return found


def main(words: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(words)
    try:
        found = compared(arguments)
    except (UserError, NotFiniteError) as error:
        print(error, file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with it", file=sys.stderr)
        return EXIT_INTERRUPTED
    users, seeds = found[0].difference.users, f"{arguments.seeds} seed{'s' if arguments.seeds > 1 else ''}"
    title = f"{arguments.data}: test items of {users:,} users, history {arguments.history}, {seeds}"
    Console(width=110).print(verdicts_table(found, title))
    return 0 if all(one.holds for one in found) else 1


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "python -m tools.recbole_parity.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--data", required=True, metavar="NAME", help="a prepared data set: `mixrec-automl data list`")
    made.add_argument("--user-share", type=share, default=1.0, metavar="SHARE", help="of its users (default: 1)")
    made.add_argument("--seeds", type=positive, default=3, help="training seeds of each model (default: 3)")
    made.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="(default: all four)")
    made.add_argument(
        "--history", type=positive, default=SequentialConfig().history, help="newest items read (default: %(default)s)"
    )
    made.add_argument(
        "--recbole-batch",
        type=positive,
        metavar="ROWS",
        help="of a step of RecBole's, whose own default is 2048 (default: as many targets as our steps have)",
    )
    made.add_argument(
        "--environment", type=Path, metavar="FOLDER", help="of RecBole's packages (default: $MIXREC_HOME/recbole)"
    )
    return made


def share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return value


if __name__ == "__main__":
    sys.exit(main())
