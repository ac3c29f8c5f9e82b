"""A search by one call: `mixrec_automl.search`, and `load_search` for one that is recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixrec_automl.api.result import SearchResult
from trainers.errors import UserError

if TYPE_CHECKING:
    from mixrec_automl.search_config import SearchConfig
    from mixrec_automl.store.records import Search

MOST_NAMED = 5
"""Keys that an error message has room for"""


def search(
    config: str | Path | Mapping[str, Any] | SearchConfig,
    name: str | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
) -> SearchResult:
    """Search an architecture, here or on the Ray cluster that RAY_ADDRESS names, and show how it goes: what
    `mixrec-automl search` does. The call returns when the search has ended.

    Called again with the same name and configuration, it goes on with a search that was stopped, failed or lost its
    process, and returns a complete one at once. Ctrl-C stops the search cleanly: `state` of the result is then STOPPED.

    Args:
        config: a YAML file, the name of a preset, or the same as nested dictionaries or as a `SearchConfig`.
        name: to record it under; that of the file, or else of the data set, with date and time when absent.
        overrides: values by dotted key, as ``{"search.trials": 4}``; they go before those of `config`.

    Raises:
        UserError: configuration or name cannot be used, a search of this name has another configuration or is run by a
            living process, data or backbone cannot be had, the machines have too little room, or the call comes from
            another thread than the main one.
        KeyboardInterrupt: Ctrl-C before the first trial, or a second time; the same call goes on.
    """
    from mixrec_automl.cli.tables import make_console
    from mixrec_automl.interruption import check_main_thread
    from mixrec_automl.start import name_of, resume_search, start_search
    from mixrec_automl.store.records import SearchState
    from mixrec_automl.store.repository import Repository

    check_main_thread()
    wanted, stem = _configuration(config, overrides or {})
    chosen, console = name_of(name, stem), make_console()
    with closing(Repository.open()) as repository:
        stored = next((one for one in repository.searches() if one.name == chosen), None)
        if stored is None:
            start_search(wanted, chosen, repository, console)
        else:
            _check_same(stored, wanted)
            if stored.state is not SearchState.COMPLETED:
                resume_search(chosen, repository, console)
        return SearchResult.read(repository, chosen)


def load_search(name: str) -> SearchResult:
    """A recorded search as it is now, also one that runs. Raises UserError where there is none, or it is a study."""
    from mixrec_automl.store.repository import Repository

    with closing(Repository.open()) as repository:
        return SearchResult.read(repository, name)


def _configuration(
    config: str | Path | Mapping[str, Any] | SearchConfig, overrides: Mapping[str, Any]
) -> tuple[SearchConfig, str]:
    """And what a search that is given no name is called after."""
    from mixrec_automl.config import from_dict, load_config, with_overrides
    from mixrec_automl.search_config import SearchConfig

    if not isinstance(overrides, Mapping):
        raise UserError('give overrides as a dictionary, like {"search.trials": 4}')
    given = [f"{key}={json.dumps(value, default=_plain)}" for key, value in overrides.items()]  # JSON is YAML
    if isinstance(config, str | Path):
        return load_config(config, given), Path(config).stem
    if isinstance(config, Mapping):
        loaded = from_dict(config, "the configuration", given)
    elif isinstance(config, SearchConfig):
        loaded = with_overrides(config, given, "the configuration")
    else:
        raise UserError(f"a configuration is a file, a preset's name or a dictionary, not {type(config).__name__}")
    return loaded, loaded.data.name


def _plain(value: Any) -> Any:
    """What stands for a value that JSON lacks: numbers and arrays of NumPy, paths."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise UserError(f"overrides hold {value!r}, which no configuration could")


def _check_same(stored: Search, wanted: SearchConfig) -> None:
    """Raises UserError where `stored` is not the search that `wanted` describes."""
    from mixrec_automl.config import from_dict

    if "study" in stored.config:
        raise UserError(f"{stored.name!r} is a study: choose another name")
    had = from_dict(stored.config, f"search {stored.name}")
    # A setting that only one of them declares is a key that only one of them has.
    differing = sorted({key for key, _ in set(_leaves(had.as_dict())) ^ set(_leaves(wanted.as_dict()))})
    if differing:
        more = f" and {len(differing) - MOST_NAMED} more" if len(differing) > MOST_NAMED else ""
        raise UserError(
            f"search {stored.name!r} exists with other values of {', '.join(differing[:MOST_NAMED])}{more}: to go on "
            "with it give those of before, to begin a new one give another name"
        )


def _leaves(values: Mapping[str, Any], inside: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and value of all that nested dictionaries hold."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{inside}{key}.")
        else:
            yield f"{inside}{key}", repr(value)
