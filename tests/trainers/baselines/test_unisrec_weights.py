"""UniSRec's published weights: a model that starts from them computes what its authors' does."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from trainers.baselines.build import build_baseline
from trainers.baselines.config import BaselinesConfig, UniSRecConfig
from trainers.baselines.package import read_baseline_package, write_baseline_package
from trainers.baselines.rows import to_rows
from trainers.baselines.unisrec import UniSRec
from trainers.data.sequence_data import Catalogue
from trainers.errors import UserError
from trainers.model.sentence_encoder import Reading

ITEMS, TEXT, WIDTH, INNER, EXPERTS, HEADS, LAYERS, PLACES = 9, 5, 8, 12, 3, 2, 2, 10
NAMES = tuple(f"item-{number}" for number in range(ITEMS))
CATALOGUE = Catalogue(NAMES, NAMES, NAMES)
TEXTS = np.random.default_rng(2).normal(size=(ITEMS, TEXT)).astype(np.float32)
HISTORY = np.array([3, 1, 4, 1, 5], dtype=np.int32)


def published() -> dict[str, Tensor]:
    """Random tensors under the names and in the shapes of the authors' checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {
        "moe_adaptor.w_gate": (TEXT, EXPERTS),
        "moe_adaptor.w_noise": (TEXT, EXPERTS),
        "position_embedding.weight": (PLACES, WIDTH),
        "LayerNorm.weight": (WIDTH,),
        "LayerNorm.bias": (WIDTH,),
    }
    for one in range(EXPERTS):
        shapes |= {f"moe_adaptor.experts.{one}.bias": (TEXT,), f"moe_adaptor.experts.{one}.lin.weight": (WIDTH, TEXT)}
    maps = {f"multi_head_attention.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value", "dense")}
    maps |= {"feed_forward.dense_1": (INNER, WIDTH), "feed_forward.dense_2": (WIDTH, INNER)}
    for layer in range(LAYERS):
        block = f"trm_encoder.layer.{layer}"
        for name, shape in maps.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
        for name in ("multi_head_attention.LayerNorm", "feed_forward.LayerNorm"):
            shapes |= {f"{block}.{name}.weight": (WIDTH,), f"{block}.{name}.bias": (WIDTH,)}
    generator = torch.Generator().manual_seed(1)
    return {name: 0.5 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def literal_scores(theirs: dict[str, Tensor], items: list[int], temperature: float) -> Tensor:
    """[I] by the equations of the paper, one history without padding, in the authors' names."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ theirs[f"{name}.weight"].T + theirs[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        return layer_norm(x, (WIDTH,), theirs[f"{name}.weight"], theirs[f"{name}.bias"], eps=1e-12)

    vectors = []
    for text in torch.from_numpy(TEXTS):
        gate = (text @ theirs["moe_adaptor.w_gate"]).softmax(0)
        parts = [
            theirs[f"moe_adaptor.experts.{one}.lin.weight"] @ (text - theirs[f"moe_adaptor.experts.{one}.bias"])
            for one in range(EXPERTS)
        ]
        vectors.append(sum(share * part for share, part in zip(gate, parts, strict=True)))
    table = torch.stack(vectors)  # type: ignore[arg-type]
    hidden = norm("LayerNorm", table[items] + theirs["position_embedding.weight"][: len(items)])
    hides = torch.ones(len(items), len(items)).triu(1).bool()
    for layer in range(LAYERS):
        attention, forward = (f"trm_encoder.layer.{layer}.{part}" for part in ("multi_head_attention", "feed_forward"))
        queries, keys, values = (
            linear(f"{attention}.{part}", hidden).view(len(items), HEADS, -1).transpose(0, 1)
            for part in ("query", "key", "value")
        )
        logits = queries @ keys.transpose(1, 2) / (WIDTH / HEADS) ** 0.5
        mixed = (logits.masked_fill(hides, -torch.inf).softmax(-1) @ values).transpose(0, 1).reshape(len(items), WIDTH)
        hidden = norm(f"{attention}.LayerNorm", hidden + linear(f"{attention}.dense", mixed))
        inner = gelu(linear(f"{forward}.dense_1", hidden))
        hidden = norm(f"{forward}.LayerNorm", hidden + linear(f"{forward}.dense_2", inner))
    last = hidden[-1] / hidden[-1].norm()
    return table @ last / table.norm(dim=1) / temperature


def settings(folder: Path, **changed: int | bool) -> UniSRecConfig:
    sizes = {"width": WIDTH, "inner": INNER, "layers": LAYERS, "heads": HEADS, "experts": EXPERTS, "history": 6}
    return UniSRecConfig(weights=str(folder), text_reading="first", **{**sizes, "transductive": False, **changed})  # type: ignore[arg-type]


def made(config: UniSRecConfig) -> UniSRec:
    def texts(encoder: str, reading: Reading) -> np.ndarray:
        assert (encoder, reading) == ("all-minilm-l6-v2", "first")
        return TEXTS

    model = build_baseline(config, CATALOGUE, 0, texts, lambda _: pytest.fail("reads no text itself"))
    assert isinstance(model, UniSRec)
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(published(), tmp_path / "model.safetensors")
    return tmp_path


def test_it_scores_as_its_authors_does(folder: Path) -> None:
    model = made(settings(folder))
    expected = literal_scores(published(), HISTORY.tolist(), model.temperature)
    torch.testing.assert_close(model.scores(to_rows([HISTORY], ITEMS))[0], expected, atol=1e-4, rtol=1e-4)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12]
    assert model.started_from == f"{folder} (sha256 {digest}), texts by all-minilm-l6-v2"
    assert torch.equal(made(settings(folder, transductive=True)).adaptor.gate, model.adaptor.gate)


def test_a_package_needs_no_folder_of_weights(folder: Path) -> None:
    config = settings(folder)
    model = made(config)
    write_baseline_package(folder / "package", "unisrec", BaselinesConfig(unisrec=config), model, CATALOGUE, "data")
    (folder / "model.safetensors").unlink()
    package = read_baseline_package(folder / "package")
    torch.testing.assert_close(package.score([HISTORY])[0], model.score_history(HISTORY))
    assert package.model.started_from == model.started_from


def test_weights_that_do_not_fit_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"baselines\.unisrec"):
        made(settings(folder, width=2 * WIDTH))
    with pytest.raises(UserError, match=r"baselines\.unisrec"):
        made(settings(folder, history=PLACES + 1))
    with pytest.raises(UserError, match=r"lacks trm_encoder\.layer\.2"):
        made(settings(folder, layers=LAYERS + 1))
    (folder / "model.safetensors").write_bytes(b"pickled")
    with pytest.raises(UserError, match="save_file"):
        made(settings(folder))
