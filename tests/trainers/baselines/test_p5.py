"""P5 against the library's T5, item by item; its IDs and their tree; the weights that it starts from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.oracles import literal_p5 as literal
from tests.trainers.baselines.test_train import train
from tests.trainers.tiny_t5_folder import write_tiny_t5
from tests.trainers.tiny_task import sequences
from trainers.baselines import p5
from trainers.baselines.config import BaselinesConfig, P5Config
from trainers.baselines.p5 import P5
from trainers.baselines.p5_tokens import PrefixTree, digit_pieces
from trainers.baselines.p5_weights import P5Body, build_p5
from trainers.baselines.package import read_baseline_package, write_baseline_package
from trainers.baselines.rows import Rows, to_rows
from trainers.errors import UserError
from trainers.recommend import Query, recommend

ITEMS = 130
"""Two pieces each, of three beginnings"""
SEQUENCES = [np.array(row, dtype=np.int32) for row in ([3, 1, 4], [1, 5, 129, 2, 6, 5], [7], [10, 0])]


def made(tmp_path: Path, weights: str) -> P5:
    """In float64, with whole words that count."""
    torch.manual_seed(3)
    folder = str(write_tiny_t5(tmp_path / "t5")) if weights == "published" else None
    model = build_p5(P5Config(width=16, layers=2, heads=2, history=6, weights=folder), ITEMS)
    model.encoder.whole_word_embeddings.weight.data.normal_()
    return model.double().eval()


@pytest.mark.parametrize("weights", ["random", "published"])
def test_a_score_is_the_likelihood_of_the_id_alone(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every item, through the shared tree, in chunks of prefixes and of users."""
    model, rows = made(tmp_path, weights), to_rows(SEQUENCES, ITEMS)
    t5 = literal.plain_t5(model)
    monkeypatch.setattr(p5, "USERS_AT_ONCE", 3)
    with torch.inference_mode():
        expected = torch.tensor(
            [
                [literal.log_likelihoods(model, t5, row.tolist(), item).sum() for item in range(ITEMS)]
                for row in SEQUENCES
            ]
        )
        for at_once in (1, 4, 128):
            monkeypatch.setattr(p5, "PREFIXES_AT_ONCE", at_once)
            torch.testing.assert_close(model.scores(rows), expected, atol=1e-10, rtol=1e-10)
        single = model.float().scores(rows)
    torch.testing.assert_close(single, expected.float(), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("weights", ["random", "published"])
def test_the_loss_is_that_of_one_target_a_row(weights: str, tmp_path: Path) -> None:
    model = made(tmp_path, weights)
    t5 = literal.plain_t5(model)
    rows = to_rows([SEQUENCES[0], SEQUENCES[1]], ITEMS)
    rows = Rows(rows.items, rows.lengths, rows.lengths - 1)  # one place to draw
    with torch.inference_mode():
        total, terms = model.loss_terms(rows)
        each = [literal.log_likelihoods(model, t5, row[:-1].tolist(), int(row[-1])) for row in SEQUENCES[:2]]
    assert terms == sum(len(one) for one in each)
    torch.testing.assert_close(total, -sum(one.sum() for one in each), atol=1e-10, rtol=1e-10)  # type: ignore[arg-type]


def test_every_target_is_drawn_and_none_of_another_window(tmp_path: Path) -> None:
    model, drawn = made(tmp_path, "random"), set()
    rows = Rows(torch.tensor([[3, 1, 4, 9, 8]]), torch.tensor([5]), torch.tensor([2]))
    possible = {}
    for place in (2, 3, 4):
        alone = Rows(rows.items[:, : place + 1], torch.tensor([place + 1]), torch.tensor([place]))
        possible[place] = model.loss_terms(alone)[0].item()
    torch.manual_seed(0)
    for _ in range(60):
        loss = model.loss_terms(rows)[0].item()
        drawn |= {place for place, value in possible.items() if value == pytest.approx(loss)}
        assert any(value == pytest.approx(loss) for value in possible.values())
    assert drawn == {2, 3, 4}


@pytest.mark.parametrize("weights", ["random", "published"])
def test_a_prompt_has_no_gaps_and_names_whole_words(weights: str, tmp_path: Path) -> None:
    model = made(tmp_path, weights)
    tokens, words = model.prompt(to_rows(SEQUENCES, ITEMS).items)
    for row, sequence in enumerate(SEQUENCES):
        expected, places = literal.prompt(model, sequence.tolist())
        assert tokens[row, : len(expected)].tolist() == expected
        assert (tokens[row, len(expected) :] == -100).all()
        assert words[row, : len(places)].tolist() == places


@pytest.mark.parametrize(("num_items", "length"), [(1, 1), (100, 1), (101, 2), (10_000, 2), (10_001, 3)])
def test_ids_are_distinct_numbers_of_one_length(num_items: int, length: int) -> None:
    written = digit_pieces(num_items).items
    assert {len(pieces) for pieces in written} == {length}
    numbers = [sum((piece - 3) * 100**place for place, piece in enumerate(reversed(pieces))) for pieces in written]
    assert sorted(numbers) == list(range(num_items))
    assert num_items < 50 or numbers != sorted(numbers), "shuffled"
    assert written == digit_pieces(num_items).items, "the same each time"


def test_the_tree_has_every_prefix_once() -> None:
    tree = PrefixTree([(5, 6, 1), (5, 1), (4, 6, 1), (5, 6, 7, 1)], start=0)
    # Nodes, depth first: (), (4), (4 6), (5), (5 6), (5 6 7).
    assert tree.read.tolist() == [0, 4, 6, 5, 6, 7]
    assert tree.depth.tolist() == [0, 1, 2, 1, 2, 3]
    assert tree.with_ancestors(4, 6).tolist() == [0, 3, 4, 5]
    assert tree.sees(torch.tensor([0, 3, 4])).tolist() == [[True, False, False], [True, True, False], [True] * 3]
    steps = list(zip(tree.step_node.tolist(), tree.step_piece.tolist(), strict=True))
    assert steps == [(0, 4), (0, 5), (1, 6), (2, 1), (3, 1), (3, 6), (4, 1), (4, 7), (5, 1)]
    assert tree.paths.tolist() == [[1, 5, 6, 9], [1, 4, 9, 9], [0, 2, 3, 9], [1, 5, 7, 8]]
    with pytest.raises(ValueError, match="same ID"):
        PrefixTree([(1, 2), (1, 2)], start=0)
    with pytest.raises(ValueError, match="beginning of another"):
        PrefixTree([(1, 2), (1, 2, 3)], start=0)


def test_published_weights_rule_and_are_named(tmp_path: Path) -> None:
    folder = write_tiny_t5(tmp_path / "t5")
    model = build_p5(P5Config(width=64, layers=3, dropout=0.4, weights=str(folder)), ITEMS)
    assert (model.body_config.d_model, model.body_config.num_layers, model.body_config.dropout_rate) == (16, 1, 0.4)
    t5 = literal.T5ForConditionalGeneration.from_pretrained(folder)
    assert model.pieces.weight.equal(t5.shared.weight)
    assert model.decoder.final_layer_norm.weight.equal(t5.decoder.final_layer_norm.weight)
    assert model.encoder.whole_word_embeddings.weight.std().item() == pytest.approx(16**-0.5, rel=0.1)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12]
    assert model.started_from == f"{folder} (sha256 {digest})"
    assert len({len(pieces) for pieces in model.written.items}) > 1
    assert all(pieces[-1] == 1 for pieces in model.written.items)
    assert build_p5(P5Config(), ITEMS).started_from == "random weights"


