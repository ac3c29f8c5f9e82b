"""Random parameters, steps and whole cases for comparing a model with the literal one."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from search_spaces.architecture import Architecture, Placement
from search_spaces.damoe import DamoeSpace
from tests.oracles.literal_backbone import read_backbone
from tests.oracles.literal_mixrec import LiteralModel
from tests.oracles.tiny_backbones import BOS_TOKEN, VOCABULARY, Family, tiny_backbone
from trainers.config import ModelConfig, TrainingConfig
from trainers.data.step import CollaborativeDraw, ContrastiveAnchor, Step

PROMPT = [3, 4, 5]


def random_parameters(
    backbone: Any, model: ModelConfig, num_users: int, num_items: int, seed: int = 0, std: float = 0.2
) -> dict[str, Tensor]:
    """Leaves N(0, `std`) under the names of the literal model, fp64. Only MixRec has a collaborative model."""
    d, b, c = backbone.config.hidden_size, model.bottleneck, model.collaborative_dim
    shapes: dict[str, tuple[int, ...]] = {
        "special_tokens": (2, d),
        "item_projection.weight": (num_items, d),
        "item_projection.bias": (num_items,),
    }
    if model.item_projection_form == "text+free":
        shapes |= {"item_text": (num_items, d), "text_map.weight": (d, d)}
    sites = {
        "mixrec": ("causal_expert", "context_expert", "recommendation_adapter"),
        "mixrec_base": ("attention_adapter", "feed_forward_adapter"),
        "llmrec": (),
    }[model.kind]
    of_attention, of_feed_forward = _inner_widths(backbone, d)
    for k in range(len(DamoeSpace(backbone.config.num_hidden_layers, model.replacement_frequency).damoe_layers)):
        for site in sites:
            kind = getattr(model, site) if model.kind == "mixrec" else "bottleneck"
            read, scaled = of_feed_forward if site == "recommendation_adapter" else of_attention
            if kind == "ia3":
                shapes[f"layers.{k}.{site}.scale"] = (scaled,)
            elif kind == "lora":
                shapes[f"layers.{k}.{site}.down.weight"] = (b, read)
                shapes[f"layers.{k}.{site}.up.weight"] = (d, b)
            elif kind == "bottleneck":
                shapes[f"layers.{k}.{site}.down.weight"] = (b, d)
                shapes[f"layers.{k}.{site}.down.bias"] = (b,)
                shapes[f"layers.{k}.{site}.up.weight"] = (d, b)
                shapes[f"layers.{k}.{site}.up.bias"] = (d,)
        if model.kind == "mixrec":
            shapes[f"layers.{k}.gate.weight"] = (2, 2 * d)
            shapes[f"layers.{k}.gate.bias"] = (2,)
    if model.kind == "mixrec":
        for kind in ("item", "user"):
            if kind in model.collaborative_columns and model.second_mask != "causal":
                shapes[f"{kind}_column.weight"] = (d, c)
                shapes[f"{kind}_column.bias"] = (d,)
        shapes |= _collaborative_shapes(model.collaborative_model, num_users, num_items, c)

    generator = torch.Generator().manual_seed(seed)
    return {
        name: (std * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
        for name, shape in shapes.items()
    }


def _inner_widths(backbone: Any, d: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Of attention, then feed-forward: what the last map reads, and what (IA)3 scales (fewer heads of values than of
    queries, where several read one)."""
    layer = read_backbone(backbone).layers[0]
    nothing = torch.zeros(1, d, dtype=torch.float64)
    mixed, values, inner = (part(nothing).shape[1] for part in (layer.query, layer.value, layer.widen))
    return (mixed, values), (inner, inner)


