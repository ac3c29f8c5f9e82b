"""Figures of what the result is worth: against fixed design and floors, at what size, and how good the surrogate is."""

from __future__ import annotations

from mixrec_automl.cluster.training import TRAINABLE_PARAMETERS
from mixrec_automl.pareto import pareto_front
from mixrec_automl.report.drawn import Drawn, blank
from mixrec_automl.report.material import Material
from mixrec_automl.report.style import BLUE, FAINT, GREEN, ORANGE
from mixrec_automl.search.advantage import LEVEL, advantage_of_winner
from mixrec_automl.store.records import scores
from search_spaces.architecture import Architecture

NINETY = 1.645
"""Standard deviations of a normal variable on either side that hold 90 % of it"""


def comparison(material: Material) -> Drawn | None:
    """The winner less the fixed design, and less popularity."""
    rows: list[tuple[str, float, float, float]] = []
    found = advantage_of_winner(material.trials)
    told = ["The search has no confirmation that tells the winner's advantage over the fixed design from luck."]
    if found is not None:
        rows.append(("fixed design,\nvalidation", found.difference, found.low, found.high))
        chosen = f", corrected for the choice among {found.compared} designs" if found.compared > 1 else ""
        told = [f"Over the fixed design: {LEVEL:.0%} over {found.seeds} new training seeds{chosen}, on the same users."]
    elif material.is_fixed_confirmed:
        told = ["The winner is the fixed design: trained again with new seeds, no other one was better."]
    promoted = material.promoted
    key = "test_mrr_minus_popularity"
    if promoted and key in promoted[-1].metrics:
        of = promoted[-1].metrics
        rows.append(("popularity,\ntest", of[key], of[f"{key}_low"], of[f"{key}_high"]))
        told.append("Over popularity: the promoted model, 95 % over all users, paired.")
    if not rows:
        return None
    figure, axes = blank(1.2 + 0.5 * len(rows))
    for row, (_, mean, low, high) in enumerate(rows):
        axes.plot([low, high], [row, row], color=BLUE, linewidth=2)
        axes.plot(mean, row, "o", color=BLUE)
        axes.annotate(f"{mean:+.4f}", (mean, row), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9)
    axes.axvline(0, color=FAINT, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
    axes.set(ylim=(len(rows) - 0.5, -0.7), xlabel="the winner's MRR less that of")
    return Drawn("comparison", "What the winner gains", " ".join(told), figure)


def calibration(material: Material) -> Drawn | None:
    """What the surrogate says of designs that it does not know."""
    found = material.explanation
    if found is None or found.calibration is None:
        return None
    known = found.calibration
    figure, axes = blank(4.2)
    bars = [NINETY * deviation for deviation in known.deviation]
    axes.errorbar(known.predicted, known.observed, xerr=bars, fmt="o", color=BLUE, ecolor=FAINT, elinewidth=0.8)
    ends = [min(*known.observed, *known.predicted), max(*known.observed, *known.predicted)]
    axes.plot(ends, ends, color=GREEN, linewidth=1)
    axes.set(xlabel="MRR that the surrogate predicts from the other designs", ylabel="MRR of the design")
    caption = (
        f"Leave-one-out: each design as the surrogate sees it when its outcome is left out, with the 90 % interval, "
        f"which holds {known.covered(NINETY)} of {len(known.observed)} outcomes. It explains "
        f"{known.share_explained:.0%} of their variance; below zero it predicts worse than their mean. "
        "Its hyperparameters know all outcomes, which flatters it."
    )
    return Drawn("calibration", "Does the surrogate know?", caption, figure)


def next_design(material: Material) -> Drawn | None:
    """What PR does, on the way to the design that would come next."""
    found = material.explanation
    if found is None or found.next is None:
        return None
    path = found.next
    figure, axes = blank(3.2)
    for bit, chances in enumerate(zip(*path.theta, strict=True)):
        axes.plot(chances, color=BLUE if path.design[bit] else FAINT, linewidth=1)
    axes.set(xlabel="step of the ascent", ylabel="probability of parallel", ylim=(-0.03, 1.03))
    caption = (
        "Probabilistic reparameterization, on what this page's surrogate knows: the probability of each bit on the way "
        f"from one of {path.restarts} starts. Where they end designs are drawn, and the best new one would be trained: "
        f"{Architecture.from_bits(path.design)}, whose parallel bits are blue. The start that ended nearest to it is "
        f"shown; of {path.arrived} starts the end is that very design. Lines that stay in the middle are bits that "
        "could be either way."
    )
    return Drawn("next-design", "How PR finds a new design", caption, figure)


def front(material: Material) -> Drawn | None:
    """MRR against the number of trained parameters."""
    sized = [trial for trial in material.completed if TRAINABLE_PARAMETERS in trial.metrics]
    best = pareto_front(sized)
    if material.config.search.second_objective is None or not best:
        return None
    figure, axes = blank(3.6)
    sizes = [trial.metrics[TRAINABLE_PARAMETERS] / 1e6 for trial in sized]
    axes.plot(sizes, scores(sized), "o", color=FAINT, markersize=4, label="trial")
    front_sizes, values = [one.trainable_parameters / 1e6 for one in best], [one.expected_mrr for one in best]
    axes.step(front_sizes, values, where="post", color=ORANGE)
    axes.plot(front_sizes, values, "s", color=ORANGE, label="Pareto front, expected MRR")
    axes.set(xlabel="trainable parameters, millions", ylabel="validation MRR")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    caption = "The designs of which no other one of at most their size is expected to be better."
    return Drawn("pareto-front", "MRR at every size", caption, figure)
