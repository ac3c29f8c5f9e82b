"""Prints `docs/configuration.md`: every key of a search's file, from the docstrings of the configuration classes.

`make docs` writes the page; a test fails where it is out of date.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from mixrec_automl.search_config import SearchConfig

INTRODUCTION = """\
# Configuration

<!-- Written by `make docs` from trainers/config.py, trainers/baselines/config.py and mixrec_automl/search_config.py:
change those, not this page. -->

A search is described by one YAML file, such as `configs/ml-100k.yaml`. Each key can also be given on the command line:
`mixrec-automl search configs/ml-100k.yaml --set search.trials=4 --set training.learning_rate=2e-3`. A key that does not
exist is an error that names the nearest valid one. The resolved configuration is stored with the search. Rulings are
those of `docs/architecture.md`, which also says which section of the paper is where.
"""

BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "multiple_of": "a multiple of"}
NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "empty"}


def reference() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *_section(SearchConfig, ())])


def _section(config: type, path: tuple[str, ...]) -> Iterator[str]:
    """A heading, the class's text and a table of its own keys; then the sections below it."""
    hints = get_type_hints(config, include_extras=True)
    keys = {field.name: field for field in fields(config)}
    descriptions = _descriptions(config)
    inner = {
        name: hint for name, hint in hints.items() if name in keys and isinstance(hint, type) and is_dataclass(hint)
    }
    if path and len(inner) < len(keys):
        yield f"## `{'.'.join(path)}`\n\n{_one_line(inspect.getdoc(config) or '')}\n"
        yield "| key | value | default | meaning |\n|---|---|---|---|"
        for name, field in keys.items():
            if name not in inner:
                kind, default, meaning = _kind(hints[name]), _default(field), descriptions[name] or ""
                yield f"| `{name}` | {kind} | {default} | {_one_line(meaning).replace('|', chr(92) + '|')} |"
        yield ""
    for name, hint in inner.items():
        yield from _section(hint, (*path, name))


def _descriptions(config: type) -> dict[str, str | None]:
    """Of every key, its own text or, for one that is inherited, that of the class that has it."""
    found: dict[str, str | None] = {}
    for one in reversed(config.__mro__):
        for name, info in getattr(one, "__pydantic_fields__", {}).items():
            if info.description or name not in found:
                found[name] = info.description
    return found


def _kind(hint: Any) -> str:
    """A type in words, with its bounds."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [
            f"{word} {getattr(rule, bound):,}"
            for rule in _rules(arguments[1:])
            for bound, word in BOUNDS.items()
            if getattr(rule, bound, None) is not None
        ]
        return ", ".join([_kind(arguments[0]), *bounds])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is dict:
        return f"keys, each with {_kind(arguments[1])}"
    if origin is list:
        return "a list"
    if is_dataclass(hint):
        return ", ".join(f"`{field.name}`" for field in fields(hint))
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(argument) for argument in arguments)
    return NAMES[hint]


def _rules(annotations: tuple[Any, ...]) -> Iterator[Any]:
    """Pydantic keeps the bounds of `Field(ge=...)` in a list of its own."""
    for annotation in annotations:
        yield from annotation.metadata


def _default(field: Field[Any]) -> str:
    default = getattr(field.default, "default", field.default)  # pydantic may wrap it
    if default is None or field.default_factory is not MISSING:
        return "empty"
    if default is MISSING:
        return "must be given"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    print(reference(), end="")
