"""The commands of the documents as a reader types them: each that a block shows is typed here, or tested elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.repository import ROOT
from tests.end_to_end.typed import type_in, typed_in

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(1200)]

STANDS_FOR = {
    "search configs/ml-100k.yaml": "search smoke",
    "search scientific-small": "search smoke",
    "user_share=0.05": "user_share=0.5",
    "mixrec-ml-100k": "mixrec-walks",
    "--item 50 --item 172": "--item w3 --item w4",
    "python tools/": f"python {ROOT / 'tools'}/",
}
"""What the documents name, and what takes its place here: data and a backbone of seconds"""
ELSEWHERE = (
    ("make ", ".ci/run"),
    ("python benchmarks/", "tests/benchmarks"),
    ("mixrec-automl serve ", "tests/end_to_end/test_serve.py"),
    ("curl ", "tests/end_to_end/test_serve.py"),
    ("mixrec-automl submit ", "tests/end_to_end/test_submit.py"),
    ("mixrec-automl baselines ", "tests/mixrec_automl/studies/test_baselines.py"),
    ("mixrec-automl study run ablation --data ", "tests/mixrec_automl/studies/test_studies.py"),
    ("mixrec-automl data prepare --name pantry ", "tests/mixrec_automl/cli/test_data.py"),
)
"""How commands begin that need services, hours or files of others, and what tries those on something smaller"""
OF_THE_TUTORIAL = (
    "mixrec-automl data prepare",
    "mixrec-automl search configs/ml-100k.yaml --name shop",
    "mixrec-automl promote shop",
    "mixrec-automl recommend mixrec-shop",
)
"""The README's summary of docs/tutorials/own-data.md, which test_tutorials.py types whole"""


def tell(folder: Path, document: str, without: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Each command of the document that is typed here, and what it printed."""
    for command in typed_in(ROOT / document):
        if not command.startswith((*without, *(beginning for beginning, _ in ELSEWHERE))):
            for named, ours in STANDS_FOR.items():
                command = command.replace(named, ours)
            yield command, type_in(folder, "bash", "-e", "-c", command)


def test_the_readme(tmp_path: Path) -> None:
    told = dict(tell(tmp_path, "README.md", without=OF_THE_TUTORIAL))
    (search, promote, by_text, by_item, studies, ablation) = told.values()
    assert "6/6 trials" in search
    assert "mixrec-automl promote demo" in search, "what to type next"
    assert "mixrec-walks version 1 is" in promote
    assert "after 2 items of history" in by_text
    assert [row["rank"] for row in json.loads(by_item)] == list(range(1, 11))
    assert {row["item"] for row in json.loads(by_item)}.isdisjoint({"w3", "w4"})
    assert "ablation" in studies
    assert "MRR minus MixRec" in ablation


def test_the_shop_of_recommending_and_updating(tmp_path: Path) -> None:
    told = list(tell(tmp_path, "docs/recommending.md"))

    def said(part: str) -> str:
        """What the first command with `part` in it printed."""
        return next(printed for command, printed in told if part in command)

    assert "mixrec-shop version 1 is now the champion" in said("promote shop")
    assert "after 3 items" in said("--item p03")
    assert "because of" in said("--why")
    assert "Bicycle helmet" in said("--why"), "a row of the gates"
    assert set(json.loads(said("--why --json"))) == {"recommendations", "gates"}
    assert "nearest to" in said("similar")
    assert "new items, by" in said("--new")
    assert "shop.pt2" in said("export mixrec-shop")
    *_, (_, update) = tell(tmp_path, "docs/updating.md")
    assert "mixrec-shop version 1: 44 items, 4 of them new to it; 460 users" in update
    assert "mixrec-shop version 2 is" in update


@pytest.mark.parametrize(("beginning", "where"), ELSEWHERE)
def test_what_is_tested_elsewhere_is_named_by_a_document(beginning: str, where: str) -> None:
    documents = ("README.md", "docs/recommending.md", "docs/updating.md")
    assert any(command.startswith(beginning) for document in documents for command in typed_in(ROOT / document))
    assert (ROOT / where).exists()
