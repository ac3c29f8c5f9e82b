"""Writes a model as transformers reads it, from any process of a distributed training.

transformers' own `save_pretrained` writes config and weights in the process of rank 0 alone, and says nothing of it in
the others. The process that needs a backbone first may be any.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME


def save_body(body: PreTrainedModel, folder: Path) -> None:
    """Write config and weights of a model without a head, whose weights are each its own, to `folder`."""
    body.config.architectures = [type(body).__name__]
    body.config.dtype = body.dtype
    body.config.save_pretrained(folder)
    weights = {name: tensor.contiguous() for name, tensor in body.state_dict().items()}
    save_file(weights, folder / SAFE_WEIGHTS_NAME, metadata={"format": "pt"})
