"""Small builders shared by the tests of the pocket model."""

import torch

from expportrait.dit.pocket.model import PocketConfig, PocketModel

CODE = 61
TINY = {"levels": (8, 8, 16), "width": 16, "depth": 2, "heads": 2}


def tiny_config(model_id="head", **changes) -> PocketConfig:
    return PocketConfig(model_id, CODE, **{**TINY, **changes})


def shaken(config: PocketConfig, seed: int = 0) -> PocketModel:
    """A model whose every weight is random, so that every branch has a say."""
    generator = torch.Generator().manual_seed(seed)
    model = PocketModel.create(config, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def inputs(count=2, height=32, width=48, seed=0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "noisy": torch.randn(count, 3, height, width, generator=generator),
        "sigma": torch.rand(count, generator=generator),
        "control": torch.rand(count, 13, height, width, generator=generator),
        "reference": torch.rand(count, 9, 32, 32, generator=generator),
        "code": torch.rand(count, CODE, generator=generator),
    }
