"""Registers a head's skin with each frame: where its known colours lie in the picture, as shifts along the skin.

Lucas-Kanade on the mesh: with colour c(v) expected at a vertex and I(p(v)) found, a shift s(v) along the skin changes what is found by
grad I . dp/ds s. For all vertices of a frame that is one sparse system, a data term of 2 x 2 blocks and a membrane over the mesh,
solved by conjugate gradients. The preconditioner is the membrane with the blocks' mean: one factorisation for all frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg
import torch
import torch.nn.functional as F
from torch import Tensor

from ..frames import Frames
from ..lighting import sh_basis
from . import energies
from .observe import Observer, View
from .settings import RefineSettings
from .surface import Skin

STEPS, TOLERANCE = 12, 1e-3  # of the conjugate gradients
CHUNK = 8  # frames at once
LIGHT_STEPS = 3
LIGHT_RIDGE = 0.02  # pulls all but a light's constant term to 0
BOUNDS = (0.02, 0.15)  # least albedo that is lit, least shading


class Membrane:
    """Smoothness of shifts: `strain` is the sigma of a shift's change over its distance, `size` that of the shift, metres."""

    def __init__(self, skin: Skin, strain: float, size: float, data: float):
        """`data`: mean of the data term's diagonal, 1 / metre^2."""
        mass = skin.mass()
        stiffness = skin.stiffness(torch.ones(len(skin.faces))) / (strain**2 * float(np.median(mass)))
        self._stiffness, self._pull = _to_torch(stiffness).to(skin.normals), 1 / size**2
        system = stiffness + sparse.identity(len(mass)) * (data + 1 / size**2)
        self._solver = scipy.sparse.linalg.splu(
            system.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )

    def apply(self, x: Tensor) -> Tensor:
        """Stiffness and pull of shifts [S, N]."""
        return self._stiffness @ x + self._pull * x

    def precondition(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self._solver.solve(x.double().cpu().numpy())).to(x)


def solve_shifts(membrane: Membrane, blocks: Tensor, right: Tensor, present: Tensor) -> Tensor:
    """Changes [t, S, 2] of shifts `present` [t, S, 2] for data terms with blocks [t, S, 2, 2] and right sides [t, S, 2]."""
    frames = len(blocks)

    def columns(x: Tensor) -> Tensor:
        return x.transpose(0, 1).flatten(1)  # [S, t * 2]

    def back(x: Tensor) -> Tensor:
        return x.unflatten(1, (frames, 2)).transpose(0, 1)

    def apply(x: Tensor) -> Tensor:
        return columns((blocks @ back(x)[..., None])[..., 0]) + membrane.apply(x)

    def per_frame(x: Tensor) -> Tensor:
        return x.sum(0).unflatten(0, (frames, 2)).sum(1).repeat_interleave(2)

    residual = columns(right) - membrane.apply(columns(present))
    x = torch.zeros_like(residual)
    z = membrane.precondition(residual)
    direction, energy = z, per_frame(residual * z)
    enough = TOLERANCE * energy
    for _ in range(STEPS):
        if bool((energy <= enough).all()):
            break
        image = apply(direction)
        step = energy / per_frame(direction * image).clamp(min=1e-30)
        x, residual = x + step * direction, residual - step * image
        z = membrane.precondition(residual)
        previous, energy = energy, per_frame(residual * z)
        direction = z + energy / previous.clamp(min=1e-30) * direction
    return back(x)


def _to_torch(matrix: sparse.spmatrix) -> Tensor:
    matrix = matrix.tocoo()
    places = torch.from_numpy(np.stack([matrix.row, matrix.col])).long()
    return torch.sparse_coo_tensor(places, torch.from_numpy(matrix.data), matrix.shape, check_invariants=False).coalesce()


