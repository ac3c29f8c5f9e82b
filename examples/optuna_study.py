"""PR as the sampler of an Optuna study: `pip install optuna` first."""

import optuna

from mixrec_automl.integrations.optuna_sampler import PRSampler


def objective(trial: optuna.Trial) -> float:
    bits = [trial.suggest_int(f"bit_{place}", 0, 1) for place in range(8)]
    rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
    return sum(bits[::2]) - sum(bits[1::2]) - abs(rate - 1e-2)


study = optuna.create_study(direction="maximize", sampler=PRSampler(seed=0))
study.optimize(objective, n_trials=25)
print(study.best_value, study.best_params)
