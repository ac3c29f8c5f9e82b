"""Ax as a pure function of the recorded trials: all-serial design, then Sobol, then probabilistic reparameterization.

At each call the Ax experiment is rebuilt from the trials, so that no second state needs reconciling after a restart.
What counts is designs, not trials: replicates of a design are one trial to Ax, whatever their number.
This is the only file that imports Ax; importing it takes seconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from mixrec_automl.search.noise import training_seed_variance
from mixrec_automl.search.prior_gate import passes
from mixrec_automl.search.prior_mean import PriorScores
from mixrec_automl.search.probabilistic_reparameterization import Ascent, propose_point
from mixrec_automl.search.proposer import Proposal, SpaceExhausted
from mixrec_automl.search.relaxation import Relaxation
from mixrec_automl.search.replication import design_to_train
from mixrec_automl.search.surrogate import DesignSurrogate, predict
from mixrec_automl.search.threads import one_thread
from mixrec_automl.search.transfer import Transfer
from mixrec_automl.search.trial_surrogate import best_first, completed_designs, fit_trials
from mixrec_automl.store.records import Origin, Trial, TrialState, by_design, scores
from search_spaces.architecture import Architecture, as_bit_rows
from search_spaces.damoe import DamoeSpace

METRIC = "mrr"
NOISE_FROM = 10
"""Completed designs; one training more is then a small part of the budget."""
LEAST_COMPLETED = 2
"""Two designs have a spread; below that there is nothing to fit, whatever the number of trials."""

for handler in logging.getLogger("ax").handlers:
    handler.setLevel(logging.WARNING)


class ProbabilisticReparameterization(Acquisition):  # type: ignore[misc]
    """Ax acquisition over binary spaces whose optimiser is PR.

    `options` holds ``seed`` and ``ascent``. The search over architectures also gives ``seen`` (designs to avoid,
    [any, n]: Ax itself does not keep failed ones from coming back), ``pending``, the design of each trial that waits or
    runs, [any, n], and ``noise_variance``; without that no design comes twice.
    """

    def optimize(self, n: int, search_space_digest: Any, **_: Any) -> tuple[Tensor, Tensor, Tensor]:
        """One design [1, bits], its acquisition value [1] and its weight [1].

        It is a new one, or one of those observed where a replicate of that promises to teach more.

        Raises:
            SpaceExhausted: as `propose_point`.
            ValueError: more than one design is asked for, or the space is not {0,1}^n.
        """
        if n != 1 or any(tuple(bounds) != (0, 1) for bounds in search_space_digest.bounds):
            raise ValueError("probabilistic reparameterization proposes one design at a time, over bits")
        observed = torch.unique(self.X_observed, dim=0)
        known = observed if self.X_pending is None else torch.cat([observed, self.X_pending])
        mean, _deviation = predict(self.surrogate.model, observed)
        design, value = propose_point(
            self.acqf,
            Relaxation.of_bits(len(search_space_digest.bounds)),
            seen=self.options.get("seen", known),
            good=observed[mean.argsort(descending=True, stable=True)],
            ascent=self.options["ascent"],
            seed=self.options["seed"],
        )
        if "noise_variance" in self.options:
            pending, noise = self.options["pending"], self.options["noise_variance"]
            design = design_to_train(self.surrogate.model, design, observed, pending, noise)
        return design[None], torch.tensor([value]), torch.ones(1)


@dataclass(frozen=True)
class AxProposer:
    """Proposes designs of `space`; see `Proposer`."""

    space: DamoeSpace
    initial_trials: int = 5
    """Designs, in any state, before the surrogate takes over: the all-serial one and quasi-random ones (ruling 11)."""
    ascent: Ascent = field(default_factory=Ascent)
    transfer: Transfer = field(default_factory=Transfer)
    """Its designs follow the fixed one, in place of quasi-random ones; its prior is the surrogate's mean while
    `prior_gate.passes`"""

    def __post_init__(self) -> None:
        if self.initial_trials < 1:
            raise ValueError(f"search.initial_trials must be at least 1, got {self.initial_trials}")

    @property
    def fixed_design(self) -> Architecture:
        return self.space.fixed_design

    def ranking(self, trials: Sequence[Trial]) -> list[Architecture]:
        """The completed designs, the highest posterior mean first; below `LEAST_COMPLETED` of them as they came.

        A mean of few trials is pulled towards what the surrogate expects of the design, so luck counts less.
        """
        designs = completed_designs(trials)
        if len(designs) < LEAST_COMPLETED:
            return designs
        with one_thread(), manual_seed(0):
            return best_first(trials, fit_trials(trials, self._prior_for(trials)))

    def propose(self, trials: Sequence[Trial], *, seed: int) -> Proposal:
        """See `Proposer.propose`. One call takes well under a second; the first one of a process a little more."""
        began = time.perf_counter()
        seen = by_design(trials)
        for design in seen:
            self.space.check(design)
        if len(seen) >= self.space.size:
            raise SpaceExhausted(f"all {self.space.size} designs of the search space have been proposed")
        taken_over = next((design for design in self.transfer.first if design not in seen), None)
        probe = noise_probe(seen) if len(seen) >= self.initial_trials else None
        if self.space.fixed_design not in seen:
            architecture, origin = self.space.fixed_design, Origin.FIXED
        elif taken_over is not None:
            architecture, origin = taken_over, Origin.WARM_START
        elif probe is not None:
            architecture, origin = probe, Origin.REPLICATION
        else:
            with one_thread():
                architecture, origin = self._generate(trials, seen, seed)
        if architecture not in seen:
            return Proposal(architecture, origin, time.perf_counter() - began)
        if origin not in (Origin.PROBABILISTIC_REPARAMETERIZATION, Origin.REPLICATION):
            raise AssertionError(f"{architecture} was proposed twice")
        further = 1 + max(trial.seed for trial in seen[architecture])
        return Proposal(architecture, Origin.REPLICATION, time.perf_counter() - began, seeds=(further,))

    def _prior_for(self, trials: Sequence[Trial]) -> PriorScores | None:
        prior = self.transfer.prior
        return prior if prior is not None and passes(prior, trials) else None

    def _generate(
        self, trials: Sequence[Trial], seen: Mapping[Architecture, Sequence[Trial]], seed: int
    ) -> tuple[Architecture, Origin]:
        noise_variance = training_seed_variance(trials)
        experiment = replay(self.space, trials, noise_variance)
        pending = sorted((trial.architecture for trial in trials if not trial.state.is_final), key=str)
        position = sum(replicates[0].origin is Origin.SOBOL for replicates in seen.values())
        own_seed = int(np.random.SeedSequence([seed, len(seen)]).generate_state(1)[0])
        options = {
            "seen": torch.tensor(as_bit_rows(sorted(seen, key=str)), dtype=torch.float64),
            "ascent": self.ascent,
            "seed": own_seed,
            "noise_variance": noise_variance,
            "pending": torch.tensor(as_bit_rows(pending), dtype=torch.float64).reshape(-1, self.space.num_bits),
        }
        with manual_seed(own_seed):
            prior = self._prior_for(trials)
        while True:
            strategy = _strategy(self.initial_trials, {"seed": seed, "init_position": position}, options, prior)
            with manual_seed(own_seed):  # the surrogate's fit draws new starts where the first one fails
                [[run]] = strategy.gen(experiment, n=1)
            parameters = run.arms[0].parameters
            architecture = Architecture.from_bits([int(parameters[name]) for name in sorted(parameters)])
            origin = Origin(strategy.current_node_name)
            # Ax's Sobol sampler may come back to the design of a failed trial; then the next point is taken.
            if architecture not in seen or origin is not Origin.SOBOL:
                return architecture, origin
            position += 1


def noise_probe(seen: Mapping[Architecture, Sequence[Trial]]) -> Architecture | None:
    """The design to train again so that the noise between training seeds is measured, and not only presumed.

    The first of all that were completed, which no score has chosen, once `NOISE_FROM` designs are; None before, and
    where any design has been trained twice. With a presumed level that is too low nothing would ever be replicated, and
    the level never corrected.
    """
    completed = [design for design, group in seen.items() if scores(group)]
    if len(completed) < NOISE_FROM or any(len(group) > 1 for group in seen.values()):
        return None
    return completed[0]


def generation_strategy(initial_trials: int = 5, seed: int = 0) -> GenerationStrategy:
    """PR for an Ax experiment of your own, whose parameters are all integers from 0 to 1.

        client = Client()
        client.configure_experiment([RangeParameterConfig(f"bit_{i}", (0, 1), parameter_type="int") for i in range(12)])
        client.configure_optimization("mrr")
        client.set_generation_strategy(generation_strategy())

    Args:
        initial_trials: quasi-random ones, before the surrogate takes over.
        seed: of everything random.
    """
    return _strategy(initial_trials, {"seed": seed}, {"seed": seed, "ascent": Ascent()})


def _strategy(
    initial_trials: int, sobol: dict[str, Any], options: dict[str, Any], prior: PriorScores | None = None
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
        botorch_model_class=DesignSurrogate, input_transform_classes=None, model_options={"prior": prior}
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
        arm = Arm(parameters=dict(zip(names, design.bits, strict=True)))
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
