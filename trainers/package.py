"""A trained recommender as one folder that needs nothing else: no network, no database, no pickle.

model.json           format, configuration, architecture, fingerprints
weights.safetensors  trained weights of MixRec
items.safetensors    item tokens and which items M_cf knows
catalogue.parquet    id, title, sentence of every item, in index order
backbone/            the frozen layers that are used, and the tokenizer
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from search_spaces.architecture import Architecture
from trainers.config import FinetuneConfig
from trainers.data.batches import Layout
from trainers.data.item_text import tokenize_items
from trainers.data.sequence_data import Catalogue, ItemTokens
from trainers.device import pick_device
from trainers.errors import UserError, refusing
from trainers.evaluate import UNKNOWN_USER, context_of, score_histories, window
from trainers.history_cache import HistoryCache
from trainers.model.backbone import as_backbone
from trainers.model.kv_cache import can_cache
from trainers.model.mixrec import MixRec
from trainers.model.pretrained import load_pretrained, quiet
from trainers.task import TrainingTask

FORMAT = 1
DESCRIPTION, WEIGHTS, ITEMS, CATALOGUE = "model.json", "weights.safetensors", "items.safetensors", "catalogue.parquet"
BACKBONE = "backbone"
ITEM_KINDS = {"offsets": torch.int64, "tokens": torch.int32, "known": torch.bool, "prompt": torch.int64}
"""Of the tensors in `ITEMS`"""


@dataclass(frozen=True)
class Package:
    """A loaded recommender."""

    model: MixRec
    layout: Layout
    tokenizer: PreTrainedTokenizerFast
    catalogue: Catalogue
    config: FinetuneConfig
    architecture: Architecture
    data_fingerprint: str
    """Of the data it was trained on: its ranks compare only with those on the same data"""
    cache: HistoryCache | None = None
    """Of histories of items that were scored before; None: each is read anew"""

    @property
    def reads_texts(self) -> bool:
        """See `trainers.recommend.Recommender`."""
        return True

    def score(self, histories: Sequence[NDArray[np.int32]]) -> Tensor:
        """See `trainers.recommend.Recommender`."""
        if self.cache is None:
            return self._score(self.layout, histories)
        return self.cache.score(self.model, self.layout, self.windows(self.layout, histories))

    def score_texts(self, histories: Sequence[Sequence[str]]) -> Tensor:
        """See `trainers.recommend.Recommender`: each text stands as an item that M_cf does not know."""
        return self._score(*self.with_texts(histories))

    def with_texts(self, rows: Sequence[Sequence[str]]) -> tuple[Layout, list[NDArray[np.int32]]]:
        """This package's layout with one more item for each text, which M_cf does not know, and `rows` as its items.

        Raises:
            UserError: a text is empty.
        """
        texts = [text for row in rows for text in row]
        items = np.arange(len(self.catalogue), len(self.catalogue) + len(texts), dtype=np.int32)
        known = np.concatenate([self.layout.known_items, np.zeros(len(texts), dtype=np.bool_)])
        layout = replace(self.layout, item_tokens=self._tokens_with(texts), known_items=known)
        return layout, np.split(items, np.cumsum([len(row) for row in rows])[:-1])

    def windows(self, layout: Layout, histories: Sequence[NDArray[np.int32]]) -> list[list[int]]:
        """The items that the model reads of each history."""
        return [window(self.model, layout, items, self.config.data.history) for items in histories]

    def _score(self, layout: Layout, histories: Sequence[NDArray[np.int32]]) -> Tensor:
        return score_histories(self.model, layout, self.windows(layout, histories), [UNKNOWN_USER] * len(histories))

    def _tokens_with(self, texts: Sequence[str]) -> ItemTokens:
        """The catalogue's tokens with one more row a text, written as the catalogue writes a title."""
        if any(not text.strip() for text in texts):
            raise UserError("a text is empty: describe each item in a few words")
        known, longest = self.layout.item_tokens, self.config.data.sentence_tokens
        added = tokenize_items([f"title {text.strip()}" for text in texts], self.tokenizer, longest)
        return ItemTokens(
            np.concatenate([known.offsets, known.offsets[-1] + added.offsets[1:]]),
            np.concatenate([known.tokens, added.tokens]),
        )


def is_package(folder: Path) -> bool:
    return (folder / DESCRIPTION).is_file()


def write_package(
    folder: Path,
    config: FinetuneConfig,
    architecture: Architecture,
    task: TrainingTask,
    weights: Path,
    backbones: Path,
) -> None:
    """Write a package from a finished training.

    Args:
        folder: must not exist; appears whole or not at all.
        weights: the checkpoint to keep (`finetune.BEST`).
        backbones: where the backbone that was trained on comes from.
    """
    with whole_folder(folder) as made:
        pretrained = load_pretrained(config.backbone.name, config.backbone.layers, backbones)
        with quiet():
            pretrained.model.save_pretrained(made / BACKBONE)
            pretrained.tokenizer.save_pretrained(made / BACKBONE)
        shutil.copyfile(weights, made / WEIGHTS)
        items = {
            "offsets": torch.tensor(task.item_tokens.offsets),
            "tokens": torch.tensor(task.item_tokens.tokens),
            "known": torch.tensor(task.known_items),
            "prompt": torch.tensor(task.prompt),
        }
        save_file(items, made / ITEMS)
        write_catalogue(task.data.catalogue, made / CATALOGUE)
        description = {
            "format": FORMAT,
            "architecture": str(architecture),
            "config": asdict(config),
            "num_users": task.data.num_users,
            "backbone": pretrained.fingerprint,
            "data": task.data.fingerprint,
        }
        (made / DESCRIPTION).write_text(json.dumps(description, indent=2), encoding="utf-8")


