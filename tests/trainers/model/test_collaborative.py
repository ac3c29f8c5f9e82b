"""NCF and MF against their formulas written out for one pair at a time."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from trainers.model.collaborative import MF, NCF, CollaborativeModel, build_collaborative

KINDS: tuple[Literal["ncf", "mf"], ...] = ("ncf", "mf")


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> CollaborativeModel:
    torch.manual_seed(0)
    built = build_collaborative(request.param, num_users=7, num_items=11, dim=8).double()
    for parameter in built.parameters():  # large enough for every part to matter
        torch.nn.init.normal_(parameter)
    return built


def literal_score(model: CollaborativeModel, user: int, item: int) -> float:
    weights = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    if isinstance(model, MF):
        dot = sum(a * b for a, b in zip(weights["user.weight"][user], weights["item.weight"][item], strict=True))
        return dot + weights["item_bias.weight"][item][0]
    product = [a * b for a, b in zip(weights["user_gmf.weight"][user], weights["item_gmf.weight"][item], strict=True)]
    joined = weights["user_mlp.weight"][user] + weights["item_mlp.weight"][item]
    hidden = [
        max(0.0, bias + sum(a * b for a, b in zip(row, joined, strict=True)))
        for row, bias in zip(weights["hidden.weight"], weights["hidden.bias"], strict=True)
    ]
    last = zip(weights["output.weight"][0], product + hidden, strict=True)
    return weights["output.bias"][0] + sum(a * b for a, b in last)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_scores_are_the_formula(model: CollaborativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.model.collaborative.HIDDEN_VALUES_AT_ONCE", 60)  # several chunks of items
    users = torch.tensor([6, 0, 3, 0])
    expected = torch.tensor(
        [[literal_score(model, u, i) for i in range(11)] for u in users.tolist()], dtype=torch.float64
    )
    torch.testing.assert_close(model.score_all(users), expected, rtol=1e-12, atol=1e-12)
    items = torch.tensor([[10, 2], [2, 2], [0, 5], [1, 9]])
    torch.testing.assert_close(model.score(users, items), expected.gather(1, items), rtol=1e-12, atol=1e-12)


def test_the_loss_is_a_sum_over_pairs(model: CollaborativeModel) -> None:
    users, positives = torch.tensor([1, 5, 1]), torch.tensor([0, 3, 9])
    negatives = torch.tensor([[2, 4], [10, 10], [1, 7]])
    terms = []
    for user, positive, row in zip(users.tolist(), positives.tolist(), negatives.tolist(), strict=True):
        at_positive = literal_score(model, user, positive)
        others = [literal_score(model, user, item) for item in row]
        if isinstance(model, MF):
            terms += [-math.log(sigmoid(at_positive - other)) for other in others]
        else:
            terms += [-math.log(sigmoid(at_positive)), *(-math.log(1 - sigmoid(other)) for other in others)]
    total, count = model.loss_terms(users, positives, negatives)
    assert count == len(terms)
    assert total.item() == pytest.approx(sum(terms), rel=1e-12)


def test_parts_of_a_batch_add_up(model: CollaborativeModel) -> None:
    users, positives = torch.tensor([1, 5, 1]), torch.tensor([0, 3, 9])
    negatives = torch.tensor([[2, 4], [10, 10], [1, 7]])
    whole, count = model.loss_terms(users, positives, negatives)
    parts = [model.loss_terms(users[cut], positives[cut], negatives[cut]) for cut in (slice(0, 1), slice(1, 3))]
    assert sum(total.item() for total, _ in parts) == pytest.approx(whole.item(), rel=1e-12)
    assert sum(number for _, number in parts) == count


def test_vectors_are_as_wide_as_said_and_hold_the_embeddings(model: CollaborativeModel) -> None:
    users, items = torch.tensor([[0, 6], [2, 2]]), torch.tensor([3, 10])
    assert model.user_vectors(users).shape == (2, 2, 8)
    assert model.item_vectors(items).shape == (2, 8)
    if isinstance(model, NCF):
        expected = torch.cat([model.item_gmf.weight[items], model.item_mlp.weight[items]], dim=1)
        assert model.item_vectors(items).equal(expected)
        assert model.user_vectors(users[0])[1].equal(torch.cat([model.user_gmf.weight[6], model.user_mlp.weight[6]]))
    elif isinstance(model, MF):
        assert model.item_vectors(items).equal(model.item.weight[items])
        assert model.user_vectors(users).equal(model.user.weight[users])


def test_every_parameter_learns(model: CollaborativeModel) -> None:
    users = torch.arange(7)
    total, _ = model.loss_terms(users, torch.arange(7), torch.arange(4, 11).unsqueeze(1))
    (total + model.score_all(users).sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_two_groups_of_users_are_told_apart(kind: Literal["ncf", "mf"]) -> None:
    """Users of one half take items of one half; after training, items of the own half rank above the others."""
    torch.manual_seed(0)
    model = build_collaborative(kind, num_users=40, num_items=20, dim=16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    users = torch.arange(40).repeat(8)
    for _ in range(60):
        own = 10 * (users % 2)
        positives, negatives = torch.randint(10, users.shape) + own, torch.randint(10, (len(users), 4))
        total, count = model.loss_terms(users, positives, negatives + (10 - own).unsqueeze(1))
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    scores = model.score_all(torch.arange(40)).reshape(20, 2, 2, 10)
    assert scores[:, 0, 0].min() > scores[:, 0, 1].max()
    assert scores[:, 1, 1].min() > scores[:, 1, 0].max()
