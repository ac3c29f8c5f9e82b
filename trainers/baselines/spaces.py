"""What is tuned of each baseline: spaces of one size, 64 settings, so that equal budgets are equal chances.

Each holds the default. The ranges are those around which the models' authors and RecBole's own searches tune.
"""

from __future__ import annotations

from collections.abc import Mapping

from search_spaces.settings import Choice, SettingsSpace
from trainers.baselines.config import BaselineName, BaselinesConfig

_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
_DROPOUTS = (0.1, 0.3, 0.5, 0.7)
_DEFAULTS = BaselinesConfig()


def _space(name: BaselineName, **values: tuple[float | int | bool, ...]) -> SettingsSpace:
    defaults = _DEFAULTS.of(name)
    return SettingsSpace(tuple(Choice(key, given, getattr(defaults, key)) for key, given in values.items()))


SPACES: Mapping[BaselineName, SettingsSpace] = {
    "gru4rec": _space("gru4rec", learning_rate=_RATES, dropout=_DROPOUTS, width=(64, 128), weight_decay=(0.0, 0.1)),
    "sasrec": _space("sasrec", learning_rate=_RATES, dropout=_DROPOUTS, width=(64, 128), weight_decay=(0.0, 0.1)),
    "bert4rec": _space(
        "bert4rec", learning_rate=_RATES, dropout=(0.1, 0.2, 0.3, 0.5), width=(64, 128), mask_share=(0.2, 0.4)
    ),
    "fdsa": _space("fdsa", learning_rate=_RATES, dropout=_DROPOUTS, width=(64, 128), weight_decay=(0.0, 0.1)),
    "p5": _space("p5", learning_rate=_RATES, dropout=(0.1, 0.2, 0.3, 0.5), width=(64, 128), weight_decay=(0.0, 0.1)),
    "unisrec": _space(
        "unisrec", learning_rate=_RATES, dropout=_DROPOUTS, transductive=(False, True), weight_decay=(0.0, 0.1)
    ),
    # Fine-tuning a language model takes smaller steps than training from random weights.
    "recformer": _space(
        "recformer",
        learning_rate=(3e-5, 1e-4, 3e-4, 1e-3),
        dropout=(0.0, 0.1, 0.2, 0.3),
        temperature=(0.05, 0.1),
        weight_decay=(0.0, 0.1),
    ),
    "mf": _space("mf", learning_rate=_RATES, dim=(32, 64, 128, 256), weight_decay=(0.0, 0.01, 0.1, 1.0)),
    "ncf": _space("ncf", learning_rate=_RATES, dim=(32, 64, 128, 256), weight_decay=(0.0, 0.01, 0.1, 1.0)),
}
