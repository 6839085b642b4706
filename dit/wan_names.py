"""Names of Wan's tensors: diffusers' against those of the published checkpoints, which ComfyUI uses."""

from __future__ import annotations

import re

# In this order; the last ones name what the first ones have left.
RULES = (
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("attn1", "self_attn"),
    ("attn2", "cross_attn"),
    (r"to_out\.0", "o"),
    (r"to_([qkv])", r"\1"),
    ("add_([kv])_proj", r"\1_img"),
    ("norm_added_k", "norm_k_img"),
    (r"ffn\.net\.0\.proj", "ffn.0"),
    (r"ffn\.net\.2", "ffn.2"),
    (r"\.norm2\.", ".norm3."),
    ("^scale_shift_table", "head.modulation"),
    (r"\.scale_shift_table", ".modulation"),
    ("^proj_out", "head.head"),
)


def native_name(name: str) -> str:
    """The published name of a tensor of diffusers' WanTransformer3DModel, or of a LoRA on it."""
    for ours, theirs in RULES:
        name = re.sub(ours, theirs, name)
    return name
