"""Item sentences and tokens, against plain calls of the tokenizer, one item at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from trainers.data.errors import DataError
from trainers.data.item_text import item_sentence, item_tokens, tokenize_items, tokenizer_fingerprint
from trainers.data.sequence_data import Catalogue, ItemTokens, SequenceData

SENTENCES = ("title Garden hose year 1995", "title Heat brand Café", "title Heat")


def byte_level(vocabulary: int = 300) -> PreTrainedTokenizerFast:
    """A byte-level BPE that, like Llama's, would add a BOS token if it were asked for special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        SENTENCES * 20,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            show_progress=False,
            special_tokens=["<s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", truncation_side="left")


def data_of(sentences: tuple[str, ...]) -> SequenceData:
    none = np.zeros(1, dtype=np.int64)
    return SequenceData(none, np.empty(0, dtype=np.int32), (), Catalogue(sentences, sentences, sentences), "print")


def rows(tokens: ItemTokens) -> list[list[int]]:
    return [tokens.row(item).tolist() for item in range(len(tokens.offsets) - 1)]


def test_sentence_keeps_order_and_leaves_out_what_is_empty() -> None:
    assert item_sentence({"title": "Heat", "brand": "", "category": "A B"}) == "title Heat category A B"
    assert item_sentence({"title": ""}) == ""


@pytest.mark.parametrize("limit", [1, 4, 100])
def test_each_item_alone_no_special_tokens_cut_at_the_end(limit: int) -> None:
    tokenizer = byte_level()
    tokens = tokenize_items(SENTENCES, tokenizer, limit)
    alone = [tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids[:limit] for text in SENTENCES]
    assert rows(tokens) == alone
    assert (tokens.tokens.dtype, tokens.offsets.dtype) == (np.int32, np.int64)
    assert all(0 not in row for row in alone)
    # The cut is at the end although this tokenizer would cut at the start.
    assert tokenizer.decode(alone[0]) == SENTENCES[0][: len(tokenizer.decode(alone[0]))]


def test_an_item_without_tokens_is_refused() -> None:
    word_level = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"title": 0}, unk_token="none")))
    with pytest.raises(DataError, match=r"item number 1 \(''\) has no tokens"):
        tokenize_items(("title", ""), word_level, 5)


def test_cache_is_keyed_by_tokenizer_limit_and_data(tmp_path: Path) -> None:
    small, large = byte_level(), byte_level(262)
    data = data_of(SENTENCES)
    for tokenizer in (small, large):
        for limit in (2, 30):
            for _ in range(2):
                cached = item_tokens(tmp_path, data, tokenizer, limit)
                assert rows(cached) == rows(tokenize_items(SENTENCES, tokenizer, limit))
                assert isinstance(cached.tokens, np.memmap)
    assert len(list(tmp_path.iterdir())) == 4
    other = SequenceData(data.offsets, data.items, (), Catalogue(("a",), ("a",), ("title",)), "another print")
    assert len(item_tokens(tmp_path, other, small, 30).offsets) == 2


def test_a_second_call_reads_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, data = byte_level(), data_of(SENTENCES)
    first = rows(item_tokens(tmp_path, data, tokenizer, 30))
    monkeypatch.setattr("trainers.data.item_text.tokenize_items", lambda *_: pytest.fail("tokenised twice"))
    assert rows(item_tokens(tmp_path, data, tokenizer, 30)) == first


def test_several_at_once_agree(tmp_path: Path) -> None:
    data = data_of(tuple(f"title Thing {n}" for n in range(2000)))

    def run(_: int) -> list[list[int]]:
        return rows(item_tokens(tmp_path, data, byte_level(), 30))

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(run, range(6)))
    assert all(result == results[0] for result in results)
    assert len([path for path in tmp_path.iterdir() if path.name.startswith("tokens-")]) == 1
    assert not list(tmp_path.glob(".*"))


def test_fingerprint_ignores_truncation_and_sees_the_rules() -> None:
    tokenizer = byte_level()
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["a", "b c"], truncation=True, max_length=1, padding=False)
    assert tokenizer_fingerprint(tokenizer) == before == tokenizer_fingerprint(byte_level())
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert tokenizer_fingerprint(tokenizer) != before


def test_a_tokenizer_written_in_python_works_and_has_a_stable_fingerprint(tmp_path: Path) -> None:
    tokens = item_tokens(tmp_path, data_of(SENTENCES), ByT5Tokenizer(), 12)
    # ByT5's tokens are the bytes, after three special tokens.
    assert rows(tokens) == [[byte + 3 for byte in text.encode()[:12]] for text in SENTENCES]
    assert tokenizer_fingerprint(ByT5Tokenizer()) == tokenizer_fingerprint(ByT5Tokenizer())
    assert tokenizer_fingerprint(ByT5Tokenizer()) != tokenizer_fingerprint(ByT5Tokenizer(extra_ids=7))