def _collaborative_shapes(model: str, num_users: int, num_items: int, c: int) -> dict[str, tuple[int, ...]]:
    if model == "mf":
        return {
            "collaborative.user.weight": (num_users, c),
            "collaborative.item.weight": (num_items, c),
            "collaborative.item_bias.weight": (num_items, 1),
        }
    return {
        **{f"collaborative.user_{part}.weight": (num_users, c // 2) for part in ("gmf", "mlp")},
        **{f"collaborative.item_{part}.weight": (num_items, c // 2) for part in ("gmf", "mlp")},
        "collaborative.hidden.weight": (c // 2, c),
        "collaborative.hidden.bias": (c // 2,),
        "collaborative.output.weight": (1, c),
        "collaborative.output.bias": (1,),
    }


def random_step(num_users: int, num_items: int, rows: int, seed: int = 0, longest: int = 4) -> Step:
    """Rows of 1 to `longest` items (unequal; row 0 repeats an item), two anchors, alignment and CF draws.

    Needs `rows` <= `num_users`, `longest` >= 2 and `num_items` >= 6.
    """
    draw = random.Random(seed)
    users = draw.sample(range(num_users), rows)
    lengths = [longest, *(1 + number % longest for number in range(rows - 1))]
    sequences = [[draw.randrange(num_items) for _ in range(length + 1)] for length in lengths]
    sequences[0][1] = sequences[0][0]
    anchors = []
    for _ in range(2):
        row = draw.randrange(rows)
        position = draw.randrange(lengths[row])
        positive = sequences[row][position + 1]
        negatives = draw.sample([item for item in range(num_items) if item != positive], 3)
        anchors.append(ContrastiveAnchor(row, position, positive, tuple(negatives)))
    contrast = {item for anchor in anchors for item in (anchor.positive, *anchor.negatives)}
    aligned = sorted(contrast | {draw.randrange(num_items)})
    draw.shuffle(aligned)
    collaborative = tuple(
        CollaborativeDraw(user, sequence[0], tuple(draw.sample([i for i in range(num_items) if i != sequence[0]], 2)))
        for user, sequence in zip(users, sequences, strict=True)
    )
    return Step(
        users=tuple(users),
        inputs=tuple(tuple(sequence[:-1]) for sequence in sequences),
        targets=tuple(tuple(sequence[1:]) for sequence in sequences),
        anchors=tuple(anchors),
        align_items=tuple(aligned),
        collaborative=collaborative,
    )


@dataclass(frozen=True)
class Case:
    """All arguments of `literal_losses`."""

    backbone: Any
    parameters: dict[str, Tensor]
    architecture: Architecture | None
    model: ModelConfig
    training: TrainingConfig
    step: Step
    item_tokens: list[list[int]]
    prompt_tokens: list[int]
    bos_token: int | None
    known_users: list[bool]
    known_items: list[bool]

    @property
    def arguments(self) -> dict[str, Any]:
        """For `literal_losses(**case.arguments)`."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def literal(self) -> LiteralModel:
        """For the parts of the literal model, such as `hidden_states(case.literal, row)`."""
        return LiteralModel(
            self.backbone,
            self.parameters,
            self.architecture,
            self.model,
            self.item_tokens,
            self.prompt_tokens,
            self.bos_token,
            self.known_users,
            self.known_items,
        )

    def scoring(self, user: int | None, history: list[int]) -> dict[str, Any]:
        """For `literal_scores(**case.scoring(user, history))`."""
        kept = {name: value for name, value in self.arguments.items() if name not in ("training", "step")}
        return {**kept, "user": user, "history": history}


def random_case(
    family: Family,
    architecture: str | None = None,
    model: ModelConfig | None = None,
    training: TrainingConfig | None = None,
    num_users: int = 5,
    num_items: int = 9,
    rows: int = 3,
    layers: int = 2,
    seed: int = 0,
) -> Case:
    """One case with sentences of 1 to 5 tokens; the last user and the last item do not occur in training.

    Args:
        architecture: bits such as "010-111"; all-serial when absent. Ignored for MixRec_base and LLMRec.
        model: defaults to `small_model()`.
        training: defaults to weights near one, so that every loss matters in the total.
    """
    model = model or small_model()
    backbone = tiny_backbone(family, layers, seed)
    draw = random.Random(seed + 1)
    damoe = len(DamoeSpace(layers, model.replacement_frequency).damoe_layers)
    step = random_step(num_users - 1, num_items - 1, rows, seed + 3)
    if model.collaborative_training == "frozen":
        step = replace(step, collaborative=())
    design = Architecture.parse(architecture) if architecture else Architecture.uniform(Placement.SERIAL, damoe)
    return Case(
        backbone=backbone,
        parameters=random_parameters(backbone, model, num_users, num_items, seed + 2),
        architecture=design if model.kind == "mixrec" else None,
        model=model,
        training=training or TrainingConfig(lambda_align=0.7, lambda_contrastive=1.3, lambda_collaborative=0.9),
        step=step,
        item_tokens=[[draw.randrange(6, VOCABULARY) for _ in range(1 + number % 5)] for number in range(num_items)],
        prompt_tokens=list(PROMPT),
        bos_token=BOS_TOKEN,
        known_users=[True] * (num_users - 1) + [False],
        known_items=[True] * (num_items - 1) + [False],
    )


def small_model(**changes: Any) -> ModelConfig:
    """A ModelConfig with bottleneck 3 and collaborative width 6."""
    return ModelConfig(**{"bottleneck": 3, "collaborative_dim": 6, **changes})


def force_gate(parameters: dict[str, Tensor], branch: int) -> None:
    """Sets every gate to one branch for good: 0 the causal one, 1 the context one (beta differs by e^-120)."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            if name.endswith("gate.weight"):
                parameter.zero_()
            if name.endswith("gate.bias"):
                parameter.fill_(-60.0)
                parameter[branch] = 60.0


def neutral_adapters(parameters: dict[str, Tensor]) -> None:
    """Zeroes the second matrix and its bias, so that Adapter(h) = h and a serial adapter changes nothing."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            if name.endswith((".up.weight", ".up.bias")):
                parameter.zero_()


def gradients(loss: Tensor, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """d loss / d parameter under every name; zeros where the loss does not depend on it."""
    values = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True)
    assert all(math.isfinite(float(value.abs().max())) for value in values)
    return dict(zip(parameters, values, strict=True))