@dataclasses.dataclass
class Registration:
    """Shifts of T frames along the skin and the skin's colours, found together.

    The colours are the mean of what all frames show, each freed of its own light; the shifts bring every frame to them. `colours` that
    are given stay as they are: frames are then registered to a person that is already known.
    """

    observer: Observer
    settings: RefineSettings
    displacement: Callable[[slice], Tensor]  # [t, S, 3] of frames, without the shifts
    colours: Tensor | None = None  # [S, 3]

    def __post_init__(self):
        skin, count = self.observer.skin, len(self.observer.track)
        self.face = self.observer.model.regions["face"][skin.vertices]  # [S]
        self.tangents = tangents(skin.normals)  # [S, 3, 2]
        self.shifts = skin.normals.new_zeros(count, len(skin.vertices), 2)
        self.seen: Tensor | None = None  # [T, S]
        self._fixed = self.colours is not None
        self._membrane: Membrane | None = None

    def offsets(self, frames: slice) -> Tensor:
        """The shifts as canonical displacements [t, S, 3]."""
        return (self.tangents @ self.shifts[frames, ..., None])[..., 0]

    def run(self, frames: Frames, log: dict[str, list[float]], tick: Callable[[int], None]) -> None:
        """All rounds; `tick` is told the number of frames done."""
        levels = self.settings.levels
        if not self._fixed:
            self._round(frames, levels[0], False, log, tick)
        for blur in levels:
            self._round(frames, blur, True, log, tick)

    def look(self, frames: Frames, log: dict[str, list[float]], tick: Callable[[int], None]) -> None:
        """The colours alone, without shifts."""
        self._round(frames, self.settings.levels[-1], False, log, tick)

    def _round(self, frames: Frames, blur: float, move: bool, log: dict[str, list[float]], tick: Callable[[int], None]) -> None:
        device = self.face.device
        total = torch.zeros(len(self.face), 4, device=device)
        seen, errors, start = [], [], 0
        for images in frames.chunks(CHUNK):
            part = slice(start, start + len(images))
            start = part.stop
            view = self.observer.view(part, self.displacement(part) + self.offsets(part), None if self.seen is None else self.seen[part])
            weight = view.seen.square() * self.face * view.valid[:, None]
            picture = gaussian(images.to(device).float(), blur)
            values = view.sample(torch.cat([picture, gradient(picture)], 1) if move else picture)
            found = values[..., :3]
            if self.colours is None:
                shading, robust = torch.ones_like(found), torch.ones_like(weight)
            else:
                lit = self.colours.clamp(min=BOUNDS[0])
                shading = frame_shading(found, lit, view.normals, weight)
                difference = lit * shading - found
                robust = 1 / (1 + difference.square().sum(-1) / self.settings.outlier**2)
                errors.append((energies.photometric(lit * shading, found, weight), weight.sum()))
                if move:
                    self._move(part, view, difference, values[..., 3:].unflatten(-1, (3, 2)), weight * robust)
            trust = (weight * robust)[..., None]
            total += torch.cat([trust * found / shading, trust], -1).sum(0)
            seen.append(view.seen)
            tick(len(images))
        self.seen = torch.cat(seen)
        if not self._fixed:
            known = total[:, :3] / total[:, 3:].clamp(min=1e-3)
            mean = total[:, :3].sum(0) / total[:, 3].sum().clamp(min=1e-3)
            self.colours = torch.where(total[:, 3:] > 1e-3, known, mean)
        if errors:
            square = sum(error**2 * share for error, share in errors) / sum(share for _, share in errors).clamp(min=1e-6)
            log.setdefault("photometric", []).append(float(square.sqrt()))

    def _move(self, part: slice, view: View, difference: Tensor, slopes: Tensor, weight: Tensor) -> None:
        rows = slopes @ (view.image_motion(self.observer.stage) @ self.tangents)  # [t, S, 3, 2]
        weighed = rows * (weight / self.settings.noise**2)[..., None, None]
        blocks = rows.mT @ weighed
        right = (weighed.mT @ difference[..., None])[..., 0]
        if self._membrane is None:
            data = float(blocks.diagonal(dim1=-2, dim2=-1).mean())
            self._membrane = Membrane(self.observer.skin, self.settings.strain, self.settings.shift, data)
        self.shifts[part] += solve_shifts(self._membrane, blocks, right, self.shifts[part])


def tangents(normals: Tensor) -> Tensor:
    """Two unit vectors [S, 3, 2] across unit normals [S, 3]; the first lies in the head's horizontal plane where it can."""
    up = normals.new_tensor([0.0, 1.0, 0.0]).expand_as(normals)
    ahead = normals.new_tensor([0.0, 0.0, 1.0]).expand_as(normals)
    first = torch.linalg.cross(torch.where(normals[:, 1:2].abs() > 0.9, ahead, up), normals)
    first = F.normalize(first, dim=-1)
    return torch.stack([first, torch.linalg.cross(normals, first)], -1)


def frame_shading(found: Tensor, albedo: Tensor, normals: Tensor, weight: Tensor) -> Tensor:
    """Shading [t, S, 3] of each frame: found [t, S, 3] ~ albedo [S, 3] * shading under nine coefficients of light per channel.

    Robust least squares as `lighting.fit_light`, for all frames at once.
    """
    basis = sh_basis(normals)  # [t, S, 9]
    rows = basis[:, None] * albedo.mT[:, :, None]  # [t, 3, S, 9]
    target, robust = found.mT, weight[:, None].expand(-1, 3, -1)
    penalty = torch.full((9,), LIGHT_RIDGE).to(found)
    penalty[0] = 1e-6
    for step in range(LIGHT_STEPS):
        weighed = rows * robust[..., None]
        normal = weighed.mT @ rows
        scale = normal[..., :1, :1].clamp(min=1e-6)
        right = weighed.mT @ target[..., None] / scale
        light = torch.linalg.solve(normal / scale + torch.diag(penalty), right)  # [t, 3, 9, 1]
        if step < LIGHT_STEPS - 1:
            error = (rows @ light)[..., 0] - target
            spread = (robust * error * error).sum(-1, keepdim=True) / robust.sum(-1, keepdim=True).clamp(min=1e-6)
            robust = weight[:, None] / (1 + error * error / spread.clamp(min=1e-6))
    return (basis @ light[..., 0].mT).clamp(min=BOUNDS[1])


def gaussian(images: Tensor, sigma: float) -> Tensor:
    """Images [t, C, H, W] blurred; sigma in pixels."""
    reach = int(3 * sigma + 0.5)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1).to(images) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel, groups=images.shape[1]), kernel.mT.contiguous(), groups=images.shape[1])


def gradient(images: Tensor) -> Tensor:
    """Central differences by x and y of images [t, C, H, W] -> [t, C * 2, H, W], per pixel."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    return torch.stack([across, down], 2).flatten(1, 2)
