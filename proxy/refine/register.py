"""Registers a head's skin with each frame: where its known colours lie in the picture, as shifts along the skin.

Lucas-Kanade on the mesh: with colour c(v) expected at a vertex and I(p(v)) found, a shift s(v) along the skin changes what is found by
grad I . dp/ds s. For all vertices of some frames that is one sparse system: a data term of 2 x 2 blocks, the detected landmarks, a
membrane over the mesh, and ties from each frame to the next. It is solved by conjugate gradients; the preconditioner is the membrane
with the other terms' mean: one factorisation for all frames.

Colours alone leave open where the skin lies on the mesh, as long as it lies so in all frames. The landmarks decide that, once, before
the colours are first taken; the rounds then leave the mean over the frames as it is.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable

import numpy as np
import scipy.sparse as sparse
import torch
import torch.nn.functional as F
from torch import Tensor

from ..fit_jacobian import projection_rows
from ..frames import Frames
from ..head_model import PARTS
from ..landmark_points import FACE_OVAL, table_of
from ..lighting import fit_light, shade
from ..warp2d import sample_pixels
from . import energies
from .observe import Observer, View
from .outside_maps import CHUNK, chunks
from .settings import RefineSettings
from .surface import Skin, factor

STEPS, TOLERANCE = 12, 1e-3  # of the conjugate gradients
MEAN_STEPS = 60  # of those for the landmarks alone, which the preconditioner suits less
LIGHT_STEPS = 3
MIN_ALBEDO = 0.02  # that is lit


class Membrane:
    """Smoothness of shifts: `strain` is the sigma of a shift's change over its distance, `size` that of the shift, metres."""

    def __init__(self, skin: Skin, strain: float, size: float, data: float, ties: float = 0.0):
        """`data`: mean of the other terms' diagonal, 1 / metre^2; `ties`: mean of the diagonal of `Ties`."""
        mass = skin.mass()
        stiffness = skin.stiffness(skin.area.new_ones(len(skin.faces))) / (strain**2 * float(np.median(mass)))
        self._stiffness, self._pull = _to_torch(stiffness).to(skin.normals), 1 / size**2
        system = stiffness * (1 + ties) + sparse.identity(len(mass)) * (data + 1 / size**2)
        self._solver = factor(system.astype(np.float32))  # exact enough for a preconditioner, and faster

    def apply(self, x: Tensor) -> Tensor:
        """Stiffness and pull of shifts [S, N]."""
        return self.stretch(x) + self._pull * x

    def stretch(self, x: Tensor) -> Tensor:
        """Stiffness alone."""
        return self._stiffness @ x

    def precondition(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self._solver.solve(x.float().cpu().numpy())).to(x)


@dataclasses.dataclass(frozen=True)
class Pins:
    """L landmarks' say on the shifts of the three vertices around each: the normal equations, 1 / metre^2."""

    corners: Tensor  # [L, 3] indices of vertices
    blocks: Tensor  # [t, L, 6, 6] of three shifts with each other
    right: Tensor  # [t, L, 6]

    def apply(self, x: Tensor) -> Tensor:
        """What the landmarks do to shifts [t, S, 2]."""
        return self._scatter((self.blocks @ x[:, self.corners].flatten(2)[..., None])[..., 0], x)

    def pull(self, like: Tensor) -> Tensor:
        """Right side [t, S, 2] of the system; zero but at the landmarks."""
        return self._scatter(self.right, like)

    def _scatter(self, values: Tensor, like: Tensor) -> Tensor:
        return torch.zeros_like(like).index_add_(1, self.corners.flatten(), values.unflatten(-1, (3, 2)).flatten(1, 2))


@dataclasses.dataclass(frozen=True)
class Ties:
    """t frames in a row, each tied to the next; the first and the last to frames outside that keep their shifts.

    What is tied is the strain, in units of the membrane's stiffness: the skin may move as a whole, it may not flicker.
    """

    weight: Tensor  # [t + 1] of the tie before each frame, and of that behind the last
    before: Tensor  # [S, 2] shifts of the frame before the first
    after: Tensor  # [S, 2] and of that behind the last

    def apply(self, x: Tensor) -> Tensor:
        """What the ties do to changes [t, S, 2] of the shifts, to be stretched."""
        change = self.weight[1:-1, None, None] * x.diff(dim=0)
        out = torch.zeros_like(x)
        out[1:] += change
        out[:-1] -= change
        out[0] += self.weight[0] * x[0]
        out[-1] += self.weight[-1] * x[-1]
        return out

    def pull(self, present: Tensor) -> Tensor:
        """Right side [t, S, 2] of the system for changes of shifts `present` [t, S, 2], to be stretched."""
        right = -self.apply(present)
        right[0] += self.weight[0] * self.before
        right[-1] += self.weight[-1] * self.after
        return right


