"""What is done to examples while training, so that the model neither trusts the warp blindly nor learns colours by heart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...proxy.inpaint import dilate

PERFECT = 0.35  # share of examples whose warp is the very picture but for its holes: what is right has to stay
LOST, STALE, HOLED = 0.1, 0.15, 0.35  # shares of examples without a warp, with that of another pose, and with holes in it
TOLD = 0.7  # share of holes that validity tells
FACELESS = 0.15  # share of examples whose warp has holes at lips, mouth and eyes, which the maps and the code have to fill
UNMARKED = 0.15  # share of examples without the map of lips, mouth and eyes, where the code has to say what they do
GAIN = 0.2  # how far colours of a whole example are changed, either way
MARKED = 0.3  # level of the maps from which a pixel counts as lips, mouth or eyes
CELLS = (3, 24)  # of the patterns of holes


def damage(batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """A batch of `Examples.read` with other colours and, in some examples, a warp that is lost, of another pose or with holes."""
    control, count = batch["control"].clone(), len(batch["control"])
    gain = 1 + GAIN * (2 * torch.rand(count, 3, 1, 1, generator=generator) - 1)
    dice = torch.rand(8, count, 1, 1, 1, generator=generator)
    features = dilate((control[:, 7:10].amax(1, keepdim=True) > MARKED).float(), control.shape[-1] // 32)
    control[:, :4] = torch.where(dice[4] < STALE, batch["stale"], control[:, :4])
    control[:, :3] = torch.where(dice[7] < PERFECT, batch["target"], control[:, :3])
    control[:, 7:10] = torch.where(dice[5] < UNMARKED, 0, control[:, 7:10])
    warp, background = ((control[:, part] * gain).clamp(0, 1) for part in (slice(0, 3), slice(10, 13)))
    reference = torch.cat([(batch["reference"][:, :3] * gain).clamp(0, 1), batch["reference"][:, 3:]], dim=1)
    holes = _holes(count, control.shape[-2:], generator)
    holes = torch.where(dice[0] < HOLED, holes, 0)
    holes = torch.where(dice[6] < FACELESS, features, holes)
    holes = torch.where(dice[1] < LOST, 1, holes)
    # A hole shows what lies behind, or is smeared over.
    smeared = F.interpolate(F.avg_pool2d(warp, 16, ceil_mode=True), size=warp.shape[-2:], mode="bilinear")
    filling = torch.where(dice[2] < 0.5, background, smeared)
    told = holes * ((dice[3] < TOLD) | (dice[1] < LOST))
    control[:, :3] = warp + holes * (filling - warp)
    control[:, 3:4] = control[:, 3:4] * (1 - told)
    control[:, 10:13] = background
    target = (batch["target"] * gain).clamp(0, 1)
    return {**batch, "control": control, "reference": reference, "target": target}


def _holes(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Patterns [count, 1, H, W] of 0 and 1, a tenth to a third of them 1, each with cells of its own size."""
    patterns = []
    for _ in range(count):
        cells = int(torch.randint(*CELLS, (), generator=generator))
        noise = F.interpolate(torch.randn(1, 1, cells, cells, generator=generator), size=size, mode="bicubic")
        patterns.append((noise > 0.5 + 0.6 * float(torch.rand((), generator=generator))).float())
    return torch.cat(patterns)
