"""Rectified flow (Liu et al., "Flow Straight and Fast", 2022): x = (1 - sigma) picture + sigma noise, as ComfyUI's CONST has it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STEADY = 0.5  # noise level below which an error of the picture no longer counts more as one of the velocity
MEAN_LEVEL, SPREAD_LEVEL = 1.5, 1.2  # of the logit of training's noise levels (Esser et al. 2024, logit-normal)
SHIFT = 6.0  # most of what is drawn follows from the conditions; steps at low levels mostly keep noise that a small model missed
NOISE_ALONE = 0.2  # share of training at the level 1, where sampling starts and the conditions have to tell everything


def add_noise(picture: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Noisy pictures [B, 3, H, W] at levels sigma [B]."""
    sigma = sigma[:, None, None, None]
    return (1 - sigma) * picture + sigma * noise


def velocity(noisy: Tensor, picture: Tensor, sigma: float | Tensor) -> Tensor:
    """Direction from a predicted picture to noise, per unit of sigma."""
    return (noisy - picture) / sigma


def velocity_weight(sigma: Tensor) -> Tensor:
    """What a squared error of the picture at sigma [B] counts as one of the velocity, bounded towards sigma = 0."""
    return sigma.clamp(min=STEADY).reciprocal().square()


def random_levels(count: int, generator: torch.Generator) -> Tensor:
    """Noise levels [count] for training."""
    sigma = torch.sigmoid(MEAN_LEVEL + SPREAD_LEVEL * torch.randn(count, generator=generator))
    return torch.where(torch.rand(count, generator=generator) < NOISE_ALONE, torch.ones(()), sigma)


def one_noise(height: int, width: int, seed: int) -> Tensor:
    """Noise [1, 3, H, W] for every frame of a clip: what stays still then keeps its look."""
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def noise_levels(steps: int) -> list[float]:
    """The steps + 1 levels of sampling, from 1 to 0, shifted towards 1 (Esser et al. 2024, equation 23).

    Raises ValueError for fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"{steps} steps were asked for; sample with at least 1")
    even = torch.linspace(1, 0, steps + 1)
    return (SHIFT * even / (1 + (SHIFT - 1) * even)).tolist()


def sample(model: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int = 4) -> Tensor:
    """Pictures [B, 3, H, W] in -1..1 from noise by Euler steps along `noise_levels`.

    `model(noisy, sigma [B])` predicts the picture. Raises ValueError for fewer than one step.
    """
    levels, x = noise_levels(steps), noise
    for sigma, following in zip(levels, levels[1:]):
        picture = model(x, x.new_full((len(x),), sigma))
        # The last step lands on the prediction itself, without rounding.
        x = picture if following == 0 else x + (following - sigma) * velocity(x, picture, sigma)
    return x