def solve_shifts(
    membrane: Membrane,
    blocks: Tensor,
    right: Tensor,
    present: Tensor,
    pins: Pins | None = None,
    ties: Ties | None = None,
    steps: int = STEPS,
    tolerance: float = TOLERANCE,
) -> Tensor:
    """Changes [t, S, 2] of shifts `present` [t, S, 2] for data terms with blocks [t, S, 2, 2] and right sides [t, S, 2].

    Conjugate gradients of at most `steps` steps, until the residual's energy falls to `tolerance` of the first.
    """
    frames = len(blocks)

    def columns(x: Tensor) -> Tensor:
        return x.transpose(0, 1).flatten(1)  # [S, t * 2]

    def back(x: Tensor) -> Tensor:
        return x.unflatten(1, (frames, 2)).transpose(0, 1)

    def apply(x: Tensor) -> Tensor:
        shifts = back(x)
        image = (blocks @ shifts[..., None])[..., 0]
        if pins is not None:
            image = image + pins.apply(shifts)
        strained = membrane.apply(x)
        if ties is not None:
            strained = strained + membrane.stretch(columns(ties.apply(shifts)))
        return columns(image) + strained

    if pins is not None:
        right = right + pins.pull(right)
    residual = columns(right) - membrane.apply(columns(present))
    if ties is not None:
        residual = residual + membrane.stretch(columns(ties.pull(present)))
    x = torch.zeros_like(residual)
    z = membrane.precondition(residual)
    direction, energy = z, (residual * z).sum()
    enough = tolerance * energy
    for _ in range(steps):
        if bool(energy <= enough):
            break
        image = apply(direction)
        step = energy / (direction * image).sum().clamp(min=1e-30)
        x, residual = x + step * direction, residual - step * image
        z = membrane.precondition(residual)
        previous, energy = energy, (residual * z).sum()
        direction = z + energy / previous.clamp(min=1e-30) * direction
    return back(x)


def _to_torch(matrix: sparse.spmatrix) -> Tensor:
    matrix = matrix.tocsr()
    parts = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(*parts, matrix.shape, check_invariants=False)


