"""RecFormer against a literal version, its three stages, its tokens, and the weights that it starts from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModel, BertConfig, BertModel, LongformerConfig, LongformerModel, RobertaConfig

from tests.oracles import literal_baselines as literal
from tests.trainers.baselines.test_train import SMALL, built, last_model, train
from tests.trainers.tiny_task import sequences
from trainers import checkpoint
from trainers.baselines.attribute_tokens import TokenType, TypedTokens, typed_tokens
from trainers.baselines.config import BaselinesConfig, RecFormerConfig
from trainers.baselines.package import read_baseline_package, write_baseline_package
from trainers.baselines.recformer import DrawnTargets, RecFormer, Stage
from trainers.baselines.rows import to_rows
from trainers.baselines.text_body import TextBody, read_first_alone, text_body
from trainers.baselines.train import load_baseline, rank_users
from trainers.data.sequence_data import Catalogue
from trainers.epochs import BEST, LAST
from trainers.errors import UserError
from trainers.metrics import summarise
from trainers.model.tiny_random import byte_tokenizer
from trainers.ranks import Setting

ITEMS, HISTORY, LONGEST, WORDS = 7, 4, 3, 20
SEQUENCES = [np.array(row, dtype=np.int32) for row in ([3, 1, 4], [1, 5, 2, 6, 5, 0], [6, 2], [0, 1])]
SIZES: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 20,
    "type_vocab_size": 4,
    "pad_token_id": 1,
}
CONFIGS = {
    "bert": BertConfig(**SIZES),
    "roberta": RobertaConfig(**SIZES),
    "longformer": LongformerConfig(**SIZES, attention_window=[4, 4]),
}


def tokens_of_items() -> TypedTokens:
    """One to three tokens an item, keys and values in turn."""
    found, rng = TypedTokens.blank(ITEMS, LONGEST), np.random.default_rng(1)
    for item in range(ITEMS):
        for place in range(1 + item % LONGEST):
            found.tokens[item, place], found.types[item, place] = int(rng.integers(2, WORDS)), 1 + place % 2
    found.tokens[-1, 0], found.types[-1, 0] = 2, TokenType.CLS
    return found


def made(family: str = "bert") -> RecFormer:
    torch.manual_seed(3)
    body = AutoModel.from_config(CONFIGS[family], add_pooling_layer=False)
    start = TextBody(body, tokens_of_items(), None, "random weights")
    model = RecFormer(HISTORY, start, temperature=0.3, stage_patience=2).double()
    for parameter in model.parameters():  # larger than at the start, so that every part counts
        parameter.data += 0.3 * torch.randn_like(parameter)
    model.eval()
    model.encode_items()
    return model


def literal_vector(model: RecFormer, history: list[int]) -> Tensor:
    state = literal.recformer_state(model, history)
    return state / state.norm()


@pytest.mark.parametrize("stage", list(Stage))
def test_scores_and_losses_follow_the_equations(stage: Stage) -> None:
    model, rows = made(), to_rows(SEQUENCES, ITEMS)
    windows = [row[-HISTORY - 1 :] for row in SEQUENCES]
    model.stage.fill_(stage)
    table = torch.stack([literal_vector(model, [item]) for item in range(ITEMS)])
    torch.testing.assert_close(model.item_vectors, table, atol=1e-10, rtol=1e-10)
    asked = torch.stack([literal_vector(model, row[-HISTORY:].tolist()) for row in SEQUENCES])
    torch.testing.assert_close(model.scores(rows), asked @ table.T / 0.3, atol=1e-10, rtol=1e-10)
    # Targets 4, 0, 2 and 1; the contrast is among them alone.
    targets = torch.tensor([int(row[-1]) for row in SEQUENCES])
    read = torch.stack([literal_vector(model, row[:-1].tolist()) for row in windows])
    logits = read @ table.T / 0.3
    if stage == Stage.CONTRAST:
        logits, targets = logits[:, [4, 0, 2, 1]], torch.arange(4)
    found, terms = model.loss_terms(to_rows(windows, ITEMS))
    torch.testing.assert_close(found, cross_entropy(logits, targets, reduction="sum"), atol=1e-10, rtol=1e-10)
    assert terms == 4
    found.backward()  # type: ignore[no-untyped-call]
    assert model.item_positions.weight.grad is not None


@pytest.mark.parametrize("family", list(CONFIGS))
def test_padding_changes_nothing_and_old_tokens_are_cut(family: str) -> None:
    model = made(family)
    together = model.scores(to_rows(SEQUENCES, ITEMS))
    alone = torch.cat([model.scores(to_rows([sequence], ITEMS)) for sequence in SEQUENCES])
    torch.testing.assert_close(together, alone, atol=1e-10, rtol=1e-10)
    model.places = 4  # [CLS] and the three tokens of the newest item, number 5
    cut = model.scores(to_rows([np.array([1, 2, 5]), np.array([6, 5])], ITEMS))
    torch.testing.assert_close(cut[0], cut[1], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_the_first_state_alone_is_the_librarys(family: str) -> None:
    """And so are its gradients."""
    torch.manual_seed(4)
    body = AutoModel.from_config(CONFIGS[family], add_pooling_layer=False).double().eval()
    vectors = torch.randn(3, 8, SIZES["hidden_size"], dtype=torch.float64)
    mask = (torch.arange(8) < torch.tensor([[8], [3], [5]])).long()
    found = []
    for _ in range(2):
        asked = vectors.clone().requires_grad_()
        first = body(inputs_embeds=asked, attention_mask=mask).last_hidden_state[:, 0]
        body.zero_grad()
        first.square().sum().backward()
        weight = body.encoder.layer[-1].attention.self.key.weight.grad
        found.append((first, asked.grad, weight.clone()))
        read_first_alone(body)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-10)


def test_one_target_of_each_user_is_drawn_in_its_training_part() -> None:
    data, seen = sequences(), set()
    for epoch in range(40):
        for rows in DrawnTargets(data, 3).batches(7, np.random.default_rng(epoch)):
            for items, length in zip(rows.items.tolist(), rows.lengths.tolist(), strict=True):
                assert 2 <= length <= 4
                seen.add(tuple(items[:length]))
    expected = {
        tuple(data.training(user)[max(0, target - 3) : target + 1].tolist())
        for user in range(data.num_users)
        for target in range(1, len(data.training(user)))
    }
    assert seen == expected


def test_stages_follow_each_other_and_resume_exactly(tmp_path: Path) -> None:
    data = sequences()
    config = replace(SMALL["recformer"], epochs=14, patience=14, stage_patience=1)
    train(config, data, tmp_path / "whole")
    stages = []
    for epoch in range(1, 15):  # stopped and gone on with after every epoch
        result, _, _ = train(config, data, tmp_path / "parts", stop_after=1)
        model = last_model(config, data, tmp_path / "parts")
        stages.append(int(model.stage))
        if len(stages) > 1 and stages[-1] > stages[-2]:
            best = checkpoint.read(tmp_path / "parts" / BEST)[0]
            same = [key for key, value in model.state_dict().items() if value.equal(best[key])]
            assert set(best) - set(same) <= {"stage", "stage_epochs"}, "it begins from the best epoch"
            frozen = model.item_vectors.clone()
        if stages[-1] == Stage.ITEMS_STAY:
            assert model.item_vectors.equal(frozen)
        assert result.epochs_run == epoch
    assert stages[0] == Stage.CONTRAST
    assert stages[-1] == Stage.ITEMS_STAY
    assert stages == sorted(stages)
    assert Stage.ITEMS_FOLLOW in stages
    one, other = (checkpoint.read(tmp_path / folder / LAST)[0] for folder in ("whole", "parts"))
    assert all(one[key].equal(other[key]) for key in one)
    best_model = load_baseline(lambda: built(config, data), tmp_path / "parts")
    (ranks,) = rank_users(best_model, data, [Setting("validation")])
    assert summarise(ranks).mrr == pytest.approx(result.mrr), "the item vectors are those of the best epoch"


def test_keys_are_told_from_values() -> None:
    sentence = "title a title brand b"
    catalogue = Catalogue(("x", "y"), ("a title", ""), (sentence, "no key"))
    tokenizer = byte_tokenizer(["title"])
    found = typed_tokens(catalogue, ("title", "brand"), tokenizer, attribute_tokens=7, item_tokens=12)
    pieces = [tokenizer.decode([token]) for token in found.tokens[0].tolist()]
    kinds = found.types[0].tolist()
    keys = "".join(piece for piece, kind in zip(pieces, kinds, strict=True) if kind == TokenType.KEY)
    values = "".join(piece for piece, kind in zip(pieces, kinds, strict=True) if kind == TokenType.VALUE)
    assert keys.replace(" ", "") == "titlebrand"
    assert values.replace(" ", "").startswith("at"), "a title may hold a key"
    assert set(found.types[1].tolist()) == {TokenType.VALUE, TokenType.PAD}
    assert (found.types[2] == TokenType.PAD).all()
    assert found.types[3].tolist() == [TokenType.CLS] + [TokenType.PAD] * 11


def written(folder: Path, model: Any) -> Path:
    model.save_pretrained(folder)
    byte_tokenizer(["title"]).save_pretrained(folder)
    return folder


def settings(**changed: Any) -> RecFormerConfig:
    return RecFormerConfig(**{"history": 5, "layers": 1, "dropout": 0.2, **changed})


CATALOGUE = Catalogue(("a", "b"), ("red", "blue"), ("title red", "title blue"))


def test_a_language_models_first_layers_are_what_it_starts_from(tmp_path: Path) -> None:
    whole = BertModel(BertConfig(**{**SIZES, "vocab_size": 320, "type_vocab_size": 2}))
    folder = written(tmp_path / "bert", whole)
    start = text_body(settings(weights=str(folder)), CATALOGUE, ("title",), tmp_path)
    assert start.started_from.startswith(f"{folder}, 1 of 2 layers (bert-1-")
    assert start.item_positions is None
    read, given = start.body.state_dict(), whole.state_dict()
    types = "embeddings.token_type_embeddings.weight"
    assert all(read[key].equal(given[key]) for key in read if key != types)
    assert not any(key.startswith("encoder.layer.1.") for key in read)
    assert read[types].shape == (4, 8)
    assert (read[types] - given[types][0]).abs().max() < 0.12
    assert start.body.config.hidden_dropout_prob == 0.2
    made_up = text_body(settings(weights=None, tokenizer=str(folder), width=16), CATALOGUE, (), tmp_path)
    assert made_up.started_from == "random weights"
    assert made_up.body.config.hidden_size == 16


def test_the_authors_weights_load(tmp_path: Path) -> None:
    """By the names of their state dict (`RecformerForSeqRec`), beside the configuration and tokenizer of Longformer."""
    torch.manual_seed(0)
    sizes = {**SIZES, "vocab_size": 320, "max_position_embeddings": 100}
    whole = LongformerModel(LongformerConfig(**sizes, attention_window=[8, 8]), add_pooling_layer=False)
    folder = written(tmp_path / "recformer", whole)
    positions = torch.randn(51, 8)
    published = {f"longformer.{key}": value for key, value in whole.state_dict().items()}
    extra = {"longformer.embeddings.item_position_embeddings.weight": positions, "lm_head.bias": torch.zeros(320)}
    save_file({**published, **extra}, folder / "model.safetensors")
    start = text_body(settings(weights=str(folder), layers=2), CATALOGUE, ("title",), tmp_path)
    read = start.body.state_dict()
    assert all(read[key].equal(value) for key, value in whole.state_dict().items())
    model = RecFormer(5, start, temperature=0.05, stage_patience=1).eval()
    assert model.item_positions.weight.equal(positions[:6])
    assert model.stage == Stage.ITEMS_FOLLOW, "its pre-training is done"
    with torch.no_grad():
        tokens = torch.cat([model.tokens[3, :1], model.tokens[1][model.types[1] != TokenType.PAD]]).unsqueeze(0)
        types = torch.cat([model.types[3, :1], model.types[1][model.types[1] != TokenType.PAD]]).unsqueeze(0).long()
        at = (torch.arange(tokens.shape[1]) > 0).long()
        vectors = whole.eval().embeddings.word_embeddings(tokens) + positions[at]
        sees_all = (at == 0).long().unsqueeze(0)
        expected = whole(inputs_embeds=vectors, token_type_ids=types, global_attention_mask=sees_all)
        found = model.encode(torch.tensor([[1]]))
    torch.testing.assert_close(found, expected.last_hidden_state[:, 0], atol=1e-5, rtol=1e-5)


def test_a_package_needs_no_folder_of_the_encoder(tmp_path: Path) -> None:
    folder = written(tmp_path / "bert", BertModel(BertConfig(**{**SIZES, "vocab_size": 320, "type_vocab_size": 2})))
    config = settings(weights=str(folder))
    start = text_body(config, CATALOGUE, ("title",), tmp_path)
    model = RecFormer(5, start, temperature=config.temperature, stage_patience=1).eval()
    model.encode_items()
    settings_of_all = BaselinesConfig(recformer=config)
    write_baseline_package(tmp_path / "package", "recformer", settings_of_all, model, CATALOGUE, "data")
    shutil.rmtree(folder)
    package = read_baseline_package(tmp_path / "package")
    history = np.array([1, 0], dtype=np.int32)
    torch.testing.assert_close(package.score([history])[0], model.score_history(history).detach())
    assert package.model.started_from == start.started_from


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is of family 'llama'; RecFormer reads bert"):
        text_body(settings(weights="tiny-random"), CATALOGUE, (), tmp_path)
    model = BertModel(BertConfig(**{**SIZES, "vocab_size": 320}))
    folder = written(tmp_path / "bert", model)
    with pytest.raises(UserError, match=r"layers: 3 asked for, but .* has 1 to 2"):
        text_body(settings(weights=str(folder), layers=3), CATALOGUE, (), tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pickled: write them as model\.safetensors"):
        text_body(settings(weights=str(folder)), CATALOGUE, (), tmp_path)
