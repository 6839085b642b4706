"""Encoders of the control video and of the reference's geometry (ExpPortrait 3.3; layout of the stacks as in UniAnimate-DiT)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..families import TIME_STRIDE
from .config import CONDITION_CHANNELS, AdapterConfig

HALO = 3  # latent frames around a tile that its convolutions see
AT_ONCE = 2**23  # pixels of the frames that are encoded at once, beside their halo
PIXEL_BYTES = 10  # of memory per pixel, frame and channel of the encoder, in float32


class PixelControlEncoder(nn.Module):
    """Control video [B, C, F, H, W] with F = 4n + 1 to features [B, width, n + 1, H / spatial, W / spatial], and those to tokens."""

    def __init__(self, config: AdapterConfig, operations=nn):
        super().__init__()
        width, channels = config.control_width, config.control_channels
        strides = [(1, 1, 1)] * 3 + [(1, 2, 2)] * (config.spatial.bit_length() - 3) + [(2, 2, 2)] * 2
        layers: list[nn.Module] = []
        for stride in strides:
            layers += [operations.Conv3d(channels, width, 3, stride=stride, padding=1), nn.SiLU()]
            channels = width
        self.stack = nn.Sequential(*layers)
        self.project = operations.Conv3d(width, config.width, (1, 2, 2), stride=(1, 2, 2))

    def features(self, video: Tensor, tile: int | None = None) -> Tensor:
        """Encodes at most `tile` latent frames at once, fewer of large ones; the result does not depend on it."""
        tile = tile or self.tile(*video.shape[3:])
        video = torch.cat([video[:, :, :1].expand(-1, -1, TIME_STRIDE - 1, -1, -1), video], 2)
        count = video.shape[2] // TIME_STRIDE
        parts = []
        for start in range(0, count, tile):
            end = min(start + tile, count)
            first, last = max(start - HALO, 0), min(end + HALO, count)
            part = self.stack(video[:, :, TIME_STRIDE * first : TIME_STRIDE * last])
            parts.append(part[:, :, start - first : end - first])
        return torch.cat(parts, 2)

    @staticmethod
    def tile(height: int, width: int) -> int:
        """Latent frames of that size that are encoded at once."""
        return max(1, AT_ONCE // (TIME_STRIDE * height * width))

    def memory(self, frames: int, height: int, width: int) -> int:
        """Bytes that encoding a video takes, about."""
        at_once = min(self.tile(height, width) + 2 * HALO, frames // TIME_STRIDE + 1)
        return PIXEL_BYTES * self.project.in_channels * at_once * TIME_STRIDE * height * width

    def tokens(self, features: Tensor) -> Tensor:
        """Features to tokens [B, T * h/2 * w/2, base width], in the order of the base's own."""
        return self.project(features).flatten(2).transpose(1, 2)


class LatentControlEncoder(nn.Module):
    """Latents of the control video [B, latent channels, T, h, w], as they are, to tokens: the form of a grown patch embedding."""

    def __init__(self, config: AdapterConfig, operations=nn):
        super().__init__()
        self.project = operations.Conv3d(config.latent_channels, config.width, (1, 2, 2), stride=(1, 2, 2))

    def features(self, latents: Tensor) -> Tensor:
        return latents

    def tokens(self, features: Tensor) -> Tensor:
        """Features to tokens [B, T * h/2 * w/2, base width], in the order of the base's own."""
        return self.project(features).flatten(2).transpose(1, 2)


class ReferenceEncoder(nn.Module):
    """Geometry of the reference [B, C, H, W] to [B, channels, 1, h, w] at the latent's size: Wan's image condition, or the width of
    the base's tokens, at half that size."""

    def __init__(self, config: AdapterConfig, operations=nn):
        super().__init__()
        width, channels = config.reference_width, config.reference_channels
        halvings = config.spatial.bit_length() - 1
        layers: list[nn.Module] = []
        for stride in [1, 1, 1] + [2] * (halvings - 1):
            layers += [operations.Conv2d(channels, width, 3, stride=stride, padding=1), nn.SiLU()]
            channels = width
        out = CONDITION_CHANNELS if config.reference == "condition" else config.width
        last = {"condition": {"kernel_size": 3, "stride": 2, "padding": 1}, "tokens": {"kernel_size": 4, "stride": 4}}
        layers.append(operations.Conv2d(channels, out, **last[config.reference]))
        self.stack = nn.Sequential(*layers)

    def forward(self, picture: Tensor) -> Tensor:
        return self.stack(picture)[:, :, None]
