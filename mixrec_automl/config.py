"""Reads a `SearchConfig` from YAML and `--set` overrides; whatever is wrong becomes one line that names the key."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, cast, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from mixrec_automl.presets import find_preset
from mixrec_automl.search_config import RangeConfig, SearchConfig, without_settings
from mixrec_automl.searched_settings import parameters_of, why_not
from trainers.errors import UserError, in_one_line

__all__ = ["ConfigError", "SearchConfig", "from_dict", "load_config", "with_overrides", "with_settings"]

OVERRIDE = "--set"
LONGEST_SHOWN = 60
LARGEST_NUMBER = 2**63 - 1
SETTINGS = "search.settings"
DEEPEST = 5
"""More parts than a dotted key has"""
RANGE = tuple(field.name for field in fields(RangeConfig))


class ConfigError(UserError):
    """The configuration cannot be used; the message names file or override, key, value and what is allowed."""


class _Loader(yaml.SafeLoader):
    """YAML in which `1e-3` is a number, as in YAML 1.2, and in which a key may stand only once."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in seen:
                raise ConfigError(f"line {key_node.start_mark.line + 1}: the key {key!r} stands twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


@dataclass(frozen=True)
class _Origin:
    """Tells where a key was written, so that a message can say so."""

    file: str
    overridden: frozenset[str] = frozenset()

    def of(self, key: str) -> str:
        for override in self.overridden:
            if key == override or key.startswith(f"{override}.") or override.startswith(f"{key}."):
                return OVERRIDE
        return self.file


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> SearchConfig:
    """Read `path`, a file or the name of a preset, then apply `overrides` (`section.key=value`, the value read as
    YAML) in their order.

    Raises:
        ConfigError: the file cannot be read, or a key or value is not valid.
    """
    preset = None if Path(path).is_file() else find_preset(str(path))
    try:
        text = (preset or Path(path)).read_text(encoding="utf-8")
    except (OSError, UnicodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot read the configuration {path}: {reason}") from error
    raw = _parse(text, str(path))
    return _overridden({} if raw is None else raw, overrides, str(path))


def with_overrides(config: SearchConfig, overrides: Sequence[str], where: str) -> SearchConfig:
    """`config` with `overrides` as `load_config` reads them; `where` names its origin. Raises ConfigError."""
    return _overridden(config.as_dict(), overrides, where)


def from_dict(stored: Mapping[str, Any], where: str, overrides: Sequence[str] = ()) -> SearchConfig:
    """Inverse of `SearchConfig.as_dict`, with `overrides` as `load_config` reads them; `where` names the place it was
    kept in. Raises ConfigError."""
    return _overridden(stored, overrides, where)


def with_settings(config: SearchConfig, settings: Mapping[str, Any], where: str) -> SearchConfig:
    """`config` with the values of `settings`, by dotted key; `where` names who asks. Raises ConfigError."""
    raw: Any = config.as_dict()
    for key, value in settings.items():
        raw = _replaced(raw, key.split("."), value)
    return _build(raw, _Origin(where))


def _overridden(raw: Any, overrides: Sequence[str], where: str) -> SearchConfig:
    keys = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{OVERRIDE} {override}: write it as section.key=value, e.g. {OVERRIDE} search.trials=4")
        path = key.strip().split(".")
        raw = _replaced(_without_dotted(raw, path), path, _parse(value, f"{OVERRIDE} {override}"))
        keys.append(key.strip())
    return _build(raw, _Origin(where, frozenset(keys)))


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        raise ConfigError(f"{where}:{line} not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        # PyYAML lets the errors of `int`, `date` and the like through, for instance for the date 2024-13-01.
        raise ConfigError(f"{where}: not valid YAML: {in_one_line(error)}") from error


def _without_dotted(raw: Any, path: Sequence[str]) -> Any:
    """`raw` without what it declares of a setting as one dotted key, where `path` is about to declare it in parts."""
    section = raw.get("search") if isinstance(raw, Mapping) else None
    settings = section.get("settings") if isinstance(section, Mapping) else None
    if not isinstance(settings, Mapping):
        return raw
    rest = {key: declared for key, declared in settings.items() if f"{SETTINGS}.{key}" != ".".join(path)}
    return _replaced(raw, SETTINGS.split("."), rest)


def _replaced(raw: Any, key: list[str], value: Any) -> Any:
    """`raw` with `value` at the dotted `key`; new dictionaries on the way, as YAML aliases share theirs."""
    if not key:
        return value
    inner = raw if isinstance(raw, Mapping) else {}
    return {**inner, key[0]: _replaced(inner.get(key[0]), key[1:], value)}


def _build(raw: Any, origin: _Origin) -> SearchConfig:
    plain = _checked_section(SearchConfig, raw, (), origin)
    try:
        # Strict JSON rules: true is no integer, "3" is no number, 3 is a float.
        config = _ADAPTER.validate_json(json.dumps(plain, allow_nan=False), strict=True)
    except ValidationError as error:
        raise ConfigError(_explain(error, origin)) from error
    _check_settings(config, origin)
    return config


def _check_settings(config: SearchConfig, origin: _Origin) -> None:
    """Every declared value, and both ends of every range, make a valid configuration of the others as they are."""
    base = without_settings(config)
    for key, declared in config.search.settings.items():
        where = f"{origin.of(f'{SETTINGS}.{key}')}: {SETTINGS}"
        reason = why_not(key)
        if reason is not None:
            raise ConfigError(f"{where}: {key} is the same for all trials: {reason}")
        values = [declared.low, declared.high] if isinstance(declared, RangeConfig) else declared
        for value in values:
            with_settings(base, {key: value}, where)
        try:
            parameters_of({key: declared})
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error


def _checked_section(section: type, raw: Any, path: tuple[str, ...], origin: _Origin) -> dict[str, Any]:
    """Only known keys, and single values where single values belong; `None` stands for an empty section."""
    name = ".".join(path)
    raw = {} if raw is None else raw
    if not isinstance(raw, Mapping):
        what = f"section {name!r}" if path else "the configuration"
        raise ConfigError(f"{origin.of(name)}: {what} holds {_show(raw)}, but must hold keys: {_keys(section)}")
    kinds = get_type_hints(section)
    plain: dict[str, Any] = {
        key: _checked_section(cast(type, kind), None, (*path, key), origin)
        for key, kind in kinds.items()
        if is_dataclass(kind)
    }
    for key, value in raw.items():
        inner = (*path, str(key))
        dotted = ".".join(inner)
        if key not in kinds:
            raise ConfigError(
                f"{origin.of(dotted)}: unknown key {_cut(dotted)!a}; the nearest valid one is {_nearest(inner)!r}"
            )
        if is_dataclass(kinds[key]):
            plain[key] = _checked_section(cast(type, kinds[key]), value, inner, origin)
        elif get_origin(kinds[key]) is dict:
            declared = list(_declared(value, (), origin))
            plain[key] = dict(declared)
            if len(plain[key]) < len(declared):
                twice = next(one for at, (one, _) in enumerate(declared) if one in dict(declared[:at]))
                raise ConfigError(f"{origin.of(dotted)}: {dotted} declares {twice} twice")
        else:
            plain[key] = _checked_value(value, dotted, origin)
    return plain


def _checked_value(value: Any, dotted: str, origin: _Origin) -> str | float | None:
    wrong = None
    if isinstance(value, int | float) and not abs(value) <= LARGEST_NUMBER:
        wrong = "a number of ordinary size"
    elif isinstance(value, str) and not value.isprintable():
        wrong = "printable text"
    elif value is not None and not isinstance(value, str | int | float):
        wrong = "a single value"
    if wrong is not None:
        raise ConfigError(f"{origin.of(dotted)}: {dotted} is {_show(value)}, but must be {wrong}")
    return cast("str | float | None", value)


def _declared(raw: Any, path: tuple[str, ...], origin: _Origin) -> Iterator[tuple[str, Any]]:
    """What `search.settings` declares, by dotted key: it may be nested, as `--set search.settings.model.bottleneck=...`
    makes it."""
    key = ".".join(path)
    where = ".".join([SETTINGS, *path])
    if isinstance(raw, list) and path:
        yield _known(key, where, origin), [_checked_value(value, where, origin) for value in raw]
    elif isinstance(raw, Mapping) and path and raw.keys() & set(RANGE):
        if set(raw) - set(RANGE):
            raise ConfigError(f"{origin.of(where)}: {where} holds more than {', '.join(RANGE)}")
        range_of = {end: _checked_value(value, f"{where}.{end}", origin) for end, value in raw.items()}
        yield _known(key, where, origin), range_of
    elif isinstance(raw, Mapping) and len(path) < DEEPEST:  # an alias of YAML may hold itself
        for inner, value in raw.items():
            yield from _declared(value, (*path, *str(inner).split(".")), origin)
    elif raw is not None or path:
        raise ConfigError(
            f"{origin.of(where)}: {where} is {_show(raw)}, but must be a list of values, or hold {', '.join(RANGE)}"
        )


def _known(key: str, where: str, origin: _Origin) -> str:
    if tuple(key.split(".")) not in _leaves(SearchConfig):
        raise ConfigError(
            f"{origin.of(where)}: unknown key {_cut(key)!a} in {SETTINGS}; the nearest valid one is "
            f"{_nearest(tuple(key.split('.')))!r}"
        )
    return key


def _explain(error: ValidationError, origin: _Origin) -> str:
    """The first problem that pydantic found, in one line."""
    errors = error.errors(include_url=False)
    # What is declared of a setting is a list that has been looked at already, or it must be a range.
    first = next((one for one in errors if RangeConfig.__name__ in one["loc"]), errors[0])
    dotted = ".".join(str(part) for part in first["loc"] if part != RangeConfig.__name__)
    if first["type"] == "missing":
        return f"{origin.file}: {dotted} is missing: give it in the file or with {OVERRIDE} {dotted}=..."
    allowed = first["msg"].removeprefix("Value error, ").replace("Input should", "must").replace("Input must", "must")
    if not dotted or isinstance(first["input"], Mapping):  # a rule about several keys
        return ": ".join(part for part in (origin.of(dotted), dotted, allowed) if part)
    return f"{origin.of(dotted)}: {dotted} is {_show(first['input'])}, but {allowed}"


def _leaves(section: type, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, kind in get_type_hints(section).items():
        yield (*path, name)
        if is_dataclass(kind):
            yield from _leaves(cast(type, kind), (*path, name))


def _nearest(path: tuple[str, ...]) -> str:
    """The valid key most like `path`: same section and similar name first, then any."""
    known = {".".join(leaf): leaf for leaf in _leaves(SearchConfig)}
    siblings = {leaf[-1]: dotted for dotted, leaf in known.items() if leaf[:-1] == path[:-1]}
    close = difflib.get_close_matches(_cut(path[-1]), siblings, n=1, cutoff=0.6)
    if close:
        return siblings[close[0]]
    exact = [dotted for dotted, leaf in known.items() if leaf[-1] == path[-1]]
    return exact[0] if exact else difflib.get_close_matches(_cut(".".join(path)), known, n=1, cutoff=0.0)[0]


def _keys(section: Any) -> str:
    return ", ".join(field.name for field in fields(section))


def _show(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | float):
        return _cut(ascii(value))
    if isinstance(value, int):
        return str(value) if value.bit_length() < 200 else "an integer of more than 60 digits"
    kinds: dict[type, str] = {list: "a list", dict: "a section"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."


_ADAPTER = TypeAdapter(SearchConfig)
