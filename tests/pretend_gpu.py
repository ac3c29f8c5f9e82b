"""A GPU that computes on the CPU: finds tensors of two devices in one operation where no GPU is at hand.

Tensors "on" it are `OnGpu`, views upon ordinary memory. While `pretend_gpu` lasts, what is asked for on
`cuda` is one, what comes of one is one, and an operation that mixes one with an ordinary tensor raises as CUDA would.
Numbers and control flow are real, so whole trainings run. It does not know: precision, speed, kernels of CUDA, devices
inside a backward pass, and what asks for the state of CUDA's generator (recomputation of activations).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
_FREELY_MIXED = {
    *("copy_", "to", "__getitem__", "__setitem__", "backward", "__get__", "__set__"),
    "_has_compatible_shallow_copy_type",
}
"""Copies go between devices, an index may lie on the CPU, and a backward pass is not watched."""


_MAKING_NO_TENSOR = {"_parse_to", "device"}


class DevicesMixedError(RuntimeError):
    """An operation got tensors of the GPU and of the CPU."""


class OnGpu(Tensor):
    """A tensor of the pretended GPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # the mode sees to all of them


class _Pretence(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, asked = getattr(func, "__name__", ""), dict(kwargs or {})
        if name in _MAKING_NO_TENSOR:
            return func(*args, **asked)
        tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
        is_there = any(isinstance(one, OnGpu) for one in tensors)
        if name == "__get__" and is_there and getattr(func, "__self__", None) in (Tensor.device, Tensor.is_cuda):
            return GPU if getattr(func, "__self__", None) is Tensor.device else True
        if name == "numpy" and is_there:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if name == "pin_memory":
            return args[0]
        if is_there and name not in _FREELY_MIXED and any(one.ndim and not isinstance(one, OnGpu) for one in tensors):
            raise DevicesMixedError(f"{name}: expected all tensors to be on the same device, cuda:0 and cpu")
        wanted = GPU if is_there else None
        if name in ("cpu", "to"):
            wanted = CPU if name == "cpu" else _target(*args[1:], *asked.values()) or wanted
        elif asked.get("device") is not None:
            wanted = torch.device(asked["device"])
        if _is_gpu(asked.get("device")):
            asked["device"] = CPU
        found = func(*(CPU if _is_gpu(one) else one for one in args), **asked)
        return found if wanted is None else tree_map(lambda one: _placed(one, wanted), found)


def _is_gpu(one: Any) -> bool:
    return (isinstance(one, torch.device) and one.type == "cuda") or (isinstance(one, str) and one.startswith("cuda"))


def _target(*asked: Any) -> torch.device | None:
    """Where `x.to(...)` wants it."""
    for one in asked:
        if isinstance(one, Tensor):
            return GPU if isinstance(one, OnGpu) else CPU
        if isinstance(one, torch.device | str):
            return torch.device(one)
    return None


def _placed(one: Any, device: torch.device) -> Any:
    if not isinstance(one, Tensor):
        return one
    with torch._C.DisableTorchFunction():
        if device.type == "cuda":
            return one if isinstance(one, OnGpu) else one.as_subclass(OnGpu)
        return one.as_subclass(Tensor) if isinstance(one, OnGpu) else one


@contextlib.contextmanager
def pretend_gpu() -> Iterator[torch.device]:
    """While it lasts this process has one GPU."""
    fork = torch.random.fork_rng
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    # `nn.Module.to` would else keep the parameter and exchange its memory, which is the same here.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with (
            patch.object(torch.cuda, "is_available", return_value=True),
            patch.object(torch.cuda, "device_count", return_value=1),
            patch.object(torch.random, "fork_rng", lambda *_, **__: fork(devices=[])),
            _Pretence(),
        ):
            yield GPU
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
