"""A package scores bit for bit like what was trained, needs nothing else, and holds nothing that could run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.oracles.tiny_backbones import FAMILIES, Family
from tests.trainers.tiny_backbone_folder import write_tiny_backbone
from tests.trainers.tiny_package import DESIGN, HISTORY, NUM_ITEMS, NUM_USERS, Made, make_package
from trainers.data.batches import Layout
from trainers.epochs import BEST
from trainers.errors import UserError
from trainers.evaluate import score_histories, window
from trainers.model.mixrec import MixRec
from trainers.package import BACKBONE, CATALOGUE, DESCRIPTION, ITEMS, WEIGHTS, read_package, write_package
from trainers.task import build_model

OPTIONS: dict[str, Any] = {"collaborative_columns": "user+item", "leading_bos": True}
KINDS = {"causal_expert": "lora", "context_expert": "none", "recommendation_adapter": "ia3"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_package(tmp_path_factory.mktemp("made"), model=OPTIONS)


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Path:
    """A package to break."""
    return Path(shutil.copytree(made.package, tmp_path / "copy"))


def all_scores(model: MixRec, layout: Layout, made: Made) -> Tensor:
    """[U, I] after the whole sequence of every user."""
    data = made.task.data
    histories = [window(model, layout, data.sequence(user), HISTORY) for user in range(NUM_USERS)]
    return score_histories(model, layout, histories, list(range(NUM_USERS)))


@pytest.mark.parametrize(("family", "kinds"), [*((family, {}) for family in FAMILIES), ("gpt2", KINDS)])
def test_a_package_scores_bit_for_bit_like_the_training(family: Family, kinds: dict[str, str], tmp_path: Path) -> None:
    made = make_package(tmp_path, family, {**OPTIONS, **kinds})
    trained = build_model(made.config, DESIGN, made.task, seed=5)
    trained.load_state_dict(load_file(made.training / BEST))
    expected = all_scores(trained.eval(), made.task.layout(made.config.model), made)
    package = read_package(made.package)
    found = all_scores(package.model, package.layout, made)
    assert found.equal(expected)
    assert found.std() > 0
    assert not made.task.known_items.all(), "an item without a collaborative vector is read as well"
    assert package.data_fingerprint == made.task.data.fingerprint
    assert package.catalogue == made.task.data.catalogue
    assert (package.config, package.architecture) == (made.config, DESIGN)
    text = "title Thing 3 brand Acme"
    assert package.tokenizer(text, add_special_tokens=False)["input_ids"] == made.task.item_tokens.row(3).tolist()


def check_safetensors(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        assert all(isinstance(file.get_tensor(name), Tensor) for name in file.keys())  # noqa: SIM118


FORMATS: dict[str, Callable[[Path], object]] = {
    ".safetensors": check_safetensors,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".parquet": pq.read_table,
    ".jinja": lambda path: path.read_text(encoding="utf-8"),
    ".txt": lambda path: path.read_text(encoding="utf-8"),
}


def test_every_file_is_of_a_format_that_holds_no_code(made: Made) -> None:
    files = [path for path in made.package.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {DESCRIPTION, WEIGHTS, ITEMS, CATALOGUE, "tokenizer.json", "config.json"}
    for path in files:
        FORMATS[path.suffix](path)  # a suffix that is not listed, or other content, is an error
        assert path.stat().st_mode & 0o044 == 0o044, f"{path} cannot be served by another user"


ELSEWHERE = """
import json, socket, sys
from pathlib import Path

def refuse(*arguments, **options):
    raise AssertionError("no network may be asked")

socket.socket.connect = socket.getaddrinfo = refuse
from trainers.package import read_package
from trainers.recommend import Query, recommend

