"""What to try next, in words that the data of a search give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, variance

from mixrec_automl.report.material import Material
from mixrec_automl.report.of_designs import called
from mixrec_automl.search.advantage import advantage_of_winner
from mixrec_automl.store.records import Origin, SearchState, TrialState

STILL_RISING = 0.02
"""Share of the best MRR that the last epoch alone has added"""
LITTLE_EXPLAINED = 0.1
"""Of the variance of the outcomes"""
MANY_FAILED = 0.1
IF_BITS_DO_NOT_MATTER = (
    " The bits may not matter here: search for settings instead (`search.settings`), such as the bottleneck or the "
    "learning rate."
)
FEWEST_DESIGNS = 3
"""Below so many their spread says nothing"""


@dataclass(frozen=True)
class Advice:
    """One thing to do, and why."""

    what: str
    why: str
    command: str = ""


def advice(material: Material) -> list[Advice]:
    """In the order in which to look at it."""
    return [*_of_the_end(material), *_of_the_noise(material), *_of_the_space(material), *_of_the_trainings(material)]


def _of_the_end(material: Material) -> Iterator[Advice]:
    name, state = material.search.name, material.search.state
    if state in (SearchState.STOPPED, SearchState.FAILED):
        ended = sum(trial.state.is_final for trial in material.trials)
        yield Advice(
            "Go on with the search.",
            f"It is {state.value}: {ended} of {material.config.search.trials} trials have ended.",
            f"mixrec-automl resume {name}",
        )
    failed = [trial for trial in material.trials if trial.state is TrialState.FAILED]
    if len(failed) > MANY_FAILED * len(material.trials):
        yield Advice(
            "Look at what failed.",
            f"{len(failed)} of {len(material.trials)} trials failed.",
            f"mixrec-automl show {name} --trial {failed[-1].number}",
        )
    if state is SearchState.COMPLETED and material.best is not None and not material.promoted:
        yield Advice(
            "Train the winner on all users, and test it.",
            "Validation scores on a share of the users choose designs; what a model is worth the test says.",
            f"mixrec-automl promote {name}",
        )


def _of_the_noise(material: Material) -> Iterator[Advice]:
    best = material.best
    if best is None or not material.is_over:
        return
    if best.origin is not Origin.CONFIRMATION:
        if len(material.scores_by_design) > 1 and not material.config.search.confirmation_share:
            yield Advice(
                "Keep a share of the budget for a confirmation.",
                "The winner is the best of many noisy scores, so it looks better than it is. Trained again with new "
                "seeds the best designs get scores for which nothing was chosen.",
                "mixrec-automl search ... --set search.confirmation_share=0.3",
            )
    elif material.is_fixed_confirmed:
        others = "" if material.config.search.settings else IF_BITS_DO_NOT_MATTER
        yield Advice("Keep the fixed design.", f"Trained again with new seeds, no other design was better.{others}")
    else:
        found = advantage_of_winner(material.trials)
        if found is not None and found.low <= 0:
            yield Advice(
                "Do not count on the winner's advantage.",
                f"Over the fixed design it is {found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}] on "
                f"{found.seeds} new seeds, which chance explains too. More of them "
                "(`search.confirmation_share`) would tell.",
            )
    yield from _of_the_spread(material)


def _of_the_spread(material: Material) -> Iterator[Advice]:
    groups, seeds = material.scores_by_design.values(), material.seed_deviation
    if material.explanation is None or len(groups) < FEWEST_DESIGNS:
        return
    by_luck = fmean(seeds**2 / len(own) for own in groups)
    designs = max(variance([fmean(own) for own in groups]) - by_luck, 0.0) ** 0.5
    if designs < seeds:
        more_users = "`search.user_share` or " if material.config.search.user_share < 1 else ""
        kind = "measured" if material.is_noise_measured else "assumed: none was trained twice"
        yield Advice(
            "Make the scores less noisy before trying more designs.",
            f"Designs differ by {designs:.4f} (standard deviation, noise taken off), trainings of one design by "
            f"{seeds:.4f} ({kind}): raise {more_users}`training.epochs`.",
        )


def _of_the_space(material: Material) -> Iterator[Advice]:
    explained = material.explanation
    if explained is None:
        return
    calibration = explained.calibration
    if calibration is None:
        return
    if calibration.share_explained < LITTLE_EXPLAINED:
        yield Advice(
            "Do not read much into the effects of the bits.",
            f"Without its own outcome, the surrogate explains {calibration.share_explained:.0%} of the variance "
            "between designs: it has too few trials for this space, or there is little to be found.",
        )
        return
    sure = [effect for effect in explained.effects if effect.is_sure]
    if sure:
        told = ", ".join(
            f"{called(effect.bits[0])} {'parallel' if effect.mean > 0 else 'serial'} ({effect.mean:+.4f})"
            for effect in sorted(sure, key=lambda effect: -abs(effect.mean))[:5]
        )
        yield Advice(
            "Keep these bits.",
            f"Layer and adapter, with what parallel adds, by intervals that leave zero out: {told}. Where "
            "several agree across layers, the same choice is a good start on other data (`search.warm_start`).",
        )


def _of_the_trainings(material: Material) -> Iterator[Advice]:
    rising = 0
    curves = [curve for trial in material.completed if len(curve := [value for _, value in material.curve(trial)]) > 1]
    for curve in curves:
        rising += curve[-1] - max(curve[:-1]) > STILL_RISING * max(curve)
    if curves and rising > len(curves) / 2:
        yield Advice(
            "Give trainings more epochs.",
            f"In {rising} of {len(curves)} trainings the last epoch alone added more than {STILL_RISING:.0%}: designs "
            "are compared before they have learned.",
            f"mixrec-automl search ... --set training.epochs={2 * material.config.training.epochs}",
        )
