"""PR as Ray Tune's searcher: the contract of a searcher, and a run in Tune's own loop."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray import tune
from ray.tune.search import Searcher

from mixrec_automl.integrations.ray_tune import PRSearch
from tests.mixrec_automl.integrations.tuned import SPACE, measure


def search(**options: object) -> PRSearch:
    found = PRSearch(seed=1, initial_trials=6, **options)  # type: ignore[arg-type]
    assert found.set_search_properties("score", "max", SPACE)
    return found


def test_it_finds_the_optimum_of_a_mixed_space() -> None:
    searcher = search()
    for number in range(25):
        config = searcher.suggest(str(number))
        assert isinstance(config, dict)
        assert set(config) == {"model", "rate", "is_on"}
        searcher.on_trial_complete(str(number), {"score": measure({**config, "fixed": 3})})
    best = max((one.value or -9 for one in searcher._trials.values()), default=None)
    assert best == pytest.approx(1.0, abs=0.03)


def test_what_was_tried_is_saved_and_restored(tmp_path: Path) -> None:
    searcher, other = search(), search()
    for number in range(9):
        config = searcher.suggest(str(number))
        if number % 3 == 1:
            searcher.on_trial_complete(str(number), error=True)
        elif number % 3 == 2:
            assert isinstance(config, dict)
            searcher.on_trial_complete(str(number), {"score": measure({**config, "fixed": 3})})
    searcher.save(str(tmp_path / "state"))
    other.restore(str(tmp_path / "state"))
    assert other.suggest("next") == searcher.suggest("next")


def test_the_least_is_sought_where_the_mode_is_min() -> None:
    searcher = PRSearch("loss", "min", seed=0, initial_trials=4)
    assert searcher.set_search_properties(None, None, {"x": tune.randint(0, 8)})
    for number in range(7):
        config = searcher.suggest(str(number))
        assert isinstance(config, dict)
        searcher.on_trial_complete(str(number), {"loss": abs(config["x"] - 5)})
    assert min(-(one.value or 0) for one in searcher._trials.values()) == 0


def test_the_first_trials_are_of_one_sobol_sequence_and_a_loss_that_is_no_number_is_a_failure() -> None:
    searcher = PRSearch("loss", "min", seed=1, initial_trials=8)
    searcher.set_search_properties(None, None, {"x": tune.uniform(0, 1)})
    octants = []
    for number in range(11):
        config = searcher.suggest(str(number))
        assert isinstance(config, dict)
        octants.append(int(8 * config["x"]))
        searcher.on_trial_complete(str(number), {"loss": float("nan") if number == 2 else config["x"]})
    assert sorted(octants[:8]) == list(range(8))
    assert searcher._trials["2"].value is None


def test_an_exhausted_space_ends_the_search() -> None:
    searcher = PRSearch("loss", "min", initial_trials=2)
    searcher.set_search_properties(None, None, {"x": tune.choice(["a", "b", "c"])})
    tried = [searcher.suggest(str(number)) for number in range(4)]
    assert tried[3] == Searcher.FINISHED
    assert {one["x"] for one in tried[:3] if isinstance(one, dict)} == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"x": tune.grid_search([1, 2])}, "no tune.grid_search"),
        ({"x": tune.quniform(0, 1, 0.1)}, "x: PRSearch proposes tune.choice"),
        ({"x": tune.randn(0, 1)}, "x: PRSearch proposes tune.choice"),
        ({"x": tune.choice([(32, 32), (64, 64)])}, r"x: PRSearch chooses among texts, .*, not \(32, 32\)"),
        ({"x": tune.choice([[32], [64]])}, "x: PRSearch chooses among texts"),
    ],
)
def test_what_it_cannot_propose_is_named(space: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        PRSearch("a", "max").set_search_properties(None, None, space)


def test_without_a_space_or_a_metric_it_says_so() -> None:
    with pytest.raises(ValueError, match="needs a param_space"):
        PRSearch().suggest("0")
    assert not PRSearch("a", "max").set_search_properties(None, None, {"x": 3})


@pytest.mark.end_to_end
def test_tune_runs_a_search_with_it(tmp_path: Path) -> None:
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        tuner = tune.Tuner(
            measure,
            param_space={**SPACE, "fixed": 3},
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                num_samples=8,
                max_concurrent_trials=2,
                search_alg=PRSearch(initial_trials=4),
            ),
            run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
        )
        results = tuner.fit()
    finally:
        ray.shutdown()
    assert len(results) == 8
    assert not results.errors
    assert results.get_best_result().config["fixed"] == 3
