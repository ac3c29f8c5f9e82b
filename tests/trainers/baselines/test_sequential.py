"""GRU4Rec, SASRec, BERT4Rec and FDSA against their equations, and what they must not look at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.oracles import literal_baselines as literal
from trainers.baselines.bert4rec import BERT4Rec
from trainers.baselines.config import SasRecConfig
from trainers.baselines.fdsa import FDSA
from trainers.baselines.gru4rec import GRU4Rec
from trainers.baselines.item_features import word_features
from trainers.baselines.rows import Rows, to_rows
from trainers.baselines.sasrec import SampledLoss, SASRec
from trainers.baselines.sequential import CausalModel, SequentialModel
from trainers.baselines.transformer import TransformerSize
from trainers.baselines.unisrec import UniSRec
from trainers.data.sequence_data import Catalogue
from trainers.model.item_loss import gbce

ITEMS, HISTORY = 11, 6
SIZE = TransformerSize(width=8, layers=2, heads=2, dropout=0.3, inner=32)
SEQUENCES = [np.array(row, dtype=np.int32) for row in ([3, 1, 4], [1, 5, 9, 2, 6, 5], [7], [10, 0])]
SENTENCES = tuple(f"title thing {'red' if item % 2 else 'blue'} {item // 3} once{item}" for item in range(ITEMS))
CAUSAL = ("gru4rec", "sasrec", "fdsa")


def made(name: str) -> Any:
    torch.manual_seed(3)
    model: SequentialModel
    if name == "gru4rec":
        model = GRU4Rec(ITEMS, HISTORY, width=8, hidden=12, layers=2, dropout=0.3)
    elif name == "sasrec":
        model = SASRec(ITEMS, HISTORY, SIZE)
    elif name == "bert4rec":
        model = BERT4Rec(ITEMS, HISTORY, SIZE, mask_share=0.3, last_share=0.5)
    else:
        catalogue = Catalogue(SENTENCES, SENTENCES, SENTENCES)
        model = FDSA(ITEMS, HISTORY, SIZE, *word_features(catalogue, most=4, least_items=2))
    for parameter in model.parameters():  # larger than at the start, so that every part counts
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model.double().eval()


@pytest.mark.parametrize("transductive", [True, False])
def test_unisrec_scores_and_loss_follow_the_equations(transductive: bool) -> None:
    torch.manual_seed(4)
    texts = torch.randn(ITEMS, 5)
    model = UniSRec(
        HISTORY, SIZE, texts, experts=3, adaptor_dropout=0.2, temperature=0.5, transductive=transductive
    ).double()
    adaptor = model.adaptor
    assert torch.equal(adaptor.gate, torch.zeros_like(adaptor.gate)), "starts even"
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    model.eval()
    vectors = []
    for item in range(ITEMS):
        gate = (adaptor.gate.T @ texts[item].double()).softmax(0)
        whitened = [adaptor.maps[one].T @ (texts[item].double() - adaptor.shifts[one]) for one in range(3)]
        vector = sum(share * part for share, part in zip(gate, whitened, strict=True))
        vectors.append(vector if model.item_embedding is None else vector + model.item_embedding.weight[item])
    table = torch.stack(vectors)  # type: ignore[arg-type]
    ranked = table / table.norm(dim=1, keepdim=True)
    expected, total, terms = [], torch.zeros((), dtype=torch.float64), 0
    for sequence in SEQUENCES:
        items = torch.from_numpy(sequence.astype(np.int64))
        states = literal.transformer(model.transformer, table[items])
        logits = states / states.norm(dim=1, keepdim=True) @ ranked.T / 0.5
        expected.append(logits[-1])
        total = total + cross_entropy(logits[:-1], items[1:], reduction="sum")
        terms += len(items) - 1
    rows = to_rows(SEQUENCES, ITEMS)
    torch.testing.assert_close(model.scores(rows), torch.stack(expected), atol=1e-10, rtol=1e-10)
    found, counted = model.loss_terms(rows)
    assert counted == terms
    torch.testing.assert_close(found, total, atol=1e-9, rtol=1e-10)
    model.train()
    assert not torch.equal(model.item_vectors(), model.item_vectors()), "noise and dropout"


def literal_states(model: Any, items: Tensor) -> Tensor:
    vectors = model.item_embedding.weight[items]
    if isinstance(model, GRU4Rec):
        return literal.gru(model, vectors)
    if isinstance(model, SASRec):
        return literal.transformer(model.transformer, vectors)
    of_items = literal.transformer(model.of_items, vectors)
    of_features = literal.transformer(model.of_features, literal.features(model, items))
    norm = model.output_norm
    return torch.stack(
        [
            literal.norm(model.output.weight @ torch.cat([a, b]) + model.output.bias, norm.weight, norm.bias, norm.eps)
            for a, b in zip(of_items, of_features, strict=True)
        ]
    )


@pytest.mark.parametrize("name", CAUSAL)
def test_states_scores_and_loss_follow_the_equations(name: str) -> None:
    model, rows = made(name), to_rows(SEQUENCES, ITEMS)
    vectors = model.item_embedding.weight[:ITEMS]
    expected, total, terms = [], torch.zeros((), dtype=torch.float64), 0
    for sequence in SEQUENCES:
        items = torch.from_numpy(sequence.astype(np.int64))
        expected.append(literal_states(model, items)[-1] @ vectors.T)
        if len(items) > 1:
            logits = literal_states(model, items[:-1]) @ vectors.T
            total = total + cross_entropy(logits, items[1:], reduction="sum")
            terms += len(items) - 1
    torch.testing.assert_close(model.scores(rows), torch.stack(expected), atol=1e-10, rtol=1e-10)
    found, counted = model.loss_terms(rows)
    assert counted == terms
    torch.testing.assert_close(found, total, atol=1e-9, rtol=1e-10)


def test_fdsa_drops_parts_of_its_states_in_training_alone() -> None:
    model, items = made("fdsa"), torch.tensor([[1, 2, 3, 4, 5, 6]] * 400)
    assert (model.states(items) != 0).all()
    model.output_dropout.p = 0.5
    assert (model.train().states(items) == 0).double().mean().item() == pytest.approx(0.5, abs=0.03)


def test_bert4rec_fills_in_what_is_masked() -> None:
    model = made("bert4rec")
    rows = to_rows(SEQUENCES, ITEMS)
    expected = []
    for sequence in SEQUENCES:
        items = torch.tensor([*sequence.tolist(), model.mask])
        hidden = literal.transformer(model.transformer, model.item_embedding.weight[items])[-1]
        linear, _, last = model.output
        state = literal.norm(
            torch.nn.functional.gelu(linear.weight @ hidden + linear.bias), last.weight, last.bias, last.eps
        )
        expected.append(model.item_embedding.weight[:ITEMS] @ state + model.output_bias)
    torch.testing.assert_close(model.scores(rows), torch.stack(expected), atol=1e-10, rtol=1e-10)


def test_bert4rec_masks_the_share_it_is_told_and_one_at_least() -> None:
    rows = to_rows([np.arange(10, dtype=np.int32)] * 4000 + [np.arange(2, dtype=np.int32)] * 4000, ITEMS)
    torch.manual_seed(0)
    model = BERT4Rec(ITEMS, 12, SIZE, mask_share=0.2, last_share=0.0)
    hidden = model._places_to_hide(rows)
    assert not hidden[rows.items == ITEMS].any()
    assert (hidden.sum(dim=1) >= 1).all()
    # Ten items: at least one, so the mean share is a little above .2: (2 + .8^10) / 10.
    assert hidden[:4000].double().sum(dim=1).mean().item() == pytest.approx(2 + 0.8**10, abs=0.06)
    model.last_share = 1.0
    only_last = model._places_to_hide(rows)
    assert (only_last.sum(dim=1) == 1).all()
    assert only_last[torch.arange(8000), rows.last].all()


@pytest.mark.parametrize("name", [*CAUSAL, "bert4rec"])
def test_padding_changes_nothing(name: str) -> None:
    model = made(name)
    together = model.scores(to_rows(SEQUENCES, ITEMS))
    alone = torch.cat([model.scores(to_rows([sequence], ITEMS)) for sequence in SEQUENCES])
    torch.testing.assert_close(together, alone, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", CAUSAL)
def test_no_place_sees_a_later_one(name: str) -> None:
    model: CausalModel = made(name)
    items = torch.tensor([[1, 2, 3, 4, 5, 6]])
    changed = torch.tensor([[1, 2, 3, 9, 9, 9]])
    torch.testing.assert_close(model.states(items)[:, :3], model.states(changed)[:, :3], atol=1e-12, rtol=0)
    assert not torch.allclose(model.states(items)[:, 3:], model.states(changed)[:, 3:])


@pytest.mark.parametrize("name", CAUSAL)
def test_a_target_of_another_window_is_context_alone(name: str) -> None:
    model = made(name)
    whole = to_rows([SEQUENCES[1]], ITEMS)
    later = Rows(whole.items, whole.lengths, torch.tensor([4]))
    states = literal_states(model, whole.items[0, :-1])[3:]
    expected = cross_entropy(states @ model.item_embedding.weight[:ITEMS].T, whole.items[0, 4:], reduction="sum")
    found, terms = model.loss_terms(later)
    assert terms == 2
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-10)


def test_gbce_over_the_whole_catalogue_is_the_closed_form() -> None:
    """With every item sampled there is no over-confidence to correct: plain binary cross entropy."""
    torch.manual_seed(5)
    settings = SasRecConfig()
    model = SASRec(ITEMS, HISTORY, SIZE, SampledLoss(ITEMS, settings.gbce_calibration)).double().eval()
    states, targets = torch.randn(4, 8, dtype=torch.float64), torch.tensor([1, 2, 3, 4])
    logits = states @ model.item_embedding.weight[:ITEMS].T
    labels = torch.nn.functional.one_hot(targets, ITEMS).double()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    torch.testing.assert_close(model.item_loss(states, targets), expected)
    few = SASRec(ITEMS, HISTORY, SIZE, SampledLoss(5, 0.75)).double().eval()
    torch.manual_seed(6)
    drawn = torch.randperm(ITEMS)[:5]
    torch.manual_seed(6)
    vectors = few.item_embedding.weight[:ITEMS]
    asked = gbce(states, vectors, vectors.new_zeros(ITEMS), targets, drawn, calibration=0.75)
    torch.testing.assert_close(few.item_loss(states, targets), asked)


def test_words_of_the_sentences_are_features() -> None:
    sentences = ("title Red ball", "title red RED cup", "title blue", "title")
    features, count = word_features(Catalogue(sentences, sentences, sentences), most=2, least_items=1)
    # Sorted: ball, blue, cup, red; "title" is in all of them.
    assert count == 4
    assert features.tolist() == [[3, 0], [3, 2], [1, 4], [4, 4], [4, 4]]
    features, count = word_features(Catalogue(sentences, sentences, sentences), most=2, least_items=2)
    assert (count, features.tolist()) == (1, [[0], [0], [1], [1], [1]])
