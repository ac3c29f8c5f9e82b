"""What `search.settings` declares, as parameters of a space; `config.py` checks that every value is valid."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

from annotated_types import MultipleOf

from mixrec_automl.search_config import RangeConfig, SearchConfig, Values
from search_spaces.mixed import Categorical, Integer, Ordinal, Parameter, Real

SHARED = "all trials share what is loaded and computed once for it"
COMPUTED = "it is how a training is computed, and changes nothing of what is found"
THE_SAME_FOR_ALL: Mapping[str, str] = {
    "data": SHARED,
    "backbone": SHARED,
    "model.leading_bos": SHARED,
    "training.text_encoder": SHARED,
    "training.hard_share": SHARED,
    "model.kind": "a search places the adapters of mixrec",
    "training.epochs": "designs are compared after equally many epochs",
    "training.precision": COMPUTED,
    "training.activation_checkpointing": COMPUTED,
    "search": "it is how the search goes",
    "cluster": "it is where the trials run",
    "promotion": "it is about the winner alone",
    "baselines": "they are other models, tuned by `mixrec-automl baselines run --tune`",
}
"""Keys, and sections with all that is in them, and why they cannot differ between trials"""


def why_not(key: str) -> str | None:
    """Why the values of a dotted key are not to be searched for; None: they can be."""
    return next((why for one, why in THE_SAME_FOR_ALL.items() if key == one or key.startswith(f"{one}.")), None)


def parameters_of(settings: Mapping[str, Values | RangeConfig]) -> tuple[Parameter, ...]:
    """By key, in alphabetical order. Raises ValueError where a declaration means none."""
    return tuple(_parameter(key, settings[key]) for key in sorted(settings))


def _parameter(key: str, declared: Values | RangeConfig) -> Parameter:
    if isinstance(declared, RangeConfig):
        return _range(key, declared)
    if float in (types := _types(key)) and int not in types:  # as the configuration's own value is read
        declared = [float(value) if type(value) is int else value for value in declared]
    if len(set(declared)) < len(declared):
        raise ValueError(f"{key}: a value stands twice")
    numbers = [value for value in declared if isinstance(value, int | float) and not isinstance(value, bool)]
    is_ordered = len(numbers) == len(declared) and all(left < right for left, right in pairwise(numbers))
    return Ordinal(key, tuple(numbers)) if is_ordered else Categorical(key, tuple(declared))


def _range(key: str, declared: RangeConfig) -> Parameter:
    types = _types(key)
    if float in types:
        return Real(key, float(declared.low), float(declared.high), log=declared.scale == "log")
    if int not in types:
        raise ValueError(f"{key}: it is no number, so list its values")
    if declared.scale == "log" or not isinstance(declared.low, int) or not isinstance(declared.high, int):
        raise ValueError(f"{key}: a range of whole numbers has whole ends and a linear scale; or list its values")
    return Integer(key, declared.low, declared.high, _step(key))


def _types(key: str) -> tuple[Any, ...]:
    hint = _hint(key)
    hint = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return get_args(hint) or (hint,)


def _step(key: str) -> int:
    """Of which every valid value is a multiple."""
    limits = (limit for field in get_args(_hint(key))[1:] for limit in getattr(field, "metadata", ()))
    return next((cast(int, limit.multiple_of) for limit in limits if isinstance(limit, MultipleOf)), 1)


def _hint(key: str) -> Any:
    hint: Any = SearchConfig
    for part in key.split("."):
        hint = get_type_hints(hint, include_extras=True)[part]
    return hint
