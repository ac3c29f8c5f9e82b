"""PR as the generation strategy of an Ax experiment."""

from ax.api.client import Client
from ax.api.configs import RangeParameterConfig

from mixrec_automl.search.ax_proposer import generation_strategy

client = Client()
client.configure_experiment(
    [RangeParameterConfig(name=f"bit_{i}", parameter_type="int", bounds=(0, 1)) for i in range(8)]
)
client.configure_optimization("mrr")
client.set_generation_strategy(generation_strategy())
for _ in range(15):
    for number, bits in client.get_next_trials(max_trials=1).items():
        client.complete_trial(number, {"mrr": sum((-1) ** i * int(bits[f"bit_{i}"]) for i in range(8))})
print(client.get_best_parameterization()[:2])
