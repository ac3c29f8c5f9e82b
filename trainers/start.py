"""A training that begins with the weights of another one, of the same design on some of its users."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trainers import checkpoint
from trainers.errors import UserError
from trainers.model.mixrec import MixRec
from trainers.model.tables import tables_of_users


@dataclass(frozen=True)
class Start:
    """Where to begin."""

    weights: Path
    """Of the other training's best epoch"""
    users: NDArray[np.int64]
    """Of each of its users, the index among those trained on now; users that it did not have begin anew"""

    @property
    def fingerprint(self) -> str:
        """Raises UserError where the weights are not there."""
        try:
            with self.weights.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()[:16]
        except OSError as error:
            raise UserError(
                f"no weights to begin with at {self.weights}: {error.strerror}; begin with fresh ones instead"
            ) from error

    @torch.no_grad()
    def give_to(self, model: MixRec) -> None:
        """Set every trained weight of `model`, and of M_cf's user tables the rows of `users`.

        Raises:
            UserError: the file is no whole checkpoint of such a model.
        """
        weights, _ = checkpoint.read(self.weights)
        own, users = model.state_dict(), tables_of_users(model)
        places = torch.from_numpy(self.users)
        for name, value in own.items():
            kept = value[places.to(value.device)] if name in users else value
            found = weights.get(name)
            if found is None or found.shape != kept.shape:
                raise UserError(
                    f"{self.weights} is of another model: it has no {name} of this one's shape; begin with fresh ones"
                )
            if kept is value:
                value.copy_(found)
            else:
                value[places.to(value.device)] = found.to(value)
