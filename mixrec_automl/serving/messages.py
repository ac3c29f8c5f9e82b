"""What the HTTP service is asked and what it answers, with every limit on a request."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

LONGEST_HISTORY = 1_000
MOST_TEXTS = 100
LONGEST_FILTER = 100_000
MOST_RECOMMENDED = 1_000
MOST_AT_ONCE = 64
LARGEST_BODY = 8 * 2**20
"""Bytes"""

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=256)]
# Stripped as Python does, which knows more white space than pydantic: the model's reader does so too.
Text = Annotated[str, AfterValidator(str.strip), StringConstraints(min_length=1, max_length=2_000)]


class Asked(BaseModel):
    """A history, as identifiers or as texts, and what is wanted after it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"history": ["50", "172"], "k": 5, "exclude_seen": True}]},
    )

    history: list[Identifier] | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_HISTORY,
        description="Item identifiers, oldest first. Those that the model does not know are left out of it and listed "
        "in the answer as `unknown`.",
    )
    texts: list[Text] | None = Field(
        None,
        min_length=1,
        max_length=MOST_TEXTS,
        description="Descriptions in place of `history`, oldest first; of items that need not be in the catalogue.",
    )
    k: int = Field(10, ge=1, le=MOST_RECOMMENDED, description="The number of recommendations.")
    exclude_seen: bool = Field(False, description="Leave the items of `history` out.")
    allow: list[Identifier] | None = Field(
        None, max_length=LONGEST_FILTER, description="The only items that may be recommended."
    )
    deny: list[Identifier] = Field(
        default_factory=list, max_length=LONGEST_FILTER, description="Items that must not be recommended."
    )

    @model_validator(mode="after")
    def _one_history(self) -> Self:
        if (self.history is None) == (self.texts is None):
            raise ValueError("give either `history` or `texts`")
        return self


class AskedTogether(BaseModel):
    """Several requests at once."""

    model_config = ConfigDict(extra="forbid")

    requests: list[Asked] = Field(min_length=1, max_length=MOST_AT_ONCE)


class Item(BaseModel):
    """One recommended item."""

    rank: int
    item: str
    title: str
    score: float = Field(description="Log-probability under the model's softmax over the whole catalogue.")


class ModelInfo(BaseModel):
    """Which model answers."""

    name: str
    version: str | None = Field(description="In the registry; null for the folder of a package.")
    items: int = Field(description="Size of its catalogue.")


class Answer(BaseModel):
    """The recommendations after one history."""

    model: ModelInfo
    recommendations: list[Item]
    unknown: list[str] = Field(description="Items of the history that the model does not know.")


class AnswerTogether(BaseModel):
    """The answers in the order of the requests."""

    answers: list[Answer]


class Health(BaseModel):
    """The service answers, with this model."""

    status: str = "ok"
    model: ModelInfo
    trouble: str | None = Field(description="Why a newer model is not served, in words; null where nothing is wrong.")


class Refusal(BaseModel):
    """Why there is no answer."""

    detail: str
