"""PR as the searcher of a Ray Tune run."""

from typing import Any

from ray import tune

from mixrec_automl.integrations.ray_tune import PRSearch


def train(config: dict[str, Any]) -> dict[str, float]:
    return {"mrr": config["width"] / 128 - abs(config["rate"] - 1e-2) - abs(config["layers"] - 4) / 10}


space = {"width": tune.choice([32, 64, 128]), "layers": tune.randint(1, 7), "rate": tune.loguniform(1e-4, 1e-1)}
searched = tune.TuneConfig(metric="mrr", mode="max", num_samples=12, search_alg=PRSearch(initial_trials=5))
best = tune.Tuner(train, param_space=space, tune_config=searched).fit().get_best_result()
print(best.metrics["mrr"] if best.metrics else None, best.config)
