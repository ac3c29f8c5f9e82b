"""The weights that UniSRec's authors publish, pre-trained on other shops, as the start of ours.

They publish a pickled checkpoint of RecBole, which is not read here: pickles run code. Its `state_dict`, written anew
by `safetensors.torch.save_file` as `model.safetensors`, loads from a folder or a hub name. They stand for the [CLS]
states of bert-base-uncased and the sizes that are the defaults of `UniSRecConfig`.

Legend: N places, d width, G experts, t width of a text vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from trainers.baselines.unisrec import UniSRec
from trainers.errors import UserError, refusing
from trainers.model.pretrained import folder_or_hub

WHAT = "UniSRec's weights"
FILE = "model.safetensors"
_ADAPTOR, _BLOCK = "moe_adaptor", "trm_encoder.layer"


def start_from(model: UniSRec, name: str) -> str:
    """Give `model` the published weights `name`, all but an item's own vector; returns what they are.

    Raises:
        UserError: they cannot be had or read, lack a part, or are of other sizes than `model`.
    """
    folder = folder_or_hub(name, WHAT)
    try:
        content = (folder / FILE).read_bytes()
        theirs = load(content)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{WHAT} {name!r}: cannot read {folder / FILE}; of a pickled checkpoint write the state dict anew with "
            f"safetensors.torch.save_file"
        ) from error
    ours = model.state_dict()
    positions = "transformer.positions.weight"
    with refusing(f"{WHAT} {name!r}: the tensors in {folder / FILE} do not fit together"):
        try:
            found = renamed(theirs, layers=len(model.transformer.blocks.layers), experts=len(model.adaptor.maps))
        except KeyError as error:
            raise UserError(f"{WHAT} {name!r}: {folder / FILE} lacks {error.args[0]}") from error
        found[positions] = found[positions][: len(ours[positions])]
    for key, value in found.items():
        if value.shape != ours[key].shape:
            raise UserError(
                f"{WHAT} {name!r}: {key} is {list(value.shape)} there and {list(ours[key].shape)} here: set the sizes, "
                f"the history and the text encoder of baselines.unisrec to those of the weights"
            )
    model.load_state_dict(found, strict=False)
    return f"{name} (sha256 {hashlib.sha256(content).hexdigest()[:12]})"


def renamed(theirs: Mapping[str, Tensor], *, layers: int, experts: int) -> dict[str, Tensor]:
    """The authors' tensors under our names. Raises KeyError where one is missing."""
    of_experts = range(experts)
    ours = {
        "adaptor.shifts": torch.stack([theirs[f"{_ADAPTOR}.experts.{one}.bias"] for one in of_experts]),
        "adaptor.maps": torch.stack([theirs[f"{_ADAPTOR}.experts.{one}.lin.weight"].T for one in of_experts]),
        "adaptor.gate": theirs[f"{_ADAPTOR}.w_gate"],
        "adaptor.noise": theirs[f"{_ADAPTOR}.w_noise"],
        "transformer.positions.weight": theirs["position_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        ours[f"transformer.norm.{kind}"] = theirs[f"LayerNorm.{kind}"]
        for layer in range(layers):
            attention, forward = f"{_BLOCK}.{layer}.multi_head_attention", f"{_BLOCK}.{layer}.feed_forward"
            inputs = [theirs[f"{attention}.{part}.{kind}"] for part in ("query", "key", "value")]
            block = f"transformer.blocks.layers.{layer}"
            ours |= {
                f"{block}.self_attn.in_proj_{kind}": torch.cat(inputs),
                f"{block}.self_attn.out_proj.{kind}": theirs[f"{attention}.dense.{kind}"],
                f"{block}.norm1.{kind}": theirs[f"{attention}.LayerNorm.{kind}"],
                f"{block}.linear1.{kind}": theirs[f"{forward}.dense_1.{kind}"],
                f"{block}.linear2.{kind}": theirs[f"{forward}.dense_2.{kind}"],
                f"{block}.norm2.{kind}": theirs[f"{forward}.LayerNorm.{kind}"],
            }
    return ours