class SkinLandmarks:
    """The landmarks that lie on the skin, less the face's outline, which slides along it as the head turns."""

    def __init__(self, observer: Observer, settings: RefineSettings):
        model, self._observer, self._settings = observer.model, observer, settings
        table = table_of(model)
        device = model.faces.device
        triangle = table.triangle.to(device)
        use = (table.weight.to(device) > 0) & (model.parts[triangle] == PARTS.index("skin"))
        use[FACE_OVAL] = False
        self.index = use.nonzero()[:, 0]  # [L] among the 478
        place = torch.full((model.vertex_count,), -1, device=device)
        place[observer.skin.vertices] = torch.arange(len(observer.skin.vertices), device=device)
        self.corners = place[model.faces[triangle[self.index]]]  # [L, 3]
        self._share = table.barycentric.to(observer.skin.normals)[self.index]  # [L, 3]
        self._weight = table.weight.to(observer.skin.normals)[self.index] / settings.landmark**2

    def residuals(self, frames: slice, points: Tensor) -> tuple[Tensor, Tensor]:
        """How far the detections lie from the head's landmarks [t, L, 2] (metres, across the view axis), and those [t, L, 3].

        `points` [t, S, 3]: skin in camera space.
        """
        camera = self._observer.stage.camera
        found = (points[:, self.corners] * self._share[..., None]).sum(2)
        away = self._observer.track.landmarks[frames][:, self.index] - camera.project(found)
        return away * (-found[..., 2:] / camera.focal), found

    def pins(self, frames: slice, points: Tensor, turns: Tensor, tangents: Tensor) -> Pins:
        """Normal equations of the landmarks of some frames, far-off ones counting little (Geman and McClure 1985).

        `points` [t, S, 3] of the skin in camera space, `turns` [t, S, 3, 3], `tangents` [S, 3, 2].
        """
        away, found = self.residuals(frames, points)
        camera = self._observer.stage.camera
        motion = projection_rows(camera, found) * (-found[..., 2:, None] / camera.focal)  # [t, L, 2, 3] metres by metres
        rows = motion[:, :, None] @ turns[:, self.corners] @ tangents[self.corners]  # [t, L, 3, 2, 2]
        rows = (rows * self._share[..., None, None]).transpose(2, 3).flatten(3)  # [t, L, 2, 6]
        robust = (1 + away.square().sum(-1) / self._settings.landmark_outlier**2) ** -2
        weight = self._weight * robust * self._observer.track.valid[frames, None]
        weighed = rows * weight[..., None, None]
        return Pins(self.corners, weighed.mT @ rows, (weighed.mT @ away[..., None])[..., 0])


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
        skin, track = self.observer.skin, self.observer.track
        self.face = self.observer.model.regions["face"][skin.vertices]  # [S]
        self.tangents = tangents(skin.normals)  # [S, 3, 2]
        self.shifts = skin.normals.new_zeros(len(track), len(skin.vertices), 2)
        self.seen: Tensor | None = None  # [T, S]
        mass = torch.from_numpy(skin.mass()).to(skin.normals)
        self._lit = self.face * mass / mass.mean()  # [S] what a vertex says about the light; the mesh is dense where the fit is worst
        both = (track.valid[1:] & track.valid[:-1]).to(self.shifts) * (self.settings.strain / self.settings.strain_step) ** 2
        self._ties = F.pad(both, (1, 1))  # [T + 1] of the tie before each frame
        self._fixed = self.colours is not None
        self._membrane: Membrane | None = None

    def offsets(self, frames: slice) -> Tensor:
        """The shifts as canonical displacements [t, S, 3]."""
        return (self.tangents @ self.shifts[frames, ..., None])[..., 0]

    def run(self, frames: Frames, log: dict[str, list[float]], tick: Callable[[int], None]) -> None:
        """All rounds; `tick` is told the number of frames done. Raises ValueError if the model has no landmark table."""
        levels = self.settings.levels
        self._landmarks = SkinLandmarks(self.observer, self.settings)
        if not self._fixed:
            self._settle()
            self._round(frames, levels[0], False, log, tick)
        for number, blur in enumerate(levels):
            mean = self._mean()
            self._round(frames, blur, True, log, tick, first=number == 0)
            if not self._fixed:
                self.shifts += mean - self._mean()

    def look(self, frames: Frames, log: dict[str, list[float]], tick: Callable[[int], None]) -> None:
        """The colours alone, without shifts."""
        self._round(frames, self.settings.levels[-1], False, log, tick)

    def _mean(self) -> Tensor:
        return self.shifts[self.observer.track.valid].mean(0)

    def _settle(self) -> None:
        """One shift for all frames that brings the head to their landmarks.

        Most of a landmark's error is the same in every frame, so that all frames together are believed no more than one.
        """
        total, track, skin = None, self.observer.track, self.observer.skin
        count = int(track.valid.sum())
        for part in chunks(len(track)):
            view = self.observer.view(part, self.displacement(part), self.face)  # what is hidden does not matter here
            pins = self._landmarks.pins(part, view.points, view.turns, self.tangents)
            sums = pins.blocks.sum(0, keepdim=True) / count, pins.right.sum(0, keepdim=True) / count
            total = sums if total is None else (total[0] + sums[0], total[1] + sums[1])
        pins = Pins(self._landmarks.corners, *total)
        none = self.shifts.new_zeros(1, len(skin.vertices), 2)
        data = float(pins.blocks.diagonal(dim1=-2, dim2=-1).sum()) / none.numel()
        membrane = Membrane(skin, self.settings.strain, self.settings.shift, data)
        self.shifts += solve_shifts(membrane, none[..., None].expand(-1, -1, -1, 2), none, none, pins, steps=MEAN_STEPS)

    def _round(
        self, frames: Frames, blur: float, move: bool, log: dict[str, list[float]], tick: Callable[[int], None], first: bool = False
    ) -> None:
        device = self.face.device
        total = torch.zeros(len(self.face), 4, device=device)
        seen, errors, start = [], [], 0
        for images in frames.chunks(CHUNK):
            part = slice(start, start + len(images))
            start = part.stop
            view = self.observer.view(part, self.displacement(part) + self.offsets(part), None if self.seen is None else self.seen[part])
            sight = view.seen.square() * view.valid[:, None]
            weight = sight * self.face
            values = sample_face(images.to(device).float(), view.pixels, weight, blur, move)
            found = values[..., :3]
            if self.colours is None:
                shading, robust = torch.ones_like(found), torch.ones_like(weight)
            else:
                lit = self.colours.clamp(min=MIN_ALBEDO)
                shading = shade(fit_light(found, lit, view.normals, sight * self._lit, LIGHT_STEPS), view.normals)
                difference = lit * shading - found
                robust = 1 / (1 + difference.square().sum(-1) / self.settings.outlier**2)
                errors.append((energies.photometric(lit * shading, found, weight), weight.sum()))
                if move:
                    self._move(part, view, difference, values[..., 3:].unflatten(-1, (3, 2)), weight * robust, first)
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

    def _move(self, part: slice, view: View, difference: Tensor, slopes: Tensor, weight: Tensor, first: bool) -> None:
        rows = slopes @ (view.image_motion(self.observer.stage) @ self.tangents)  # [t, S, 3, 2]
        weighed = rows * (weight / self.settings.noise**2)[..., None, None]
        blocks = rows.mT @ weighed
        right = (weighed.mT @ difference[..., None])[..., 0]
        pins = self._landmarks.pins(part, view.points, view.turns, self.tangents)
        if self._membrane is None:
            colours, landmarks = (system.diagonal(dim1=-2, dim2=-1).sum() for system in (blocks, pins.blocks))
            data, ties = float(colours + landmarks) / right.numel(), 2 * float(self._ties.mean())
            self._membrane = Membrane(self.observer.skin, self.settings.strain, self.settings.shift, data, ties)
        self.shifts[part] += solve_shifts(self._membrane, blocks, right, self.shifts[part], pins, self._tied(part, first))

    def _tied(self, part: slice, first: bool) -> Ties:
        """Ties of a chunk. Those to the chunk behind it hold once that has been moved: not in the `first` round."""
        weight = self._ties[part.start : part.stop + 1].clone()
        if first:
            weight[-1] = 0
        last = len(self.shifts) - 1
        return Ties(weight, self.shifts[max(part.start - 1, 0)], self.shifts[min(part.stop, last)])


