"""What an adapter makes while it is trained: a picture of held-out clips, each frame a row of reference, condition, result and truth."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .cache import decode
from .loop import Trainer
from .shards import LEVELS, Shard

STEPS = 8  # of sampling
CLIPS, ROWS = 2, 3  # that are shown, and frames of each
SEED = 1  # of the pictures' own noise


@torch.no_grad()
def look(trainer: Trainer, shards: list[Shard], vae: nn.Module, steps: int = STEPS) -> Tensor:
    """Picture [H, W, 3] in 0..1 of a few frames of clips, sampled with the adapter as it is now.

    `vae` is diffusers' AutoencoderKLWan of the shards. The randomness of the training is left alone.
    """
    rows = []
    for shard in shards:
        made = decode(vae, sample(trainer, shard, steps)[None])[0]  # [3, F, H, W]
        truth = decode(vae, shard.latents[None].to(made))[0]
        shown = [reference_picture(shard, vae).to(made), conditions(shard).to(made), made, truth]
        frames = torch.linspace(0, made.shape[1] - 1, ROWS).round().long().unique()
        rows += [torch.cat([part[:, min(k, part.shape[1] - 1)] for part in shown], dim=2) for k in frames.tolist()]
    return torch.cat(rows, dim=1).permute(1, 2, 0)


@torch.no_grad()
def sample(trainer: Trainer, shard: Shard, steps: int = STEPS, seed: int = SEED) -> Tensor:
    """Latents [C, T, h, w] of a clip by Euler steps over the base's schedule, the first reference and all conditions given."""
    shift = trainer.settings.shift
    uniform = torch.linspace(1, 0, steps + 1)
    levels = (shift * uniform / (1 + (shift - 1) * uniform)).tolist()
    noise = torch.randn(shard.latents.shape, generator=torch.Generator().manual_seed(seed))
    latents, references = noise[None].to(trainer.device), shard.references[:1]
    with trainer.autocast():
        trainer.attached.set(trainer.condition([shard], [0]))
        for level, following in zip(levels, levels[1:]):
            velocity = trainer.velocity(latents, torch.full((1,), level, device=trainer.device), references)
            latents = latents + (following - level) * velocity.float()
    return latents[0]


def conditions(shard: Shard) -> Tensor:
    """The control's first three channels as pictures [3, F, H, W] in 0..1; black where the adapter has no control."""
    control = shard.control[:3].float() / LEVELS
    if len(control) == 0:
        return torch.zeros(3, *control.shape[1:])
    return ((control[:3] if len(control) == 3 else control[:1].expand(3, -1, -1, -1)) + 1) / 2


def reference_picture(shard: Shard, vae: nn.Module) -> Tensor:
    """The first reference [3, 1, H, W] in 0..1: its picture where the base takes one, else its geometry."""
    channels = vae.config.z_dim
    if shard.references.shape[1] >= channels:
        return decode(vae, shard.references[:1, -channels:, :1].to(next(vae.parameters())))[0]
    geometry = shard.geometry[0, :3].float() / LEVELS
    return (geometry[:, None] + 1) / 2
