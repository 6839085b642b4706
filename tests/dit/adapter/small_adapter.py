"""A small adapter, and inputs for it."""

import torch

from expportrait.dit.adapter.adapter import PortraitAdapter
from expportrait.dit.adapter.config import AdapterConfig

CONFIG = AdapterConfig(
    width=32, layers=6, control_width=8, reference_width=8, explicit_size=5, code_size=16, expression_width=64, expression_every=2
)
FRAMES, SIZE = 9, 32  # 3 latent frames of 4 x 4, 2 x 2 tokens each


def adapter_of(config=CONFIG, seed=0):
    torch.manual_seed(seed)
    return PortraitAdapter(config).reset()


def awake(adapter, generator, size=0.1):
    """An adapter as after training: no layer is zero any more."""
    for parameter in adapter.parameters():
        parameter.data = parameter.data + size * torch.randn(parameter.shape, generator=generator)
    return adapter


def inputs(generator, config=CONFIG, frames=FRAMES):
    control = torch.randn(1, config.control_channels, frames, SIZE, SIZE, generator=generator)
    reference = torch.randn(1, config.reference_channels, SIZE, SIZE, generator=generator)
    return control, reference, torch.randn(1, frames, config.explicit_size, generator=generator)
