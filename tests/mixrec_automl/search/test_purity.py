"""`propose(trials, seed)` is a function of its two arguments, and does nothing but answer."""

from __future__ import annotations

import copy
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from mixrec_automl.search import ax_proposer, batch
from mixrec_automl.search.ax_proposer import AxProposer
from mixrec_automl.store.records import Trial
from search_spaces.damoe import DamoeSpace
from tests.mixrec_automl.search.trials import PAPER, SMALL, recorded

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")

CASES = {
    "Sobol": (SMALL, recorded(SMALL, 4)),
    "exact PR": (SMALL, recorded(SMALL, 12)),
    "sampled PR": (PAPER, recorded(PAPER, 12)),
    "replicates": (PAPER, recorded(PAPER, 9, replicates=3)),
}


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> tuple[DamoeSpace, list[Trial]]:
    space, trials = request.param
    return space, list(trials)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def answer(space: DamoeSpace, trials: list[Trial], seed: int = 7) -> str:
    proposal = AxProposer(space).propose(trials, seed=seed)
    return f"{proposal.architecture} {proposal.origin}"


def answers() -> list[str]:
    """Of all cases; what another process prints."""
    return [answer(space, trials) for space, trials in CASES.values()]


def test_the_same_question_has_the_same_answer(case: tuple[DamoeSpace, list[Trial]]) -> None:
    space, trials = case
    first = answer(space, trials)
    assert answer(space, trials[:5], seed=8), "another question in between"
    assert answer(space, trials) == first
    proposer = AxProposer(space)
    assert [proposer.propose(trials, seed=7).architecture for _ in range(2)] == [
        proposer.propose(copy.deepcopy(trials), seed=7).architecture
    ] * 2


def test_the_arguments_stay_as_they_are(case: tuple[DamoeSpace, list[Trial]]) -> None:
    space, trials = case
    before, members = copy.deepcopy(trials), [id(trial) for trial in trials]
    answer(space, trials)
    assert trials == before
    assert [id(trial) for trial in trials] == members


def test_the_order_of_the_trials_says_nothing(case: tuple[DamoeSpace, list[Trial]]) -> None:
    space, trials = case
    expected = answer(space, trials)
    for seed in range(3):
        assert answer(space, random.Random(seed).sample(trials, len(trials))) == expected
    assert answer(space, trials[::-1]) == expected


def generators() -> tuple[object, ...]:
    """The states of all global random number generators."""
    _name, keys, *rest = np.random.get_state()
    return random.getstate(), keys.tobytes(), rest, bytes(torch.get_rng_state().tolist())


def reseed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def test_global_random_numbers_are_neither_read_nor_drawn(case: tuple[DamoeSpace, list[Trial]]) -> None:
    space, trials = case
    found = set()
    for seed in (1, 2):
        reseed(seed)
        before = generators()
        found.add(answer(space, trials))
        assert generators() == before
    assert len(found) == 1


def test_what_a_fit_draws_from_torch_comes_from_the_seed_of_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a library might draw behind the answer."""
    drawn = []
    propose_point = batch.propose_point

    def drawing(*arguments: Any, **options: Any) -> Any:
        drawn.append(float(torch.rand(())))
        return propose_point(*arguments, **options)

    monkeypatch.setattr(batch, "propose_point", drawing)
    for global_seed, seed in ((1, 7), (2, 7), (2, 8)):
        reseed(global_seed)
        before = generators()
        answer(SMALL, recorded(SMALL, 12), seed)
        assert generators() == before
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_neither_matters_nor_changes(
    case: tuple[DamoeSpace, list[Trial]], monkeypatch: pytest.MonkeyPatch
) -> None:
    space, trials = case
    used = set()
    replay = ax_proposer.replay

    def watched(*arguments: Any) -> Any:
        used.add(torch.get_num_threads())
        return replay(*arguments)

    monkeypatch.setattr(ax_proposer, "replay", watched)
    found = set()
    for number in (1, 2, 5):
        torch.set_num_threads(number)
        found.add(answer(space, trials))
        assert torch.get_num_threads() == number
    assert (len(found), used) == (1, {1})


def test_threads_are_given_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise LookupError("no experiment today")

    monkeypatch.setattr(ax_proposer, "replay", broken)
    before = torch.get_num_threads()
    with pytest.raises(LookupError):
        answer(SMALL, recorded(SMALL, 6))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("hash_seed", "threads"), [("1", "1"), ("2", "2")])
def test_another_process_gives_the_same_answers(hash_seed: str, threads: str) -> None:
    """Strings hash differently there, so that a set or dictionary that is walked in that order would show."""
    code = "from tests.mixrec_automl.search.test_purity import answers; print(*answers(), sep='\\n')"
    printed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": threads},
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.splitlines() == answers()
