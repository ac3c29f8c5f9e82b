"""PR as Optuna's sampler, in Optuna's own loop."""

from __future__ import annotations

import optuna
import pytest

from mixrec_automl.integrations.optuna_sampler import PRSampler

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
optuna.logging.set_verbosity(optuna.logging.WARNING)


def objective(trial: optuna.Trial) -> float:
    """Least at bits 1010, mode b, rate 1e-2, size 70: 0."""
    bits = [trial.suggest_int(f"bit_{place}", 0, 1) for place in range(4)]
    mode = trial.suggest_categorical("mode", ["a", "b", "c"])
    rate = trial.suggest_float("rate", 1e-4, 1.0, log=True)
    size = trial.suggest_int("size", 10, 1000, step=10)
    share = trial.suggest_float("share", 0.0, 1.0, step=0.25)
    wrong = sum(bit != wanted for bit, wanted in zip(bits, (1, 0, 1, 0), strict=True))
    off = 10 * abs(size - 70) / 990
    return wrong + (mode != "b") + abs(optuna_log10(rate) + 2) + off + abs(share - 0.5)


def optuna_log10(value: float) -> float:
    import math

    return math.log10(value)


def run(sampler: optuna.samplers.BaseSampler, trials: int = 35, direction: str = "minimize") -> optuna.Study:
    study = optuna.create_study(direction=direction, sampler=sampler)
    sign = 1 if direction == "minimize" else -1
    study.optimize(lambda trial: sign * objective(trial), n_trials=trials)
    return study


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_it_finds_what_random_search_does_not(direction: str) -> None:
    found, chance = run(PRSampler(seed=1), direction=direction), run(optuna.samplers.RandomSampler(seed=1))
    assert abs(found.best_value) < 1.2 < chance.best_value


def test_a_seed_gives_the_same_study_twice_and_pruned_trials_do_not_come_back() -> None:
    def failing(trial: optuna.Trial) -> float:
        bits = [trial.suggest_int(f"bit_{place}", 0, 1) for place in range(4)]
        if sum(bits) == 2:
            raise optuna.TrialPruned
        return float(sum(bits))

    both = []
    for _ in range(2):
        study = optuna.create_study(direction="maximize", sampler=PRSampler(seed=3, initial_trials=4))
        study.optimize(failing, n_trials=16)
        both.append([tuple(trial.params.values()) for trial in study.trials])
    assert both[0] == both[1]
    assert len(set(both[0][1:])) == 15, "the first is drawn at random, before Optuna knows the space"


def test_constraints_hold_in_an_exhausted_space_too() -> None:
    study = optuna.create_study(
        sampler=PRSampler(seed=0, initial_trials=2, constraints=[lambda setting: setting["x"] != setting["y"]])
    )
    study.enqueue_trial({"x": 0, "y": 1})
    study.optimize(lambda trial: trial.suggest_int("x", 0, 1) + trial.suggest_int("y", 0, 1), n_trials=5)
    assert study.trials[1].params == {"x": 1, "y": 0}
    assert all(trial.params["x"] != trial.params["y"] for trial in study.trials)
    assert len(study.trials) == 5


def test_none_is_a_choice_like_others() -> None:
    def objective(trial: optuna.Trial) -> float:
        kind = trial.suggest_categorical("kind", [None, "x", "y"])
        return {None: 0, "x": 2, "y": 1}[kind] + trial.suggest_int("b", 0, 1) + trial.suggest_int("c", 0, 1)

    study = optuna.create_study(direction="maximize", sampler=PRSampler(seed=0, initial_trials=4))
    study.optimize(objective, n_trials=12)
    assert study.best_value == 4
    assert len({tuple(trial.params.values()) for trial in study.trials[1:]}) == 11, "none twice, of twelve"


@pytest.mark.parametrize("failure", [float("-inf"), float("inf")])
def test_an_infinite_value_is_a_failure(failure: float) -> None:
    study = optuna.create_study(direction="maximize", sampler=PRSampler(seed=0, initial_trials=4))
    study.optimize(lambda trial: failure if (x := trial.suggest_int("x", 0, 20)) % 3 == 1 else -abs(x - 9), n_trials=14)
    assert {trial.params["x"] for trial in study.trials} >= {8, 9}


def test_the_first_trials_are_of_one_sobol_sequence() -> None:
    study = optuna.create_study(sampler=PRSampler(seed=1, initial_trials=9))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=9)
    octants = [
        int(8 * trial.params["x"]) for trial in study.trials[1:]
    ]  # Optuna draws the first, which has its first point
    assert len(set(octants)) >= 7


def test_several_objectives_are_refused() -> None:
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=PRSampler(seed=0))
    with pytest.raises(ValueError, match="multi-objective"):
        study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0), n_trials=1)


def test_parameters_that_only_some_trials_have_are_drawn_at_random() -> None:
    def branching(trial: optuna.Trial) -> float:
        kind = trial.suggest_categorical("kind", ["a", "b"])
        return trial.suggest_float(f"of_{kind}", 0.0, 1.0) + (kind == "a")

    study = optuna.create_study(direction="maximize", sampler=PRSampler(seed=0, initial_trials=3))
    study.optimize(branching, n_trials=12)
    assert study.best_params["kind"] == "a"


@pytest.mark.parametrize(("high", "step", "best"), [(0.3, 0.1, 0.3), (0.7, 0.1, 0.6), (2.1, 0.3, 0.9)])
def test_a_grid_without_exact_steps_is_searched(high: float, step: float, best: float) -> None:
    """3 x 0.1 is not 0.3 to the last bit."""
    study = optuna.create_study(sampler=PRSampler(seed=0, initial_trials=3))
    study.enqueue_trial({"x": best})
    study.optimize(lambda trial: abs(trial.suggest_float("x", 0.0, high, step=step) - best), n_trials=7)
    tried = [trial.params["x"] for trial in study.trials]
    assert len({round(x / step) for x in tried}) == min(len(tried), round(high / step) + 1), "none twice in vain"
    assert all(0 <= x <= high for x in tried)
