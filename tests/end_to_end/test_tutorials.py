"""The tutorials as a reader types them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from mixrec_automl.registry import Registry
from tests.contracts.repository import ROOT
from tests.end_to_end.shell import Shell
from tests.end_to_end.typed import type_in
from tests.trainers.tiny_backbone_folder import write_tiny_backbone
from trainers.model.pretrained import load_pretrained

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(1200)]

TUTORIALS = ROOT / "docs/tutorials"
BLOCK = re.compile(r'^```(?P<kind>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```', re.S | re.M)


def test_a_shop_of_twelve_things(tmp_path: Path) -> None:
    kinds, told = [], []
    for block in BLOCK.finditer((TUTORIALS / "own-data.md").read_text("utf-8")):
        kinds.append(block["kind"])
        if block["title"]:
            (tmp_path / block["title"]).write_text(block["text"])
        if block["kind"] == "python":
            type_in(tmp_path, sys.executable, block["title"])
        elif block["kind"] == "bash":
            told.append(type_in(tmp_path, "bash", "-e", "-c", block["text"]))
    assert kinds == ["csv", "python", "bash", "bash", "python", "bash"], "every block was tried"
    _, promoted, updated = told
    assert "mixrec-shop version 1 is now the champion" in promoted  # popularity has a third of any design's MRR here
    after_both = promoted[promoted.index("after 2 items of history") :]
    assert "Milk frother" in after_both, "what follows an espresso machine and a grinder"
    assert "mixrec-shop version 1: 13 items, 1 of them new to it; 200 users" in updated
    assert "mixrec-shop version 2 is" in updated
    assert Registry(f"sqlite:///{Shell(tmp_path).home / 'mlflow.db'}").find("mixrec-shop/2").version == "2"


def test_a_backbone_out_of_a_folder(tmp_path: Path) -> None:
    (block,) = (
        found["text"]
        for found in BLOCK.finditer((TUTORIALS / "own-backbone.md").read_text("utf-8"))
        if found["kind"] == "python"
    )
    write_tiny_backbone(tmp_path / "published", "opt")
    here, replaced = re.subn(r'^name = ".*"$', 'name = "published"', block, flags=re.M)  # no hub is at hand
    assert replaced == 1
    type_in(tmp_path, sys.executable, "-c", here)
    assert load_pretrained(str(tmp_path / "my-backbone"), None, tmp_path).model.config.num_hidden_layers == 1
