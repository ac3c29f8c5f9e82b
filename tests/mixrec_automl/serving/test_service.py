"""The recommender behind the service, on a real registry: answers, refusals, and models that take over."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mixrec_automl.registry import Registry, registered_name
from mixrec_automl.serving import service as service_module
from mixrec_automl.serving.loading import ModelSource
from mixrec_automl.serving.messages import Answer, Asked, Refusal
from mixrec_automl.serving.service import RecommenderService
from tests.mixrec_automl.champions import crown
from tests.trainers.tiny_package import HISTORY, make_package
from trainers.baselines.build import build_baseline
from trainers.baselines.config import BaselinesConfig
from trainers.baselines.package import write_baseline_package
from trainers.errors import UserError
from trainers.package import read_package
from trainers.recommend import Query, recommend

from mlflow.tracking import MlflowClient  # isort: skip

NAME = registered_name("shop")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models that answer differently."""
    root = tmp_path_factory.mktemp("packages")
    return [make_package(root / f"{epochs}", epochs=epochs).package for epochs in (1, 8)]


@pytest.fixture
def registry(tmp_path: Path, packages: list[Path]) -> Registry:
    """Version 1 is champion; version 2 waits."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    registry, client = Registry(uri), MlflowClient(tracking_uri=uri)
    registry.champion(NAME)  # sets the database up
    run = client.create_run(client.create_experiment("s", (tmp_path / "artifacts").as_uri())).info.run_id
    versions = [registry.register(NAME, package, run, ["i1"], "data") for package in packages]
    registry.replace_champion(None, versions[0])
    return registry


@pytest.fixture
def source(registry: Registry, tmp_path: Path) -> ModelSource:
    assert registry
    return ModelSource(f"models:/{NAME}@champion", f"sqlite:///{tmp_path / 'mlflow.db'}")


def none_is_read(*_: Any) -> Any:
    raise AssertionError("GRU4Rec reads no texts")


def items(answer: Answer | Refusal) -> list[str]:
    assert isinstance(answer, Answer)
    return [one.item for one in answer.recommendations]


def test_answers_are_those_of_the_package_and_a_refusal_harms_no_other(packages: list[Path]) -> None:
    service = RecommenderService(ModelSource(str(packages[1]), "http://127.0.0.1:9"))
    answers = service.answer(
        [
            Asked(history=["i1", "new", "i2"], k=3, exclude_seen=True, deny=["i7", "newer"]),
            Asked(history=["new"]),
            Asked(texts=["Thing 4"], k=2, allow=["i4", "i5", "i6"]),
        ]
    )
    package = read_package(packages[1])
    first = recommend(package, Query(["i1", "i2"], k=3, exclude_seen=True, deny=frozenset({"i7"})))
    last = recommend(package, Query(["Thing 4"], texts=True, k=2, allow=frozenset({"i4", "i5", "i6"})))
    assert items(answers[0]) == [one.item for one in first]
    assert items(answers[2]) == [one.item for one in last]
    assert isinstance(answers[0], Answer)
    assert answers[0].unknown == ["new"]
    assert [one.score for one in answers[0].recommendations] == pytest.approx([one.score for one in first], abs=1e-5)
    assert answers[1] == Refusal(
        detail="no item of the history is among the 16 items of package: give identifiers of its catalogue, or `texts`"
    )
    assert service.answer([]) == []
    assert (service.model.name, service.model.version, service.model.items) == ("package", None, 16)


def test_a_baseline_is_served_but_reads_no_texts(packages: list[Path], tmp_path: Path) -> None:
    catalogue = read_package(packages[0]).catalogue
    settings = BaselinesConfig()
    model = build_baseline(settings.gru4rec, catalogue, 1, none_is_read, none_is_read)
    model.started_from = "random weights"
    write_baseline_package(tmp_path / "made", "gru4rec", settings, model, catalogue, "data")
    service = RecommenderService(ModelSource(str(tmp_path / "made"), "http://127.0.0.1:9"))
    answer, refusal = service.answer([Asked(history=["i1"], k=4), Asked(texts=["a lamp"])])
    assert len(items(answer)) == 4
    assert refusal == Refusal(detail="made reads no texts: give `history`, identifiers of items")


def test_the_service_follows_the_alias_and_no_request_fails_meanwhile(
    registry: Registry, source: ModelSource, packages: list[Path]
) -> None:
    expected = [[one.item for one in recommend(read_package(it), Query(["i1", "i2"], k=16))] for it in packages]
    assert expected[0] != expected[1], "or the test could not tell them apart"
    service = RecommenderService(source, poll_seconds=0.05)
    seen: list[tuple[str | None, list[str]]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            (answer,) = service.answer([Asked(history=["i1", "i2"], k=16)])
            assert isinstance(answer, Answer)
            seen.append((answer.model.version, items(answer)))

    thread = threading.Thread(target=ask)
    thread.start()
    crown(registry, registry.find(f"{NAME}/2"))
    end = time.monotonic() + 60
    while service.model.version != "2" and time.monotonic() < end:
        time.sleep(0.05)
    done.set()
    thread.join()
    service.close()
    versions = [version for version, _ in seen]
    assert versions == sorted(versions, key=str), "never back to the old one"
    assert all(found == expected[int(version or 0) - 1] for version, found in seen), "never a mix of both"


def test_a_model_that_cannot_be_read_leaves_the_old_one_in_place(
    registry: Registry, source: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(service_module, "time", SimpleNamespace(monotonic=lambda: now))
    service = RecommenderService(source, poll_seconds=100)
    second = registry.find(f"{NAME}/2")
    folder = registry.fetch(second, tmp_path)
    folder.rename(tmp_path / "away")
    crown(registry, second)
    service.refresh()
    assert service.model.version == "1"
    assert service.trouble == "version 2 cannot be read", "without a path"
    assert len(items(service.answer([Asked(history=["i1"])])[0])) == 10
    now = 101.0
    service.refresh()
    shutil.copytree(tmp_path / "away", folder)
    now = 300.0
    service.refresh()
    assert (service.model.version, service.trouble) == ("1", "version 2 cannot be read"), "200 seconds are not over"
    now = 302.0
    service.refresh()
    assert (service.model.version, service.trouble) == ("2", None)


def test_a_fixed_version_stays_when_the_alias_moves(registry: Registry, source: ModelSource) -> None:
    service = RecommenderService(ModelSource(f"{NAME}/1", source.tracking_uri), poll_seconds=1000)
    crown(registry, registry.find(f"{NAME}/2"))
    service.refresh()
    assert (service.model.version, service.trouble) == ("1", None)


def test_a_folder_asks_no_registry_and_an_unknown_name_is_refused(packages: list[Path], source: ModelSource) -> None:
    dead = ModelSource(str(packages[0]), "http://127.0.0.1:9")
    assert dead.version() is None
    assert dead.load(None).package.score([read_package(packages[0]).layout.known_items.nonzero()[0][:HISTORY]]).shape
    with pytest.raises(UserError, match="no model 'mixrec-shoe'"):
        RecommenderService(ModelSource("mixrec-shoe", source.tracking_uri))


def test_what_is_told_of_a_dead_registry_holds_no_address(source: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    service = RecommenderService(source, poll_seconds=1000)
    dead = ModelSource(source.reference, "http://ada:secret@127.0.0.1:9")
    monkeypatch.setattr(service, "_source", dead)
    service.refresh()
    assert service.trouble == "the registry does not tell where the alias points"
    assert service.model.version == "1"