found = recommend(read_package(Path(sys.argv[1])), Query(["i1", "i2"], k=16))
print(json.dumps([[one.item, one.score.hex()] for one in found]))
"""


def test_it_needs_no_network_no_data_and_no_working_folder(made: Made, tmp_path: Path) -> None:
    """By a relative path, in a process that knows the package alone; the scores are the very same bits."""
    from trainers.recommend import Query, recommend

    here = recommend(read_package(made.package), Query(["i1", "i2"], k=16))
    shutil.copytree(made.package, tmp_path / "alone")
    (tmp_path / "home").mkdir()
    environment = {
        "HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, "alone"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[one.item, one.score.hex()] for one in here]
    assert done.stderr == ""


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("part", [DESCRIPTION, WEIGHTS, ITEMS, CATALOGUE, BACKBONE])
@pytest.mark.parametrize("relative", [False, True])
def test_a_missing_part_is_named(copy: Path, part: str, relative: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    remove(copy / part)
    monkeypatch.chdir(copy.parent)
    with pytest.raises(UserError, match=rf"copy holds no whole model: {part}: .*Promote it again") as caught:
        read_package(Path("copy") if relative else copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", [DESCRIPTION, WEIGHTS, ITEMS, CATALOGUE])
def test_a_cut_file_is_named(copy: Path, part: str) -> None:
    content = (copy / part).read_bytes()
    (copy / part).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=rf"copy holds no whole model: {part}: "):
        read_package(copy)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_backbone_without_a_file_is_told(copy: Path, file: str) -> None:
    remove(copy / BACKBONE / file)
    with pytest.raises(UserError, match=f"{BACKBONE}.*cannot read"):
        read_package(copy)


def test_a_backbone_that_reads_less_than_an_item_is_told(copy: Path) -> None:
    config = copy / BACKBONE / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "max_position_embeddings": 3}))
    with pytest.raises(UserError, match=r"it reads \d tokens, and the longest item has \d+\. Promote it again"):
        read_package(copy)


def test_another_backbone_is_refused(copy: Path) -> None:
    """Weights of the same shapes would load and give nonsense."""
    remove(copy / BACKBONE)
    write_tiny_backbone(copy / BACKBONE, seed=1)
    with pytest.raises(UserError, match=f"{BACKBONE}: it is llama-1-.*, but llama-1-.* was trained on"):
        read_package(copy)


def change_description(folder: Path, **changes: Any) -> None:
    text = json.loads((folder / DESCRIPTION).read_text())
    (folder / DESCRIPTION).write_text(json.dumps({**text, **changes}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": 2}, "model format 2, expected 1"),
        ({"architecture": "01"}, DESCRIPTION),
        ({"config": {"data": {}}}, DESCRIPTION),
        ({"num_users": None}, DESCRIPTION),
        ({"num_users": NUM_USERS + 1}, f"{WEIGHTS}: .*size mismatch"),
        ({"architecture": "010-010"}, f"{WEIGHTS}: .*DAMoE layers"),
    ],
)
def test_a_description_that_does_not_fit_is_told(copy: Path, changes: dict[str, Any], told: str) -> None:
    change_description(copy, **changes)
    with pytest.raises(UserError, match=told):
        read_package(copy)


@pytest.mark.parametrize("content", ["[]", "null", "{}", "{"])
def test_a_description_of_another_kind_is_told(copy: Path, content: str) -> None:
    (copy / DESCRIPTION).write_text(content)
    with pytest.raises(UserError, match=DESCRIPTION):
        read_package(copy)


def test_parts_of_two_packages_do_not_mix(copy: Path) -> None:
    table = pq.read_table(copy / CATALOGUE)
    pq.write_table(table.slice(1), copy / CATALOGUE)
    with pytest.raises(UserError, match=f"{ITEMS}: it has {NUM_ITEMS} items, the catalogue {NUM_ITEMS - 1}"):
        read_package(copy)
    pq.write_table(table.drop_columns(["title"]), copy / CATALOGUE)
    with pytest.raises(UserError, match=CATALOGUE):
        read_package(copy)


def test_weights_that_lack_one_are_told(copy: Path) -> None:
    weights = load_file(copy / WEIGHTS)
    weights.pop("special_tokens")
    save_file(weights, copy / WEIGHTS)
    with pytest.raises(UserError, match=f"{WEIGHTS}: .*special_tokens"):
        read_package(copy)


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere holds no whole model"):
        read_package(tmp_path / "nowhere")


def test_a_package_appears_whole_or_not_at_all(made: Made, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_package(tmp_path / "new", made.config, DESIGN, made.task, tmp_path / "missing", tmp_path)
    assert list(tmp_path.iterdir()) == []
