"""Names against plain lists, and the hash against `json.dumps` of the whole."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data.names import Names, hash_as_json

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=9)


@settings(deadline=None)
@given(texts=TEXTS, data=st.data())
def test_names_are_the_sequence_they_were_made_of(texts: list[str], data: st.DataObject) -> None:
    names = Names.of(texts)
    assert Names.of(names) is names
    assert (list(names), len(names)) == (texts, len(texts))
    assert [names[position] for position in range(len(texts))] == texts
    assert names == texts
    assert names != [*texts, "x"]
    assert list(names[1:3]) == texts[1:3]
    positions = data.draw(st.lists(st.integers(0, len(texts) - 1))) if texts else []
    assert list(names.take(np.array(positions, dtype=np.int64))) == [texts[position] for position in positions]
    with pytest.raises(IndexError):
        names[len(texts)]


@settings(deadline=None)
@given(texts=TEXTS, at_once=st.integers(1, 4), as_names=st.booleans())
def test_the_hash_is_that_of_the_whole_json(texts: list[str], at_once: int, as_names: bool) -> None:
    digest = hashlib.sha256()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainers.data.names.AT_ONCE", at_once)
        hash_as_json(digest, Names.of(texts) if as_names else texts)
    assert digest.hexdigest() == hashlib.sha256(json.dumps(texts).encode()).hexdigest()
