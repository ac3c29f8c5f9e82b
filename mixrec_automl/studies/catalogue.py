"""All studies: the paper's figures and tables, and what its text leaves open.

The paper prints Fig. 5 to 12 as plots without numbers; the ranges of Fig. 9 to 12 that its text does not give are ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from itertools import product
from typing import get_args

from mixrec_automl.studies.study import Settings, Study, Variant
from trainers.baselines.config import BaselineName
from trainers.config import AdapterKind
from trainers.errors import UserError

NO_TASKS: Settings = {
    "training.lambda_align": 0.0,
    "training.lambda_contrastive": 0.0,
    "training.lambda_collaborative": 0.0,
}
LLMREC = Variant("LLMRec", {"model.kind": "llmrec", **NO_TASKS})
VARIATION_1 = Variant("Variation 1", {"model.kind": "mixrec_base", "training.lambda_collaborative": 0.0})
VARIATION_2 = Variant("Variation 2")
MIXREC = Variant("MixRec", design="searched")
TITLES: Mapping[BaselineName, str] = {
    "gru4rec": "GRU4Rec",
    "sasrec": "SASRec",
    "bert4rec": "BERT4Rec",
    "fdsa": "FDSA",
    "p5": "P5",
    "unisrec": "UniSRec",
    "recformer": "RecFormer",
    "mf": "MF",
    "ncf": "NCF",
}
BASELINES = tuple(Variant(title, baseline=name) for name, title in TITLES.items())
BASELINE_STUDY = "baselines"

ADAPTERS = ("model.causal_expert", "model.context_expert", "model.recommendation_adapter")
WEIGHTS = (1e-6, 1e-4, 1e-2, 1e-1)
LAMBDAS = ("align", "contrastive", "collaborative")


def _one_of_three(lambda_: str, value: float) -> Variant:
    ones: dict[str, float] = {f"training.lambda_{name}": 1.0 for name in LAMBDAS}
    return Variant(f"{lambda_} {value:g}", {**ones, f"training.lambda_{lambda_}": value})


def _each(what: str, key: str, *values: str | float) -> tuple[Variant, ...]:
    """One variant a value; a study leaves out the one that its configuration has anyway."""
    shown = [value if isinstance(value, str) else f"{value:g}" for value in values]
    return tuple(Variant(f"{what} {name}", {key: value}) for name, value in zip(shown, values, strict=True))


STUDIES = (
    Study(
        "main",
        "Does searched MixRec beat the fixed designs, the language model without adapters and the other models?",
        "Table 2",
        "MixRec",
        (MIXREC, VARIATION_2, VARIATION_1, LLMREC, *BASELINES),
    ),
    Study(
        "ablation",
        "What do context mask, collaborative column and search add to coarse-grained adaption?",
        "Fig. 5",
        "MixRec",
        (MIXREC, VARIATION_2, VARIATION_1),
    ),
    Study(
        "cf-model",
        "Which collaborative model should lend its vectors?",
        "Fig. 6",
        "NCF",
        (Variant("NCF", {"model.collaborative_model": "ncf"}), Variant("MF", {"model.collaborative_model": "mf"})),
    ),
    Study(
        "cf-training",
        "Should the collaborative model be trained jointly or beforehand?",
        "Fig. 7",
        "joint",
        tuple(Variant(how, {"model.collaborative_training": how}) for how in ("joint", "frozen", "detached")),
    ),
    Study(
        "cf-columns",
        "Whose vector should the second branch see, and does the user's over-fit?",
        "2.3.2",
        "none",
        (
            *(Variant(kind, {"model.collaborative_columns": kind}) for kind in ("none", "item", "user", "user+item")),
            Variant(
                "user, dropped half the time",
                {"model.collaborative_columns": "user", "model.user_column_dropout": 0.5},
            ),
            *(
                Variant(f"user, {how}", {"model.collaborative_columns": "user", "model.collaborative_training": how})
                for how in ("detached", "frozen")
            ),
        ),
    ),
    Study(
        "moe-control",
        "Is the gain the context mask's, the column's, or that of more parameters?",
        "Fig. 8",
        "context",
        tuple(Variant(mask, {"model.second_mask": mask}) for mask in ("context", "causal", "causal+columns")),
    ),
    Study(
        "task-weights",
        "How much should each further task weigh, the others staying at 1?",
        "Fig. 9",
        "all 1",
        (
            Variant("all 1", {f"training.lambda_{name}": 1.0 for name in LAMBDAS}),
            *(_one_of_three(name, value) for name, value in product(LAMBDAS, WEIGHTS)),
        ),
    ),
    Study(
        "bottleneck",
        "How wide should the adapters be?",
        "Fig. 10",
        "64",
        tuple(Variant(str(width), {"model.bottleneck": width}) for width in (16, 32, 64, 128)),
    ),
    Study(
        "contrastive",
        "How many anchors of a user, and how many hard negatives of each?",
        "Fig. 11",
        "n_s 1, n_cl 5",
        tuple(
            Variant(
                f"n_s {anchors}, n_cl {negatives}",
                {"training.anchors_per_user": anchors, "training.contrastive_negatives": negatives},
            )
            for anchors, negatives in product((1, 2, 3), (1, 5, 10))
        ),
    ),
    Study(
        "replacement",
        "Does every layer have to be a DAMoE layer?",
        "Fig. 12",
        "r = 1",
        tuple(Variant(f"r = {step}", {"model.replacement_frequency": step}) for step in (1, 2, 3, 4, 6)),
    ),
    Study(
        "options",
        "What does each of our choices, and each option against over-fitting, do?",
        "none",
        "defaults",
        (
            Variant("defaults"),
            *_each("dropout", "model.projection_dropout", 0.0, 0.2, 0.5),
            *_each("projection", "model.item_projection_form", "free", "text+free"),
            *_each("weight decay", "training.weight_decay", 0.1, 1.0),
            *_each("rate", "training.learning_rate", 3e-4, 1e-3, 3e-3),
            *_each("projection's rate", "training.projection_learning_rate", 3e-4, 3e-3),
            *_each("M_cf's rate", "training.collaborative_learning_rate", 1e-3, 5e-3, 2e-2),
            *_each("columns", "model.collaborative_columns", "none", "item", "user", "user+item"),
            *_each("lambda align", "training.lambda_align", 0.0, 0.1, 1.0),
            *_each("lambda contrastive", "training.lambda_contrastive", 0.0, 1e-3, 0.1),
            *_each("lambda collaborative", "training.lambda_collaborative", 1e-3, 0.1, 1.0),
            *_each("layers", "backbone.layers", 1, 2),
            *_each("history", "data.history", 5, 20, 50),
            *_each("adapters", "model.activation", "none", "gelu"),
            *(Variant(f"all adapters {kind}", dict.fromkeys(ADAPTERS, kind)) for kind in get_args(AdapterKind)),
            Variant("all parallel", design="parallel"),
            *_each("projection starts", "model.item_projection_init", "random", "align"),
            *_each("projection reads", "model.item_projection_input", "raw", "standardised"),
            *_each("bias starts", "model.item_bias_init", "zero", "popularity"),
        ),
    ),
    Study(
        "baseline-llm",
        "What does the frozen language model reach without adapters?",
        "Table 2, LLMRec",
        "Variation 2",
        (VARIATION_2, LLMREC),
    ),
)


def find_study(name: str) -> Study:
    """Raises UserError, which names the nearest study."""
    found = next((study for study in STUDIES if study.name == name), None)
    if found is None:
        (nearest,) = difflib.get_close_matches(name, [study.name for study in STUDIES], n=1, cutoff=0.0)
        raise UserError(f"there is no study {name!r}: did you mean {nearest!r}? `mixrec-automl study list` lists all")
    return found


def baseline_study(models: Sequence[BaselineName], tuned: int = 0) -> Study:
    """Trains `models` alone, the first of them as reference; their rows tell how many trials `tuned` them."""
    how = f", tuned {tuned}" if tuned else ""
    variants = tuple(Variant(f"{TITLES[model]}{how}", baseline=model) for model in models)
    question = "How good are the other models of the paper's table?"
    return Study(BASELINE_STUDY, question, "Table 2", variants[0].name, variants)
