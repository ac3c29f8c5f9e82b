"""What a training tells its caller, epoch by epoch and at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainers.metrics import RankingMetrics
from trainers.ranks import Setting


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch."""

    epoch: int
    """From 1"""
    epochs: int
    losses: Mapping[str, float]
    """Mean over the epoch's terms, not weighted: seq, align, contrastive, collaborative; `total` is weighted"""
    validation: RankingMetrics
    seconds: float
    """Wall time of training, evaluation and keeping the best weights"""
    tokens: int
    """Tokens that all workers trained on in this epoch"""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EpochReport:
        """Inverse of `dataclasses.asdict`."""
        return cls(**{**values, "validation": RankingMetrics(**values["validation"])})

    def as_metrics(self) -> dict[str, float]:
        """Flat names, as the database and MLflow hold them."""
        return {
            **{f"loss_{name}": value for name, value in self.losses.items()},
            **self.validation.named(Setting("validation")),
            "seconds": self.seconds,
            "tokens": float(self.tokens),
        }


@dataclass(frozen=True)
class FinetuneResult:
    """A finished training: its best epoch is what counts (ruling 9)."""

    best_epoch: int
    mrr: float
    """Validation MRR of the best epoch"""
    standard_error: float
    """Of `mrr` over users"""
    epochs_run: int
    has_ended: bool
    """False where `on_epoch` stopped it before its end"""
