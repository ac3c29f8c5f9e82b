"""Ax as a pure function of the recorded trials: all-serial design, then Sobol, then probabilistic reparameterization.

At each call the Ax experiment is rebuilt from the trials, so that no second state needs reconciling after a restart.
What counts is designs, not trials: replicates of a design are one trial to Ax, whatever their number.
This is the only file that imports Ax; importing it takes seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
import torch
from ax.adapter.registry import Generators
from ax.core.arm import Arm
from ax.core.data import Data, DataRow
from ax.core.experiment import Experiment
from ax.core.metric import Metric
from ax.core.objective import Objective
from ax.core.optimization_config import OptimizationConfig
from ax.core.parameter import ParameterType, RangeParameter
from ax.core.search_space import SearchSpace
from ax.core.trial_status import TrialStatus
from ax.generation_strategy.generation_node import GenerationNode
from ax.generation_strategy.generation_strategy import GenerationStrategy
from ax.generation_strategy.generator_spec import GeneratorSpec
from ax.generation_strategy.transition_criterion import MinTrials
from ax.generators.torch.botorch_modular.acquisition import Acquisition
from ax.generators.torch.botorch_modular.surrogate import SurrogateSpec
from ax.generators.torch.botorch_modular.utils import ModelConfig
from botorch.utils.sampling import manual_seed
from torch import Tensor

from mixrec_automl.search.acquisition import LogNoisyExpectedImprovement
from mixrec_automl.search.batch import Beliefs, at_most
from mixrec_automl.search.design_space import DesignSpace
from mixrec_automl.search.designs import Made, Seen, next_proposal
from mixrec_automl.search.encoding import Encoding, bits_of, of_bits
from mixrec_automl.search.noise import training_seed_variance
from mixrec_automl.search.prior_mean import PriorScores
from mixrec_automl.search.probabilistic_reparameterization import Ascent
from mixrec_automl.search.proposer import Proposal
from mixrec_automl.search.relaxation import Relaxation
from mixrec_automl.search.surrogate import ArchitectureSurrogate, DesignSurrogate
from mixrec_automl.search.transfer import Transfer
from mixrec_automl.search.trial_surrogate import LEAST_COMPLETED, best_first
from mixrec_automl.store.records import Origin, Trial, TrialState, by_design, scores
from search_spaces.architecture import Architecture
from search_spaces.damoe import DamoeSpace
from search_spaces.design import Design

METRIC = "mrr"

for handler in logging.getLogger("ax").handlers:
    handler.setLevel(logging.WARNING)


class ProbabilisticReparameterization(Acquisition):  # type: ignore[misc]
    """Ax acquisition over binary spaces whose optimiser is PR.

    `options` holds ``seed`` and ``ascent``. The search over architectures also gives ``seen`` (designs to avoid,
    [any, n]: Ax itself does not keep failed ones from coming back), ``pending``, the design of each trial that waits or
    runs, [any, n], and ``noise_variance``; without that no design comes twice.
    """

    def optimize(self, n: int, search_space_digest: Any, **_: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Designs [n, bits], their acquisition values [n] and weights [n]; fewer than n where no more are left.

        Each is a new one, or one of those observed where a replicate of that promises to teach more; and each is chosen
        beside those before it, as `Beliefs.points`.

        Raises:
            SpaceExhausted: as `propose_point`.
            ValueError: the space is not {0,1}^n.
        """
        if any(tuple(bounds) != (0, 1) for bounds in search_space_digest.bounds):
            raise ValueError("probabilistic reparameterization proposes designs of bits here")
        observed = torch.unique(self.X_observed, dim=0)
        pending = self.options.get("pending", observed[:0] if self.X_pending is None else self.X_pending)
        beliefs = Beliefs(
            Relaxation.of_bits(len(search_space_digest.bounds)),
            self.surrogate.model,
            observed,
            self.options.get("noise_variance"),
        )
        seen = self.options.get("seen", torch.cat([observed, pending]))
        found = at_most(n, beliefs.points(seen, pending, self.options["ascent"], self.options["seed"]))
        designs, values = zip(*found, strict=True)
        return torch.stack(designs), torch.tensor(values), torch.ones(len(found))


