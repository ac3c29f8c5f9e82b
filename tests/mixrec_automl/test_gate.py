"""Who becomes champion: better by the lower bound on the same users, and nobody unseen without force."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mixrec_automl.full_training import Evaluation, evaluate_package
from mixrec_automl.gate import Decision, challenge, check_comparable_data, first_champion, succeed
from tests.trainers.tiny_package import NUM_USERS, make_package
from trainers.data.sequence_data import SequenceData
from trainers.data.store_format import open_prepared
from trainers.errors import UserError
from trainers.metrics import summarise
from trainers.package import Package, read_package
from trainers.ranks import UserRanks
from trainers.statistics import PairedDifference, bootstrap_intervals, compare


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gate")


@pytest.fixture(scope="module")
def good(root: Path) -> Package:
    return read_package(make_package(root / "good", epochs=20).package)


@pytest.fixture(scope="module")
def bad(root: Path) -> Package:
    """Hardly trained, on the same data."""
    return read_package(make_package(root / "bad", epochs=1, learning_rate=1e-5).package)


@pytest.fixture(scope="module")
def data(root: Path, good: Package) -> SequenceData:
    found = open_prepared(root / "good" / "data")
    assert found.fingerprint == good.data_fingerprint
    return found


def ranks(values: list[float]) -> UserRanks:
    """Ranks without ties, whole numbers."""
    users = len(values)
    nothing = np.zeros(users, dtype=np.int64)
    return UserRanks(
        user=np.array([f"u{user}" for user in range(users)]),
        target=nothing.astype(np.int32),
        rank=np.array(values, dtype=np.float64),
        ties=nothing + 1,
        history_length=nothing,
        popularity=nothing,
        repeat=nothing.astype(np.bool_),
        cold=nothing.astype(np.bool_),
        split="test",
        exclude_seen=False,
        fingerprint="data",
    )


def evaluation(model: list[float], popularity: list[float]) -> Evaluation:
    ours, floor = ranks(model), ranks(popularity)
    return Evaluation(
        False, ours, summarise(ours), {"popularity": summarise(floor)}, compare(ours, floor, seed=0)["mrr"]
    )


@pytest.mark.parametrize(
    ("model", "popularity", "moves"),
    [
        ([1] * 20, [5] * 20, True),
        ([5] * 20, [1] * 20, False),
        ([3] * 20, [3] * 20, False),
        ([1, *[4] * 19], [9, *[4] * 19], False),  # better in the mean, but by one user of twenty
        ([*[1] * 15, *[9] * 5], [*[9] * 15, *[1] * 5], True),
    ],
)
def test_a_first_champion_must_beat_popularity(model: list[float], popularity: list[float], moves: bool) -> None:
    decision = first_champion(evaluation(model, popularity))
    ((low, high),) = bootstrap_intervals((1 / np.array(model) - 1 / np.array(popularity))[:, None], seed=0)
    assert decision.moves is moves is bool(low > 0)
    assert decision.difference is not None
    assert (decision.difference.low, decision.difference.high) == pytest.approx((low, high), abs=1e-12)
    surely_worse = decision.difference.high < 0
    verdict = "better" if moves else "worse" if surely_worse else "not surely better"
    assert decision.reason.startswith(f"{verdict} than popularity: ")


def mrr_minus(left: UserRanks, right: UserRanks) -> float:
    return float(np.mean(1 / left.rank) - np.mean(1 / right.rank))


def test_a_better_challenger_moves_the_alias(good: Package, bad: Package, data: SequenceData) -> None:
    ours, _ = evaluate_package(good, data)
    decision = challenge(ours, lambda: bad, "mixrec-shop version 1", data, force=False)
    assert decision.moves
    assert decision.difference is not None
    assert decision.difference.users == NUM_USERS
    theirs, _ = evaluate_package(bad, data)
    assert decision.difference.mean == pytest.approx(mrr_minus(ours.ranks, theirs.ranks), abs=1e-9)
    assert decision.difference.low > 0
    assert decision.reason.startswith("better than mixrec-shop version 1: test MRR +0.")


@pytest.mark.parametrize("force", [False, True])
def test_a_worse_challenger_or_an_equal_one_does_not(
    good: Package, bad: Package, data: SequenceData, force: bool
) -> None:
    """Not by force either, which is for other data."""
    worse, _ = evaluate_package(bad, data)
    decision = challenge(worse, lambda: good, "rival", data, force=force)
    assert not decision.moves
    assert decision.difference is not None
    assert decision.difference.mean < 0
    equal, _ = evaluate_package(good, data)
    decision = challenge(equal, lambda: good, "rival", data, force=force)
    assert not decision.moves
    assert decision.difference is not None
    assert (decision.difference.low, decision.difference.high) == (0, 0)
    assert "not surely better than rival: test MRR +0.0000 on the same 40 users" in decision.reason


@pytest.mark.parametrize("force", [False, True])
def test_a_champion_of_other_data_is_only_replaced_by_force(
    good: Package, bad: Package, data: SequenceData, force: bool
) -> None:
    ours, _ = evaluate_package(good, data)
    decision = challenge(ours, lambda: replace(bad, data_fingerprint="other"), "rival", data, force=force)
    assert decision == Decision(force, "rival", None)
    expected = "forced past rival" if force else "not compared with rival"
    assert decision.reason == f"{expected}, which was trained on other data"


def test_a_champion_that_cannot_be_read_is_only_replaced_by_force(good: Package, data: SequenceData) -> None:
    ours, _ = evaluate_package(good, data)

    def gone() -> Package:
        raise UserError("rival: no package there")

    with pytest.raises(UserError, match="rival: no package there; or give --force to replace rival unseen"):
        challenge(ours, gone, "rival", data, force=False)
    decision = challenge(ours, gone, "rival", data, force=True)
    assert decision.moves
    assert decision.reason == "forced past rival, which cannot be read"


def test_an_update_moves_the_alias_unless_it_is_worse(good: Package, bad: Package, data: SequenceData) -> None:
    ours, _ = evaluate_package(good, data)
    better = succeed(ours, bad, "m version 1 as it is", data)
    assert better.moves
    assert better.reason.startswith("better than m version 1 as it is: test MRR +0.")
    equal = succeed(ours, good, "m version 1 as it is", data)
    assert equal.moves
    assert equal.reason.startswith("not surely worse than m version 1 as it is: test MRR +0.0000")
    theirs, _ = evaluate_package(bad, data)
    worse = succeed(theirs, good, "m version 1 as it is", data)
    assert not worse.moves
    assert worse.reason.startswith("worse than m version 1 as it is: test MRR -0.")


def test_other_data_are_refused_before_training() -> None:
    check_comparable_data("m version 1", "a" * 64, "a" * 64, force=False)
    check_comparable_data("m version 1", "a" * 64, "b" * 64, force=True)
    with pytest.raises(UserError, match=r"m version 1 was trained on data aaaaaaaaaaaa, .* give --force") as caught:
        check_comparable_data("m version 1", "a" * 64, "b" * 64, force=False)
    assert "\n" not in str(caught.value)


def test_the_reason_names_difference_interval_and_users() -> None:
    found = PairedDifference(mean=0.0123, low=-0.001, high=0.0256, permutation_p=0.1, t_test_p=0.1, users=1234)
    assert Decision(False, "popularity", found).reason == (
        "not surely better than popularity: test MRR +0.0123 on the same 1,234 users, 95 % interval [-0.0010, +0.0256]"
    )