def tangents(normals: Tensor) -> Tensor:
    """Two unit vectors [S, 3, 2] across unit normals [S, 3]; the first lies in the head's horizontal plane where it can."""
    up = normals.new_tensor([0.0, 1.0, 0.0]).expand_as(normals)
    ahead = normals.new_tensor([0.0, 0.0, 1.0]).expand_as(normals)
    first = torch.linalg.cross(torch.where(normals[:, 1:2].abs() > 0.9, ahead, up), normals)
    first = F.normalize(first, dim=-1)
    return torch.stack([first, torch.linalg.cross(normals, first)], -1)


def sample_face(images: Tensor, pixels: Tensor, weight: Tensor, blur: float, slopes: bool) -> Tensor:
    """Blurred images [t, 3, H, W] at pixels [t, S, 2]: colours [t, S, 3] and, if `slopes`, their derivatives by x and y, [t, S, 9].

    Only what vertices with weight [t, S] need is blurred; elsewhere the values mean nothing.
    """
    places = pixels[weight > 0]
    size = pixels.new_tensor([images.shape[-1], images.shape[-2]])
    if len(places):
        margin = int(3 * blur) + 3
        low = (places.amin(0) - margin).clamp(min=0).minimum(size - 1).long()
        high = (places.amax(0) + margin + 1).clamp(min=1).minimum(size).long()
        images = images[:, :, low[1] : high[1], low[0] : high[0]]
        pixels = pixels - low
    picture = gaussian(images, blur)
    if slopes:
        picture = torch.cat([picture, gradient(picture)], 1)
    return sample_pixels(picture, pixels.mT[..., None])[..., 0].mT


def gaussian(images: Tensor, sigma: float) -> Tensor:
    """Images [t, C, H, W] blurred, their border repeated; sigma in pixels.

    As products with two band matrices: on a CPU several times faster than convolutions of three channels.
    """
    down, across = (_blur(side, sigma).to(images) for side in images.shape[-2:])
    return down @ (images @ across.mT)


def _blur(size: int, sigma: float) -> Tensor:
    """Gaussian blur of a row of pixels as a matrix [size, size]."""
    reach = int(3 * sigma + 0.5)
    to, source = torch.arange(size), torch.arange(-reach, size + reach)
    apart = (to[:, None] - source).float()
    kernel = torch.exp(-0.5 * (apart / sigma) ** 2) * (apart.abs() <= reach)
    kernel = kernel / kernel.sum(1, keepdim=True)
    return torch.zeros(size, size).index_add_(1, source.clamp(0, size - 1), kernel)


def gradient(images: Tensor) -> Tensor:
    """Central differences by x and y of images [t, C, H, W] -> [t, C * 2, H, W], per pixel."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    return torch.stack([across, down], 2).flatten(1, 2)
