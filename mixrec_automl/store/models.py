"""Tables of the search database. Rows never leave `store`: the repository hands out the values of `records`.

A change here needs a script in `migrations/versions`, which databases of before are changed by.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: goes in with a time zone, comes out in UTC, also from SQLite, which keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(
        # Named constraints, so that migrations can address them on every database.
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON}  # noqa: RUF012  (read by SQLAlchemy)


class SearchRow(Base):
    __tablename__ = "search"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    state: Mapped[str] = mapped_column(String(20))
    config: Mapped[dict[str, Any]]
    fingerprint: Mapped[str] = mapped_column(String(200))
    floors: Mapped[dict[str, Any]]
    warm_start: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    error: Mapped[str | None] = mapped_column(Text)
    revision: Mapped[int]
    tracked_revision: Mapped[int]
    tracking_error: Mapped[str | None] = mapped_column(Text)
    stop_requested: Mapped[bool]
    lease_term: Mapped[int]
    lease_holder: Mapped[str | None] = mapped_column(Text)
    lease_process: Mapped[str | None] = mapped_column(Text)
    lease_until: Mapped[float | None] = mapped_column(Double)
    owner: Mapped[str | None] = mapped_column(Text)
    lease_cluster: Mapped[str | None] = mapped_column(Text)
    slots_wanted: Mapped[int | None]
    slots_allotted: Mapped[int | None]
    slots_note: Mapped[str | None] = mapped_column(Text)


class TrialRow(Base):
    __tablename__ = "trial"
    __table_args__ = (UniqueConstraint("search_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    search_id: Mapped[int] = mapped_column(ForeignKey("search.id", ondelete="CASCADE"))
    number: Mapped[int]
    variant: Mapped[str] = mapped_column(String(100))
    architecture: Mapped[str] = mapped_column(Text)
    settings: Mapped[dict[str, Any]]
    seed: Mapped[int] = mapped_column(BigInteger)
    origin: Mapped[str] = mapped_column(String(50))
    state: Mapped[str] = mapped_column(String(20))
    attempt: Mapped[int]
    losses: Mapped[int]
    revision: Mapped[int]
    proposal_seconds: Mapped[float]
    mrr: Mapped[float | None]
    standard_error: Mapped[float | None]
    metrics: Mapped[dict[str, Any]]
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class ObservationRow(Base):
    __tablename__ = "observation"
    __table_args__ = (UniqueConstraint("trial_id", "attempt", "epoch"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    epoch: Mapped[int]
    metrics: Mapped[dict[str, Any]]
    recorded_at: Mapped[datetime]

    trial: Mapped[TrialRow] = relationship(lazy="joined", innerjoin=True)


class PromotionRow(Base):
    __tablename__ = "promotion"
    __table_args__ = (UniqueConstraint("search_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    search_id: Mapped[int] = mapped_column(ForeignKey("search.id", ondelete="CASCADE"))
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id", ondelete="CASCADE"))
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(20))
    metrics: Mapped[dict[str, Any]]
    model_version: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(Text)

    search: Mapped[SearchRow] = relationship(lazy="joined", innerjoin=True)
    trial: Mapped[TrialRow] = relationship(lazy="joined", innerjoin=True)
