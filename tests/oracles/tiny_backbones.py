"""Random tiny OPT, Llama and GPT-2 bodies in fp64, with weights large enough for every path to matter.

transformers computes Llama's RMS norm and rotary angles in float32 whatever the model's type, which hides all but
seven digits. The tiny Llama therefore carries the same two modules with every operation in the type of its input;
names, weights and configuration are untouched. Whoever compares to 1e-9 must call these modules, or compute the same
in fp64.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel, OPTConfig, OPTModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

Family = Literal["opt", "llama", "gpt2"]
FAMILIES: tuple[Family, ...] = get_args(Family)
VOCABULARY = 40
BOS_TOKEN = 1
CONTEXT = 128


class ExactRMSNorm(LlamaRMSNorm):  # type: ignore[misc]
    """LlamaRMSNorm in the type of its input."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        variance = hidden_states.pow(2).mean(-1, keepdim=True)
        normed: Tensor = self.weight * (hidden_states * torch.rsqrt(variance + self.variance_epsilon))
        return normed


class ExactRotaryEmbedding(LlamaRotaryEmbedding):  # type: ignore[misc]
    """LlamaRotaryEmbedding (default type) with angles in the type of `x`."""

    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        size = self.inv_freq.shape[0] * 2
        exponents = torch.arange(0, size, 2, dtype=x.dtype, device=x.device) / size
        angles = position_ids[..., None] * self.config.rope_parameters["rope_theta"] ** -exponents
        doubled = torch.cat([angles, angles], dim=-1)
        return doubled.cos(), doubled.sin()


def tiny_backbone(family: Family, layers: int = 2, seed: int = 0) -> OPTModel | LlamaModel | GPT2Model:
    """A frozen fp64 body in evaluation mode: width 16, 4 heads (Llama: 2 key-value heads), `CONTEXT` positions.

    All weights are N(0, 0.2); norm gains are 1 + N(0, 0.2).
    """
    model = _untrained(family, layers).double()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        is_gain = parameter.ndim == 1 and name.endswith("weight")
        parameter.data = noise + 1 if is_gain else noise
    return model.requires_grad_(False).eval()


def _untrained(family: Family, layers: int) -> OPTModel | LlamaModel | GPT2Model:
    tokens = {"vocab_size": VOCABULARY, "bos_token_id": BOS_TOKEN, "eos_token_id": 2, "pad_token_id": 0}
    if family == "opt":
        return OPTModel(
            OPTConfig(
                **tokens,
                hidden_size=16,
                word_embed_proj_dim=16,
                num_hidden_layers=layers,
                num_attention_heads=4,
                ffn_dim=24,
                max_position_embeddings=CONTEXT,
                dropout=0.0,
            )
        )
    if family == "llama":
        model = LlamaModel(
            LlamaConfig(
                **tokens,
                hidden_size=16,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                intermediate_size=24,
                max_position_embeddings=CONTEXT,
            )
        )
        return _in_full_precision(model)
    return GPT2Model(
        GPT2Config(
            **tokens,
            n_embd=16,
            n_layer=layers,
            n_head=4,
            n_inner=24,
            n_positions=CONTEXT,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )


def _in_full_precision(model: LlamaModel) -> LlamaModel:
    def exact(norm: nn.Module) -> ExactRMSNorm:
        return ExactRMSNorm(model.config.hidden_size, eps=norm.variance_epsilon)

    for layer in model.layers:
        layer.input_layernorm = exact(layer.input_layernorm)
        layer.post_attention_layernorm = exact(layer.post_attention_layernorm)
    model.norm = exact(model.norm)
    model.rotary_emb = ExactRotaryEmbedding(model.config)
    return model