@dataclass(frozen=True)
class AxProposer:
    """Proposes designs of `space`; see `Proposer`."""

    space: DamoeSpace
    initial_trials: int = 5
    """Designs, in any state, before the surrogate takes over: the all-serial one and quasi-random ones (ruling 11)."""
    ascent: Ascent = field(default_factory=Ascent)
    transfer: Transfer = field(default_factory=Transfer)
    """Its designs follow the fixed one, in place of quasi-random ones; its prior is the surrogate's mean while it
    passes (`prior_gate.py`)"""

    def __post_init__(self) -> None:
        if self.initial_trials < 1:
            raise ValueError(f"search.initial_trials must be at least 1, got {self.initial_trials}")

    @property
    def fixed_design(self) -> Design:
        return Design(self.space.fixed_design)

    def ranking(self, trials: Sequence[Trial]) -> list[Design]:
        """See `best_first`."""
        return best_first(trials, self._encoding, self.transfer.prior_for(trials, self._encoding))

    def propose(self, trials: Sequence[Trial], *, seed: int) -> Proposal:
        """See `Proposer.propose`. One call takes well under a second; the first one of a process a little more."""
        make = partial(self._generate, trials, seed=seed)
        return next_proposal(DesignSpace(self.space), self.initial_trials, trials, make, self.transfer.first)

    @property
    def _encoding(self) -> Encoding:
        return of_bits(self.space.num_bits)

    def _generate(self, trials: Sequence[Trial], seen: Seen, seed: int) -> Made:
        noise_variance = training_seed_variance(trials)
        experiment = replay(self.space, trials, noise_variance)
        pending = sorted((trial.design for trial in trials if not trial.state.is_final), key=str)
        position = sum(replicates[0].origin is Origin.SOBOL for replicates in seen.values())
        own_seed = int(np.random.SeedSequence([seed, len(seen)]).generate_state(1)[0])
        options = {
            "seen": bits_of(sorted(seen, key=str)),
            "ascent": self.ascent,
            "seed": own_seed,
            "noise_variance": noise_variance,
            "pending": bits_of(pending).reshape(-1, self.space.num_bits),
        }
        prior = self.transfer.prior_for(trials, self._encoding)
        while True:
            sobol = {"seed": seed, "init_position": position}
            strategy = _strategy(self.initial_trials, sobol, options, ArchitectureSurrogate, prior)
            with manual_seed(own_seed):
                [[run]] = strategy.gen(experiment, n=1)
            parameters = run.arms[0].parameters
            design = Design(Architecture.from_bits([int(parameters[name]) for name in sorted(parameters)]))
            origin = Origin(strategy.current_node_name)
            # Ax's Sobol sampler may come back to the design of a failed trial; then the next point is taken.
            if origin is not Origin.SOBOL:
                return design, origin, strategy.adapter.generator.surrogate.model.covar_module.name
            if design not in seen:
                return design, origin, ""
            position += 1


def generation_strategy(initial_trials: int = 5, seed: int = 0) -> GenerationStrategy:
    """PR for an Ax experiment of your own, whose parameters are all integers from 0 to 1.

        client = Client()
        client.configure_experiment([RangeParameterConfig(f"bit_{i}", (0, 1), parameter_type="int") for i in range(12)])
        client.configure_optimization("mrr")
        client.set_generation_strategy(generation_strategy())
        client.get_next_trials(max_trials=3)  # each chosen beside those before it, and beside what runs

    Args:
        initial_trials: quasi-random ones, before the surrogate takes over.
        seed: of everything random.
    """
    return _strategy(initial_trials, {"seed": seed}, {"seed": seed, "ascent": Ascent()}, DesignSurrogate)


