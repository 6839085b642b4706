"""How well pictures follow normals: by a fit of the head model, and by a small network that reads normals off the shading.

The fit tells pose, expression and shape as its landmarks show them, but no relief; the network sees relief. Both make errors of their
own, which are told by what they say about true pictures.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expportrait.dit.train.cache import performed, read_head
from expportrait.proxy.camera import Camera
from expportrait.proxy.fit import fit_frames
from expportrait.proxy.frames import Frames
from expportrait.proxy.head_model import HeadModel
from expportrait.proxy.head_proxy import HeadProxy
from expportrait.proxy.landmarks import Landmarker
from expportrait.proxy.posing import Stage, camera_space

WIDTHS = (16, 32, 64)  # of the reader
BATCH = 8
FACE = 0.5  # of the face region's weight, from which on a pixel belongs to it


def normals_of(who: HeadProxy | Tensor, pose, model: HeadModel, camera: Camera) -> tuple[Tensor, Tensor]:
    """Unit normals [T, 3, H, W], 0 beside the head, and the face [T, H, W] bool, of a proxy or an identity."""
    shot = Stage(model, camera).shot(camera_space(model, who, pose))
    normals, face = shot.pixels(shot.normals, model.regions["face"][None, :, None])
    image = shot.raster.scatter(torch.cat([F.normalize(normals, dim=-1), face], 1)).permute(0, 3, 1, 2)
    return image[:, :3], image[:, 3] > FACE


def apart(found: Tensor, expected: Tensor, face: Tensor) -> Tensor:
    """Mean angle [T] in degrees between normals [T, 3, H, W], over the face [T, H, W] as far as both show something."""
    angle = torch.rad2deg((F.normalize(found, dim=1) * F.normalize(expected, dim=1)).sum(1).clamp(-1, 1).acos())
    both = face & (found.square().sum(1) > 0.1) & (expected.square().sum(1) > 0.1)
    return (angle * both).sum((1, 2)) / both.sum((1, 2)).clamp(min=1)


def fitted_normals(images: Tensor, model: HeadModel, landmarker: Landmarker, focal: float) -> tuple[Tensor, Tensor]:
    """Normals [T, 3, H, W] of the head fitted to pictures [T, H, W, 3], and in which of them [T] a face was found."""
    try:
        track = fit_frames(Frames.from_images(images), model, landmarker, focal=focal)
    except ValueError:  # no face at all
        return torch.zeros(len(images), 3, *images.shape[1:3]), torch.zeros(len(images), dtype=torch.bool)
    return normals_of(track.identity, track, model, track.camera)[0], track.valid


class NormalReader(nn.Module):
    """Pictures [B, 3, H, W] in 0..1 to unit normals of the same size."""

    def __init__(self):
        super().__init__()
        sizes = [3, *WIDTHS]
        self.down = nn.ModuleList(_stage(a, b) for a, b in zip(sizes, WIDTHS))
        self.up = nn.ModuleList(_stage(a + b, a) for a, b in zip(WIDTHS, WIDTHS[1:]))
        self.out = nn.Conv2d(WIDTHS[0], 3, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        x, seen = 2 * pictures - 1, []
        for stage in self.down:
            x = stage(F.avg_pool2d(x, 2) if seen else x)
            seen.append(x)
        for stage, beside in zip(reversed(self.up), reversed(seen[:-1])):
            x = stage(torch.cat([beside, F.interpolate(x, scale_factor=2)], 1))
        return F.normalize(self.out(x), dim=1)


def _stage(inputs: int, out: int) -> nn.Sequential:
    layers = [(inputs, out), (out, out)]
    return nn.Sequential(*(layer for a, b in layers for layer in (nn.Conv2d(a, b, 3, padding=1), nn.GroupNorm(4, b), nn.SiLU())))


def train_reader(clips: Path, model: HeadModel, steps: int) -> NormalReader:
    """Learns from the clips that the adapters learn from."""
    pictures, normals = [], []
    for path in sorted(clips.glob("*.mp4")):
        track, proxy = read_head(clips / "refined", path.stem, model)
        frames = list(range(len(track)))
        pictures.append(Frames.open(path).pick(frames))
        normals.append(normals_of(proxy, performed(track, proxy).select(frames), model, track.camera)[0])
    pictures, normals = torch.cat(pictures), torch.cat(normals)
    torch.manual_seed(0)
    reader, generator = NormalReader(), torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(reader.parameters(), lr=3e-3)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 20) * (1 - step / steps)
        chosen = torch.randint(len(pictures), (BATCH,), generator=generator)
        # What is read later is softer than true pictures: at random these are softened too.
        seen = soften(pictures[chosen], float(torch.rand((), generator=generator)))
        expected = normals[chosen]
        shown = expected.square().sum(1) > 0.1
        loss = ((1 - (reader(seen) * expected).sum(1)) * shown).sum() / shown.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return reader


def soften(pictures: Tensor, share: float) -> Tensor:
    return torch.lerp(pictures, F.avg_pool2d(F.pad(pictures, [1] * 4, mode="replicate"), 3, 1), share)
