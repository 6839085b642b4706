"""A tiny Wan for the learning bar: a VAE that really reconstructs, and a transformer that draws the clips' people as it likes.

Both are made from the clips that the adapters learn from. They stand for what a real base brings along.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from expportrait.dit.train.cache import encode, image_condition
from expportrait.dit.train.loop import TRAIN_STEPS
from expportrait.proxy.frames import Frames

WIDTH, HEADS, LAYERS, TEXT = 160, 5, 6, 16
LATENT, PATCH = 16, 8  # numbers of a latent cell, and pixels of its side
LARGE, SMALL = 1e3, 1e-3  # the constant channel, and the scale of what comes into an activation
BATCH = 16
Progress = Callable[[int, int], None]


def make_vae(clips: Path, out: Path) -> None:
    """Wan's autoencoder with fixed weights: the PATCH x PATCH pixels of a cell as the LATENT principal components of the clips' patches.

    It takes single frames only. Its residual blocks add nothing. Its two norms divide by a constant channel that is far larger than all
    others, and what comes into its activations is so small that they are linear. All components have one scale, so that errors count as
    they are seen.
    """
    from diffusers import AutoencoderKLWan
    from diffusers.models.autoencoders.autoencoder_kl_wan import patchify

    pixels = torch.cat([torch.cat(list(Frames.open(path).chunks())) for path in sorted(clips.glob("*.mp4"))])
    patches = patchify(2 * pixels[:, :, None] - 1, PATCH).permute(0, 2, 3, 4, 1).flatten(0, 3)  # [N, 3 * PATCH^2]
    mean, centred = patches.mean(0), patches - patches.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    ways, deviation = vectors[:, -LATENT:].flip(1).T, float(values[-LATENT:].mean().sqrt())
    vae = AutoencoderKLWan(
        base_dim=LATENT + 8, z_dim=LATENT, dim_mult=[1], num_res_blocks=1, temperal_downsample=[], patch_size=PATCH,
        in_channels=len(mean), out_channels=len(mean), latents_mean=[0.0] * LATENT, latents_std=[deviation] * LATENT,
    ).requires_grad_(False)  # fmt: skip
    for parameter in vae.parameters():
        parameter.zero_()
    encoder, decoder = vae.encoder, vae.decoder
    _linear(encoder.conv_in, ways, -(ways @ mean))
    _linear(decoder.conv_in, torch.eye(LATENT), torch.zeros(LATENT))
    for part in (encoder, decoder):
        part.conv_in.bias[-1] = LARGE
        part.norm_out.gamma[:LATENT] = SMALL * LARGE / len(part.norm_out.gamma) ** 0.5
    _linear(encoder.conv_out, 2 / SMALL * torch.eye(LATENT), torch.zeros(LATENT))
    encoder.conv_out.bias[LATENT:] = -20  # log of the variance
    _linear(decoder.conv_out, 2 / SMALL * ways.T, mean)
    _linear(vae.quant_conv, torch.eye(2 * LATENT), torch.zeros(2 * LATENT))
    _linear(vae.post_quant_conv, torch.eye(LATENT), torch.zeros(LATENT))
    vae.save_pretrained(out)


def _linear(convolution: nn.Conv3d, matrix: Tensor, bias: Tensor) -> None:
    """Makes a causal convolution a matrix [out, in] on the channels of each place, as far as it goes."""
    rows, columns = matrix.shape
    _, height, width = convolution.kernel_size
    convolution.weight[:rows, :columns, -1, height // 2, width // 2] = matrix
    convolution.bias[:rows] = bias


def new_transformer() -> nn.Module:
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    return WanTransformer3DModel(
        num_attention_heads=HEADS, attention_head_dim=WIDTH // HEADS, in_channels=2 * LATENT + 4, out_channels=LATENT, text_dim=TEXT,
        freq_dim=64, ffn_dim=3 * WIDTH, num_layers=LAYERS,
    )  # fmt: skip


def train_base(clips: Path, vae: Path, steps: int, out: Path, shift: float = 3.0, progress: Progress | None = None) -> None:
    """Trains the transformer on frames with another frame of the same clip as the reference: it learns what people look like."""
    from diffusers import AutoencoderKLWan

    coder = AutoencoderKLWan.from_pretrained(vae).eval()
    frames = [torch.cat(list(Frames.open(path).chunks())) for path in sorted(clips.glob("*.mp4"))]
    clean = torch.stack([torch.cat([encode(coder, frame[None, :, None]) for frame in clip]) for clip in frames])  # [N, F, C, 1, h, w]
    conditions = torch.stack([torch.cat([image_condition(coder, frame[None, :, None], 1) for frame in clip]) for clip in frames])
    transformer, generator, batch = new_transformer().train(), torch.Generator().manual_seed(0), BATCH
    optimiser = torch.optim.AdamW(transformer.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.01)
    text = torch.zeros(batch, 1, TEXT)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 1.5e-3 * min(1, (step + 1) / 50) * max(0.05, 1 - step / steps)
        chosen = torch.randint(len(clean), (batch,), generator=generator)
        shown, seen = torch.randint(clean.shape[1], (2, batch), generator=generator)
        uniform = torch.rand(batch, generator=generator)
        level = shift * uniform / (1 + (shift - 1) * uniform)
        target = clean[chosen, shown]
        noise = torch.randn(target.shape, generator=generator)
        inputs = torch.cat([torch.lerp(target, noise, level[:, None, None, None, None]), conditions[chosen, seen]], 1)
        found = transformer(inputs, TRAIN_STEPS * level, text, return_dict=False)[0]
        loss = (found - (noise - target)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
        optimiser.step()
        if progress is not None:
            progress(step + 1, steps)
    transformer.save_pretrained(out)