def _strategy(
    initial_trials: int,
    sobol: dict[str, Any],
    options: dict[str, Any],
    surrogate_class: type[DesignSurrogate],
    prior: PriorScores | None = None,
) -> GenerationStrategy:
    model_based = Origin.PROBABILISTIC_REPARAMETERIZATION.value
    # Replayed trials belong to no node: the criteria count all trials of the experiment, or Sobol would never end.
    enough = MinTrials(initial_trials, transition_to=model_based, use_all_trials_in_exp=True)
    fittable = MinTrials(
        LEAST_COMPLETED,
        transition_to=model_based,
        only_in_statuses=[TrialStatus.COMPLETED],
        use_all_trials_in_exp=True,
    )
    quasi_random = GenerationNode(
        name=Origin.SOBOL.value,
        generator_specs=[GeneratorSpec(Generators.SOBOL, generator_kwargs=sobol)],
        transition_criteria=[enough, fittable],
    )
    surrogate = ModelConfig(
        botorch_model_class=surrogate_class, input_transform_classes=None, model_options={"prior": prior}
    )
    optimised = GenerationNode(
        name=model_based,
        generator_specs=[
            GeneratorSpec(
                Generators.BOTORCH_MODULAR,
                generator_kwargs={
                    "surrogate_spec": SurrogateSpec(model_configs=[surrogate]),
                    "acquisition_class": ProbabilisticReparameterization,
                    "acquisition_options": options,
                    "botorch_acqf_class": LogNoisyExpectedImprovement,
                    "transforms": [],  # bits and outcomes go to the surrogate as they are
                },
            )
        ],
        fallback_specs={},  # an error is an error: by default Ax would go on with Sobol
    )
    return GenerationStrategy(name="Sobol, then PR", nodes=[quasi_random, optimised])


def replay(space: DamoeSpace, trials: Sequence[Trial], noise_variance: float) -> Experiment:
    """The Ax experiment that the recorded trials amount to: one trial a design, in the order of their numbers.

    - One replicate or more completed: completed, with the mean of their MRR and its standard error. It is not pending
      as well where others are QUEUED or RUNNING: the acquisition integrates over the values of observed and pending
      designs alike, so that a design in both would be counted twice, and those others will only tell its value better.
    - Else one QUEUED or RUNNING: pending.
    - Else, all having FAILED or been PRUNED: failed. To Ax, an abandoned trial would be pending for ever, and one
      stopped early would have data.

    Args:
        noise_variance: of one outcome, between training seeds.
    """
    names = [f"bit_{position:03d}" for position in range(space.num_bits)]
    metric = Metric(METRIC, lower_is_better=False)
    experiment = Experiment(
        name="architecture search",
        search_space=SearchSpace([RangeParameter(name, ParameterType.INT, lower=0, upper=1) for name in names]),
        optimization_config=OptimizationConfig(
            Objective(expression=METRIC, metric_name_to_signature={METRIC: metric.signature})
        ),
        metrics=[metric],
    )
    rows = []
    for trial in trials:
        if trial.state is TrialState.COMPLETED and trial.mrr is None:
            raise ValueError(f"trial {trial.number} is COMPLETED but has no validation MRR")
    for design, replicates in by_design(trials).items():
        arm = Arm(parameters=dict(zip(names, design.architecture.bits, strict=True)))
        replayed = experiment.new_trial().add_arm(arm)
        replayed.mark_running(no_runner_required=True)
        outcomes = scores(replicates)
        if outcomes:
            mean, error = fmean(outcomes), (noise_variance / len(outcomes)) ** 0.5
            rows.append(DataRow(replayed.index, replayed.arm.name, METRIC, metric.signature, mean=mean, se=error))
            replayed.mark_completed()
        elif all(trial.state.is_final for trial in replicates):
            replayed.mark_failed()
    if rows:
        experiment.attach_data(Data(data_rows=rows))
    return experiment
