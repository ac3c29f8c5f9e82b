"""Checkpoints of trained weights only, as safetensors: one file, written in one atomic rename.

A resumable file also holds the optimiser's moments and a JSON header with the progress. The frozen backbone is never
in it; its fingerprint is checked by whoever loads.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from trainers.errors import refusing

_MODEL, _OPTIMIZER = "model/", "optimizer/"
_HEADER = "progress"
NOT_ITS_FAULT = (MemoryError, PermissionError, torch.OutOfMemoryError)
"""Whoever removed a checkpoint for one of these would lose it."""


def write(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write a safetensors file so that a crash leaves either the old file or the new one.

    Raises:
        OSError: the disk is full, read-only or gone; the old file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _save({name: tensor.contiguous() for name, tensor in tensors.items()}, scratch, header)
        with scratch.open("rb") as written:
            os.fsync(written.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _save(tensors: dict[str, Tensor], path: Path, header: dict[str, Any]) -> None:
    try:
        save_file(tensors, path, {_HEADER: json.dumps(header)})
    except SafetensorError as error:
        # Its Rust part tells the number of an operating system's error in words alone.
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors (on the CPU) and the header. Raises as `read_header`."""
    with _damaged(path), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors, read_header(path)


def read_header(path: Path) -> dict[str, Any]:
    """The header alone; no tensor is read.

    Raises:
        UserError: the file is not there or damaged.
    """
    with _damaged(path), safe_open(path, framework="pt") as file:
        header: dict[str, Any] = json.loads((file.metadata() or {}).get(_HEADER, "{}"))
        if not isinstance(header, dict):
            raise ValueError("its header is none of ours")
    return header


def _damaged(path: Path) -> AbstractContextManager[None]:
    remedy = f". Remove {path.parent}: the training then begins anew"
    return refusing(f"{path} is no whole checkpoint", remedy, passing=NOT_ITS_FAULT)


def save_training(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: dict[str, Any]) -> None:
    """Everything that an exact resume needs. Random draws are counter-based, so there is no generator state."""
    tensors = {_MODEL + name: tensor for name, tensor in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
    write(path, tensors, progress)


def load_training(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Inverse of `save_training`; returns the progress. Raises UserError: the file is damaged, or another model's."""
    tensors, progress = read(path)
    with _damaged(path):
        model.load_state_dict({name.removeprefix(_MODEL): t for name, t in tensors.items() if name.startswith(_MODEL)})
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(_OPTIMIZER):
                index, field = name.removeprefix(_OPTIMIZER).split("/")
                state.setdefault(int(index), {})[field] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress
