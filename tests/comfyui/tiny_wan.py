"""Tiny Wan models and a tiny Wan 2.1 VAE as files that ComfyUI's own loaders take for real ones.

Key names are those of the published checkpoints, shapes those that ComfyUI 0.12.1 builds (comfy/ldm/wan); weights are random
with a seed, scaled by their fan-in, so that what a model makes of its inputs stays of order one. Control branches, which real
training starts at zero, are not zero: what is fed to them has to show in the result. Width and depth are free (the core takes
one head per 128 channels), the text is always 4096 wide. The core finds every size in the file, for the VAE too; only the
Wan 2.2 VAE, the image encoder and the text encoder have fixed sizes and are not made here. Wan-Animate's face encoder has one
of 39 million parameters, so its file is large.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

TEXT, FREQUENCIES, CLIP = 4096, 256, 1280
CHANNELS = {  # kind: channels in, channels out, has an image branch (CLIP), channels of ref_conv
    "t2v": (16, 16, False, 0),  # Wan 2.1 T2V
    "i2v": (36, 16, True, 0),  # Wan 2.1 I2V
    "i2v_a14b": (36, 16, False, 0),  # one expert of Wan 2.2 I2V A14B
    "ti2v_5b": (48, 48, False, 0),  # Wan 2.2 TI2V-5B
    "vace": (16, 16, False, 0),  # Wan 2.1 VACE
    "fun_control": (48, 16, True, 0),  # Wan 2.1 Fun-Control
    "fun_control_ref": (48, 16, True, 16),  # Wan 2.1 Fun-Control V1.1
    "fun_control_a14b": (52, 16, False, 16),  # one expert of Wan 2.2 Fun-Control A14B
    "animate": (36, 16, True, 0),  # Wan-Animate
}
FACE = (32, 64, 128, 256, 512, 512, 512, 512)  # channels of Wan-Animate's face encoder, each half as large as the one before
MOTION, FACE_HEADS, FACE_EVERY = 512, 4, 5  # width of its code, heads, and blocks to a face attention
VACE_CHANNELS = 96  # 16 inactive, 16 reactive, 64 mask
VAE_CHANNELS = 16

Shapes = dict[str, tuple[int, ...]]


def write_wan(
    path: Path, kind: str, width: int = 256, layers: int = 2, ffn: int = 512, vace_layers: int = 1, seed: int = 0
) -> Path:
    """Writes a Wan of a `kind` in CHANNELS for `UNETLoader`; returns `path`.

    `width` is a multiple of 128, `vace_layers` divides `layers`, which for Wan-Animate are a multiple of 5; with the
    defaults about 3 million parameters in float32.
    """
    shapes = wan_shapes(kind, width, layers, ffn, vace_layers)
    return _write(path, shapes, seed)


def write_vae(path: Path, width: int = 16, seed: int = 0) -> Path:
    """Writes a Wan 2.1 VAE of base width `width` (the real one has 96) for `VAELoader`; returns `path`."""
    return _write(path, vae_shapes(width), seed)


def write_text(path: Path, tokens: int = 8, seed: int = 0) -> Path:
    """Writes CONDITIONING of random text [1, tokens, 4096] as a folder for core's `LoadTrainingDataset`; returns `path`.

    Stands for the UMT5 text encoder, whose size the core has fixed. The node gives a list of one entry, so a graph runs once.
    """
    text = torch.randn((1, tokens, TEXT), generator=torch.Generator().manual_seed(seed))
    path.mkdir(parents=True, exist_ok=True)
    latents = [{"samples": torch.zeros(1, VAE_CHANNELS, 1, 2, 2)}]
    torch.save({"latents": latents, "conditioning": [[[text, {"pooled_output": None}]]]}, path / "shard_0000.pkl")
    return path


def wan_shapes(kind: str, width: int, layers: int, ffn: int, vace_layers: int = 1) -> Shapes:
    """Names and shapes of the tensors of a Wan of a `kind` in CHANNELS."""
    channels, out, has_image, reference = CHANNELS[kind]
    shapes = {
        **_affine("patch_embedding", width, channels, 1, 2, 2),
        **_affine("text_embedding.0", width, TEXT),
        **_affine("text_embedding.2", width, width),
        **_affine("time_embedding.0", width, FREQUENCIES),
        **_affine("time_embedding.2", width, width),
        **_affine("time_projection.1", 6 * width, width),
        **_affine("head.head", 4 * out, width),
        "head.modulation": (1, 2, width),
    }
    for index in range(layers):
        shapes |= _block(f"blocks.{index}", width, ffn, has_image)
    if has_image:
        shapes |= {
            **_affine("img_emb.proj.0", CLIP),
            **_affine("img_emb.proj.1", CLIP, CLIP),
            **_affine("img_emb.proj.3", width, CLIP),
            **_affine("img_emb.proj.4", width),
        }
    if reference:
        shapes |= _affine("ref_conv", width, reference, 2, 2)
    if kind == "vace":
        shapes |= _affine("vace_patch_embedding", width, VACE_CHANNELS, 1, 2, 2)
        shapes |= _affine("vace_blocks.0.before_proj", width, width)
        for index in range(vace_layers):
            shapes |= _block(f"vace_blocks.{index}", width, ffn, False)
            shapes |= _affine(f"vace_blocks.{index}.after_proj", width, width)
    if kind == "animate":
        shapes |= _face_shapes(width, layers)
    return shapes


def vae_shapes(width: int) -> Shapes:
    """Names and shapes of the tensors of a Wan 2.1 VAE: levels of 1, 2, 4, 4 times `width`, time halved at the last two."""
    levels = [width, 2 * width, 4 * width, 4 * width]
    latent = VAE_CHANNELS
    shapes = {**_affine("encoder.conv1", width, 3, 3, 3, 3)}
    shapes |= {**_affine("conv1", 2 * latent, 2 * latent, 1, 1, 1), **_affine("conv2", latent, latent, 1, 1, 1)}
    index, before = 0, width
    for level, channels in enumerate(levels):
        for _ in range(2):
            shapes |= _residual(f"encoder.downsamples.{index}", before, channels)
            index, before = index + 1, channels
        if level < 3:
            shapes |= _affine(f"encoder.downsamples.{index}.resample.1", channels, channels, 3, 3)
            if level > 0:
                shapes |= _affine(f"encoder.downsamples.{index}.time_conv", channels, channels, 3, 1, 1)
            index += 1
    shapes |= _middle("encoder", levels[-1], 2 * latent)
    shapes |= _affine("decoder.conv1", levels[-1], latent, 3, 3, 3)
    index, before = 0, levels[-1]
    for level, channels in enumerate(reversed(levels)):
        for _ in range(3):
            shapes |= _residual(f"decoder.upsamples.{index}", before, channels)
            index, before = index + 1, channels
        if level < 3:
            shapes |= _affine(f"decoder.upsamples.{index}.resample.1", channels // 2, channels, 3, 3)
            if level < 2:
                shapes |= _affine(f"decoder.upsamples.{index}.time_conv", 2 * channels, channels, 3, 1, 1)
            index, before = index + 1, channels // 2
    return shapes | _middle("decoder", levels[-1], 3, head=levels[0])


def _block(name: str, width: int, ffn: int, has_image: bool) -> Shapes:
    shapes = {f"{name}.modulation": (1, 6, width), **_affine(f"{name}.norm3", width)}
    shapes |= {**_affine(f"{name}.ffn.0", ffn, width), **_affine(f"{name}.ffn.2", width, ffn)}
    for attention in ("self_attn", "cross_attn"):
        extra = ("k_img", "v_img") if has_image and attention == "cross_attn" else ()
        for projection in ("q", "k", "v", "o", *extra):
            shapes |= _affine(f"{name}.{attention}.{projection}", width, width)
        for projection in ("q", "k", *extra[:1]):
            shapes[f"{name}.{attention}.norm_{projection}.weight"] = (width,)
    return shapes


def _face_shapes(width: int, layers: int) -> Shapes:
    """What Wan-Animate adds: pose embedding, motion encoder of the face video, and attention to it."""
    shapes = _affine("pose_patch_embedding", width, 16, 1, 2, 2)
    convs = "motion_encoder.enc.net_app.convs"
    shapes |= {f"{convs}.0.0.weight": (FACE[0], 3, 1, 1), f"{convs}.0.1.bias": (1, FACE[0], 1, 1)}
    for index, (before, after) in enumerate(zip(FACE, FACE[1:]), 1):
        shapes |= {f"{convs}.{index}.conv1.0.weight": (before, before, 3, 3), f"{convs}.{index}.conv1.1.bias": (1, before, 1, 1)}
        shapes |= {f"{convs}.{index}.conv2.1.weight": (after, before, 3, 3), f"{convs}.{index}.conv2.2.bias": (1, after, 1, 1)}
        shapes |= {f"{convs}.{index}.skip.1.weight": (after, before, 1, 1)}
        shapes |= {f"{convs}.{index}.{branch}.0.kernel": (4, 4) for branch in ("conv2", "skip")}
    shapes |= {f"{convs}.{len(FACE)}.weight": (MOTION, FACE[-1], 4, 4), "motion_encoder.dec.direction.weight": (512, 20)}
    for index in range(5):
        shapes |= _affine(f"motion_encoder.enc.fc.{index}", MOTION if index < 4 else 20, MOTION)
    inner = 1024
    shapes |= _affine("face_encoder.conv1_local.conv", inner * FACE_HEADS, MOTION, 3)
    shapes |= {**_affine("face_encoder.conv2.conv", inner, inner, 3), **_affine("face_encoder.conv3.conv", inner, inner, 3)}
    shapes |= {**_affine("face_encoder.out_proj", width, inner), "face_encoder.padding_tokens": (1, 1, 1, width)}
    for index in range(layers // FACE_EVERY):
        name = f"face_adapter.fuser_blocks.{index}"
        shapes |= {**_affine(f"{name}.linear1_kv", 2 * width, width), **_affine(f"{name}.linear1_q", width, width)}
        shapes |= {**_affine(f"{name}.linear2", width, width), f"{name}.q_norm.weight": (128,), f"{name}.k_norm.weight": (128,)}
    return shapes


def _residual(name: str, before: int, after: int) -> Shapes:
    shapes = {
        f"{name}.residual.0.gamma": (before, 1, 1, 1),
        **_affine(f"{name}.residual.2", after, before, 3, 3, 3),
        f"{name}.residual.3.gamma": (after, 1, 1, 1),
        **_affine(f"{name}.residual.6", after, after, 3, 3, 3),
    }
    return shapes if before == after else shapes | _affine(f"{name}.shortcut", after, before, 1, 1, 1)


def _middle(side: str, channels: int, out: int, head: int | None = None) -> Shapes:
    """The middle of the encoder or decoder, and its head: `head` channels to `out`."""
    head = head or channels
    return {
        **_residual(f"{side}.middle.0", channels, channels),
        f"{side}.middle.1.norm.gamma": (channels, 1, 1),
        **_affine(f"{side}.middle.1.to_qkv", 3 * channels, channels, 1, 1),
        **_affine(f"{side}.middle.1.proj", channels, channels, 1, 1),
        **_residual(f"{side}.middle.2", channels, channels),
        f"{side}.head.0.gamma": (head, 1, 1, 1),
        **_affine(f"{side}.head.2", out, head, 3, 3, 3),
    }


def _affine(name: str, *shape: int) -> Shapes:
    """A layer's weight of `shape` and its bias."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _write(path: Path, shapes: Shapes, seed: int) -> Path:
    generator = torch.Generator().manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: _values(name, shape, generator) for name, shape in shapes.items()}, str(path))
    return path


def _values(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Ones for scales of norms, else normal values: of variance 1 / fan-in for weights, small for biases and modulations.

    The motion encoder has a blur as buffers, and weights of variance 1 that it scales itself.
    """
    if name.endswith("kernel"):
        blur = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        return torch.outer(blur, blur)
    if name.startswith("motion_encoder") and name.endswith("weight"):
        return torch.randn(shape, generator=generator)
    if name.endswith("gamma") or (name.endswith("weight") and len(shape) == 1):
        return torch.ones(shape)
    fan_in = torch.Size(shape[1:]).numel()
    scale = fan_in**-0.5 if name.endswith("weight") else 0.02
    return torch.randn(shape, generator=generator) * scale
