"""Registers a head's skin with each frame: where its known colours lie in the picture, as shifts along the skin.

Lucas-Kanade on the mesh: with colour c(v) expected at a vertex and I(p(v)) found, a shift s(v) along the skin changes what is found by
grad I . dp/ds s. For all vertices of some frames that is one sparse system, to which the detected landmarks, the smoothness of shifts
and ties from each frame to the next belong too (`shift_system`).

Colours alone leave open where the skin lies on the mesh, as long as it lies so in all frames. The landmarks decide that, once, before
the colours are first taken; the rounds then leave the mean over the frames as it is.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..fit_jacobian import projection_rows
from ..frames import Frames
from ..head_model import PARTS
from ..image_filters import gaussian, gradient
from ..landmark_points import FACE_OVAL, table_of
from ..lighting import fit_light, shade
from ..warp2d import sample_pixels
from . import energies
from .observe import Observer, View
from .outside_maps import CHUNK, chunks
from .settings import RefineSettings
from .shift_system import Membrane, Pins, Ties, solve_shifts, to_torch
from .surface import control_basis

SETTLE_STEPS, SETTLE_TOLERANCE = 60, 1e-4  # of the conjugate gradients for the landmarks alone, one system for all frames
LIGHT_STEPS = 3
MIN_ALBEDO = 0.02  # that is lit


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
        self._weight = table.weight.to(observer.skin.normals)[self.index]  # [L]

    def among(self, vertices: Tensor) -> SkinLandmarks:
        """The same for points of some of the skin's vertices, [N], that have all corners among them."""
        some = copy.copy(self)
        place = torch.full((len(self._observer.skin.vertices),), -1, device=vertices.device)
        place[vertices] = torch.arange(len(vertices), device=vertices.device)
        some.corners = place[self.corners]
        return some

    def error(self, frames: slice, points: Tensor) -> tuple[Tensor, Tensor]:
        """Mean distance in pixels of detections and head's landmarks, and the weight of these frames, for points [t, S, 3]."""
        weight = self._weight * self._observer.track.valid[frames, None]  # [t, L]
        found = self._observer.stage.camera.project(self._on(points))
        return energies.landmarks(found, self._observer.track.landmarks[frames][:, self.index], weight), weight.sum()

    def _on(self, points: Tensor) -> Tensor:
        return (points[:, self.corners] * self._share[..., None]).sum(2)

    def residuals(self, frames: slice, points: Tensor) -> tuple[Tensor, Tensor]:
        """How far the detections lie from the head's landmarks [t, L, 2] (metres, across the view axis), and those [t, L, 3].

        `points` [t, S, 3]: skin in camera space.
        """
        camera = self._observer.stage.camera
        found = self._on(points)
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
        weight = self._weight / self._settings.landmark**2 * robust * self._observer.track.valid[frames, None]
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
        observer = self.observer
        skin, track, like = observer.skin, observer.track, observer.skin.normals
        self.face = observer.model.regions["face"][skin.vertices]  # [S]
        self.tangents = tangents(skin.normals)  # [S, 3, 2]
        self._basis = control_basis(observer.model, skin)
        self._spread = to_torch(self._basis).to(like)
        self._controls = like.new_zeros(len(track), self._basis.shape[1], 2)  # [T, C, 2] coefficients of the shifts
        mass = torch.from_numpy(skin.mass()).to(like)
        self._lit = self.face * mass / mass.mean()  # [S] what a vertex says about the light; the mesh is dense where the fit is worst
        both = (track.valid[1:] & track.valid[:-1]).to(like) * (self.settings.strain / self.settings.strain_step) ** 2
        self._ties = F.pad(both, (1, 1))  # [T + 1] of the tie before each frame
        self._fixed = self.colours is not None
        self._look_at((self.face > 0).nonzero()[:, 0])

    def _look_at(self, vertices: Tensor) -> None:
        self._near = vertices  # [N] of the skin: what the frames are asked about
        self._seen: Tensor | None = None  # [T, N]

    @property
    def shifts(self) -> Tensor:
        """Shifts of all frames along the tangents, metres: [T, S, 2]."""
        return self._shifts(slice(None))

    def _shifts(self, frames: slice) -> Tensor:
        controls = self._controls[frames]
        return (self._spread @ controls.transpose(0, 1).flatten(1)).unflatten(1, (len(controls), 2)).transpose(0, 1)

    def offsets(self, frames: slice) -> Tensor:
        """The shifts as canonical displacements [t, S, 3]."""
        shifts = self._shifts(frames)
        return shifts[..., :1] * self.tangents[..., 0] + shifts[..., 1:] * self.tangents[..., 1]

    def run(self, frames: Frames, log: dict[str, list[float]], tick: Callable[[int], None]) -> None:
        """All rounds; `tick` is told the number of frames done. Raises ValueError if the model has no landmark table."""
        levels, landmarks = self.settings.levels, SkinLandmarks(self.observer, self.settings)
        on_face = torch.zeros_like(self.face, dtype=torch.bool)
        on_face[self._near] = True
        on_face[landmarks.corners] = True
        self._look_at(on_face.nonzero()[:, 0])
        self._landmarks, self._close = landmarks, landmarks.among(self._near)
        skin, settings = self.observer.skin, self.settings
        self._membrane = Membrane(skin, settings.strain, settings.shift, 0.0, self._basis, self._near)
        self._blind, self._diagonals = True, []
        if not self._fixed:
            self._settle(log)
            self._round(frames, levels[0], False, log, tick)
        for number, blur in enumerate(levels):
            mean = self._mean()
            if self._diagonals:
                self._membrane.expect(torch.stack(self._diagonals).mean(0))
                self._diagonals = []
            self._round(frames, blur, True, log, tick, first=number == 0)
            if not self._fixed:
                self._controls += mean - self._mean()

    def look(self, frames: Frames, log: dict[str, list[float]], tick: Callable[[int], None]) -> None:
        """The colours alone, without shifts."""
        self._round(frames, self.settings.levels[-1], False, log, tick)

    def _mean(self) -> Tensor:
        return self._controls[self.observer.track.valid].mean(0)

    def _settle(self, log: dict[str, list[float]]) -> None:
        """One shift for all frames that brings the head to their landmarks.

        Most of a landmark's error is the same in every frame, so that all frames together are believed no more than one.
        """
        parts, errors, track = [], [], self.observer.track
        for part in chunks(len(track)):
            # What is hidden does not matter here.
            view = self.observer.view(part, self.displacement(part), self.face[self._near].expand(part.stop - part.start, -1), self._near)
            pins = self._close.pins(part, view.points, view.turns, self.tangents[self._near])
            parts.append((pins.blocks.sum(0, keepdim=True), pins.right.sum(0, keepdim=True)))
            errors.append(self._close.error(part, view.points))
        _log(log, "landmarks", errors)
        count = int(track.valid.sum())
        pins = Pins(self._close.corners, *(sum(values) / count for values in zip(*parts)))
        none, present = self.tangents.new_zeros(1, len(self._near), 2), self._controls[:1]
        self._membrane.expect(pins.diagonal(len(self._near)))
        blocks = none[..., None].expand(-1, -1, -1, 2)
        self._controls += solve_shifts(self._membrane, blocks, none, present, pins, None, SETTLE_STEPS, SETTLE_TOLERANCE)

    def _round(
        self, frames: Frames, blur: float, move: bool, log: dict[str, list[float]], tick: Callable[[int], None], first: bool = False
    ) -> None:
        near, device = self._near, self.face.device
        known = None if self.colours is None else self.colours[near].clamp(min=MIN_ALBEDO)
        total = torch.zeros(len(near), 4, device=device)
        seen, errors, landmarks, start = [], [], [], 0
        for images in frames.chunks(CHUNK):
            part = slice(start, start + len(images))
            start = part.stop
            displacement = self.displacement(part) + self.offsets(part)
            view = self.observer.view(part, displacement, None if self._seen is None else self._seen[part], near)
            sight = view.seen.square() * view.valid[:, None]
            weight = sight * self.face[near]
            values = sample_face(images.to(device).float(), view.pixels, weight, blur, move)
            found = values[..., :3]
            if known is None:
                shading, robust = torch.ones_like(found), torch.ones_like(weight)
            else:
                shading = shade(fit_light(found, known, view.normals, sight * self._lit[near], LIGHT_STEPS), view.normals)
                difference = known * shading - found
                robust = 1 / (1 + difference.square().sum(-1) / self.settings.outlier**2)
                errors.append((energies.photometric(known * shading, found, weight), weight.sum()))
                if move:
                    landmarks.append(self._close.error(part, view.points))
                    self._move(part, view, difference, values[..., 3:].unflatten(-1, (3, 2)), weight * robust, first)
            trust = (weight * robust)[..., None]
            total += torch.cat([trust * found / shading, trust], -1).sum(0)
            seen.append(view.seen)
            tick(len(images))
        self._seen = torch.cat(seen)
        if not self._fixed:
            mean = total[:, :3].sum(0) / total[:, 3].sum().clamp(min=1e-3)
            sure = total[:, 3:] > 1e-3
            self.colours = mean.repeat(len(self.face), 1)
            self.colours[near] = torch.where(sure, total[:, :3] / total[:, 3:].clamp(min=1e-3), mean)
        _log(log, "photometric", [(error.square(), share) for error, share in errors], root=True)
        _log(log, "landmarks", landmarks)

    def _move(self, part: slice, view: View, difference: Tensor, slopes: Tensor, weight: Tensor, first: bool) -> None:
        tangents = self.tangents[self._near]
        rows = slopes @ (view.image_motion(self.observer.stage) @ tangents)  # [t, N, 3, 2]
        weighed = rows * (weight / self.settings.noise**2)[..., None, None]
        blocks = rows.mT @ weighed
        right = (weighed.mT @ difference[..., None])[..., 0]
        pins = self._close.pins(part, view.points, view.turns, tangents)
        diagonal = blocks.diagonal(dim1=-2, dim2=-1).mean((0, -1)) + pins.diagonal(len(self._near))
        if self._blind:  # until all frames have been looked at, the first with a face stand for them
            self._membrane.expect(diagonal)
            self._blind = not bool(diagonal.any())
        self._diagonals.append(diagonal)
        self._controls[part] += solve_shifts(self._membrane, blocks, right, self._controls[part], pins, self._tied(part, first))

    def _tied(self, part: slice, first: bool) -> Ties:
        """Ties of a chunk. Those to the chunk behind it hold once that has been moved: not in the `first` round."""
        weight = self._ties[part.start : part.stop + 1].clone()
        if first:
            weight[-1] = 0
        last = len(self._controls) - 1
        return Ties(weight, self._controls[max(part.start - 1, 0)], self._controls[min(part.stop, last)])


def _log(log: dict[str, list[float]], name: str, parts: list[tuple[Tensor, Tensor]], root: bool = False) -> None:
    """Logs the mean of an energy over chunks of frames, each with its weight; nothing if there are none."""
    if parts:
        values, weight = (torch.stack(column) for column in zip(*parts))
        mean = energies.weighted_mean(values, weight)
        log.setdefault(name, []).append(float(mean.sqrt() if root else mean))


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