def read_package(folder: Path, *, cache_bytes: int = 0) -> Package:
    """Load a package on this process's device, ready to score.

    Args:
        cache_bytes: memory for keys and values of histories that were scored; 0: none are kept.

    Raises:
        UserError: `folder` is no whole package of this format; names the part that is missing or broken.
    """
    with reading(folder, DESCRIPTION):
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise UserError(f"{folder}: model format {description['format']}, expected {FORMAT}: promote it again")
        config = TypeAdapter(FinetuneConfig).validate_python(description["config"])
        architecture = Architecture.parse(description["architecture"])
        num_users, data_fingerprint = int(description["num_users"]), str(description["data"])
        backbone_fingerprint = str(description["backbone"])
    with reading(folder, CATALOGUE):
        catalogue = read_catalogue(folder / CATALOGUE)
    with reading(folder, ITEMS):
        items = load_file(folder / ITEMS)
        if {name: tensor.dtype for name, tensor in items.items()} != ITEM_KINDS:
            raise ValueError(f"it holds something else than {', '.join(ITEM_KINDS)}")
        tokens = ItemTokens(items["offsets"].numpy(), items["tokens"].numpy())
        prompt, known = items["prompt"].tolist(), items["known"].numpy()
        if not len(tokens.lengths) == len(known) == len(catalogue):
            raise ValueError(f"it has {len(tokens.lengths)} items, the catalogue {len(catalogue)}")
        if tokens.offsets[0] != 0 or tokens.offsets[-1] != len(tokens.tokens) or tokens.lengths.min() < 1:
            raise ValueError("its offsets are those of other tokens")
    with reading(folder, BACKBONE):
        if not (folder / BACKBONE).is_dir():
            raise FileNotFoundError("no such folder")
        pretrained = load_pretrained(str((folder / BACKBONE).resolve()), None, folder)
        if pretrained.fingerprint != backbone_fingerprint:
            raise ValueError(f"it is {pretrained.fingerprint}, but {backbone_fingerprint} was trained on")
        vocabulary = pretrained.model.get_input_embeddings().num_embeddings
        ends = [*prompt, int(tokens.tokens.min()), int(tokens.tokens.max())]
        if not 0 <= min(ends) <= max(ends) < vocabulary:
            raise ValueError(f"the items' tokens are not all among its {vocabulary}")
    device = pick_device()
    pretrained.model.to(device)
    with reading(folder, WEIGHTS):
        model = MixRec(
            as_backbone(pretrained.model),
            config.model,
            architecture,
            num_users=num_users,
            num_items=len(catalogue),
            training=config.training,
        )
        model.load_state_dict(load_file(folder / WEIGHTS))
    layout = Layout.of(config.model, tokens, prompt, pretrained.tokenizer.bos_token_id, known)
    with reading(folder, BACKBONE):
        most, needed = context_of(model, layout), int(tokens.lengths.max()) + 1
        if most < needed:
            raise ValueError(f"it reads {max(most, 0)} tokens, and the longest item has {needed}")
    return Package(
        model.to(device).eval(),
        layout,
        pretrained.tokenizer,
        catalogue,
        config,
        architecture,
        data_fingerprint,
        HistoryCache(cache_bytes) if cache_bytes and can_cache(config.model) else None,
    )


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A scratch folder that becomes `folder`, which must not exist, once it is filled: whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        made = Path(scratch, folder.name)
        made.mkdir()
        yield made
        for file in made.rglob("*.safetensors"):
            file.chmod(0o644)  # safetensors writes for its own user only
        made.rename(folder)


def write_catalogue(catalogue: Catalogue, path: Path) -> None:
    """As Parquet, in index order."""
    table = {"id": catalogue.ids, "title": catalogue.titles, "sentence": catalogue.sentences}
    pq.write_table(pa.table({name: pa.array(column, pa.string()) for name, column in table.items()}), path)


def read_catalogue(path: Path) -> Catalogue:
    """Inverse of `write_catalogue`. Raises what pyarrow raises, and ValueError for another table."""
    table = pq.read_table(path)
    columns = [table.column(name) for name in ("id", "title", "sentence")]
    if any(column.type != pa.string() or column.null_count for column in columns):
        raise ValueError("id, title and sentence are no texts")
    catalogue = Catalogue(*(tuple(column.to_pylist()) for column in columns))
    if not 0 < len(catalogue) == len(catalogue.index):
        raise ValueError("it has no items, or one of them twice")
    return catalogue


@contextmanager
def reading(folder: Path, part: str, remedy: str = "Promote it again") -> Iterator[None]:
    """Whatever is wrong with `part` becomes one line that names it, and the `remedy`."""
    with refusing(f"{folder} holds no whole model: {part}", f". {remedy}"):
        yield