def test_whole_words_of_a_p5_checkpoint_are_read(tmp_path: Path) -> None:
    folder = write_tiny_t5(tmp_path / "p5", is_p5=True)
    model = build_p5(P5Config(weights=str(folder)), ITEMS)
    kept = P5Body.from_pretrained(folder).encoder.whole_word_embeddings.weight
    assert model.encoder.whole_word_embeddings.weight.equal(kept)


def test_a_package_needs_no_folder_of_weights(tmp_path: Path) -> None:
    folder, data = write_tiny_t5(tmp_path / "t5"), sequences()
    config = P5Config(weights=str(folder), epochs=1, batch_size=10)
    train(config, data, tmp_path / "training")
    model = build_p5(config, data.num_items).eval()
    settings = replace(BaselinesConfig(), p5=config)
    write_baseline_package(tmp_path / "package", "p5", settings, model, data.catalogue, data.fingerprint)
    folder.rename(tmp_path / "gone")
    package, history = read_baseline_package(tmp_path / "package"), np.array([3, 4, 5], dtype=np.int32)
    assert isinstance(package.model, P5)
    assert package.model.started_from == model.started_from
    torch.testing.assert_close(package.score([history])[0], model.score_history(history).detach(), atol=1e-4, rtol=1e-4)
    assert len(recommend(package, Query([data.catalogue.ids[3]], k=5))) == 5


def test_weights_that_are_none_are_refused(tmp_path: Path) -> None:
    def refused(match: str, folder: Path | str) -> None:
        with pytest.raises(UserError, match=match):
            build_p5(P5Config(weights=str(folder)), ITEMS)

    refused("no such folder; give a folder with config.json", tmp_path / "nowhere")
    folder = write_tiny_t5(tmp_path / "t5")
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, "model_type": "llama"}))
    refused("no T5 of the first version, such as t5-small", folder)
    (folder / "config.json").write_text(json.dumps({**told, "num_layers": 2, "num_decoder_layers": 2}))
    refused("lacks the weights", folder)
    (folder / "config.json").write_text(json.dumps({**told, "d_model": 12}))
    refused("cannot read a T5", folder)
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "tokenizer.json").unlink()
    refused("tokenizer", folder)
