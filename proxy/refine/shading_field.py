"""Relief from shading: what the skin's brightness, as the head turns in its light, says about its shape.

With one light over the clip and an albedo a that stays with the skin, a vertex of normal n has the brightness a shade(light, n). A
relief d along the normal tilts the normal by -grad d, so to first order the brightness is linear in d and in log a, and all frames make
one sparse system for both. What changes as the head turns tells the normal: photometric stereo by a head that moves under a light that
does not (Woodham, Photometric Method for Determining Surface Orientation from Multiple Images, 1980), linearised about a fitted head.
What does not change may as well be albedo, or a shadow that lies in a fold: how much of it is, is a matter of how far the head turned.

Wrinkles are reliefs that come with the expression: one for each of the clip's few `ExpressionModes`, found from what a frame shows
beyond the static relief. Lights, robust weights and linearisation are renewed in some rounds; all but the last solve for the control
mesh's vertices only.

Skin is alike on both sides of a face and one light shows each side another slope, so a weak prior of symmetry tells what neither side
shows alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor

from ..frames import Frames
from ..head_model import HeadModel
from ..head_track import HeadTrack
from ..image_filters import gaussian
from ..lighting import fit_light, sh_basis, sh_slopes
from ..photo_light import face_skin
from . import energies
from .expression_modes import ExpressionModes, Wrinkles, calmness
from .observe import Observer, View
from .positions import mirror_pairs
from .settings import RefineSettings, ShadingPrior
from .surface import Skin, control_basis, factor, field_precision, mirror_precision

GAMMA = 2.2  # of the pictures: shading is linear in light, pixels are not
BLUR = 0.5  # pixels: takes out the pixel grid
PATCH = 0.01  # metres: within such a patch the errors of the brightness are alike, of the fit's pose for instance
INDEPENDENT = 6  # as many frames' errors are independent, however many there are; but no more than one's if nothing moves
FOOTPRINT = 0.001  # metres on the face by pixel; in coarser pictures a vertex's brightness is as much less sure
DARKEST = 0.1  # of the mean brightness: what is darker is a cast shadow or outside of what nine coefficients can tell
OVERHANG = (0.1, 0.4)  # downward part of a normal: surely free .. surely an overhang, as under a nose, where a still head has its shadows
UNDERSIDE = (0.4, 0.7)  # the same of a head that turns: what its own outline cuts off
LIGHT_STEPS, LIGHT_RIDGE = 4, (1e-3, 1e-1)  # ridge of the linear and of the quadratic terms: a light from the camera looks like both
CONTRAST = (0.09, 0.14)  # RMS of a still head's shading that says nothing, as an albedo does as much .. that is surely light
LEAST_LIT = 0.05  # share of a relief's sigma that is left where it is flat
STILL, TURNED = 0.05, 0.2  # radians: RMS turns of a head that tell albedo from shape not at all .. as well as can be
OWN_LIGHT = 0.03  # share of its own information by which a frame's light is held to the clip's: turns of the head that the fit has wrong


class ShadingField:
    """Relief [S] of one head in metres along the resting normals, and its wrinkles."""

    def __init__(self, observer: Observer, settings: RefineSettings):
        self.observer, self.settings = observer, settings
        skin, model = observer.skin, observer.model
        self.static = skin.normals.new_zeros(len(skin.vertices))
        self.wrinkles: Wrinkles | None = None
        self._moving = self.static.new_zeros(len(observer.track), len(skin.vertices))
        # Off the face nothing is known of skin and light.
        self._patch, self._among = skin.patch(model.regions["face"][skin.vertices] > 0)
        down = -self._patch.normals[:, 1]
        self._hidden = [((down - low) / (high - low)).clamp(0, 1) for low, high in (OVERHANG, UNDERSIDE)]
        self._plain = face_skin(model)[self._patch.vertices]
        self._nose = model.regions["nose"][self._patch.vertices]
        mass = torch.from_numpy(self._patch.mass()).to(self.static)
        self._area = mass / mass.mean()

    def displacement(self, frames: slice) -> Tensor:
        """Canonical displacements [t, S, 3]."""
        return (self.static + self._moving[frames])[..., None] * self.observer.skin.normals

    def run(self, frames: Frames, log: dict[str, list[float]], tick: Callable[[int], None]) -> None:
        """Finds relief and wrinkles from some of the frames, spread over those with a face; `tick` is told the share of all done."""
        settings, model, skin = self.settings, self.observer.model, self.observer.skin
        if settings.shading_rounds == 0:
            return
        chosen = self.observer.spread(settings.shading_frames)
        observer, seen = self.observer.at(chosen), None
        modes = ExpressionModes.of(model, observer.track, settings.wrinkle_modes)
        scores = modes.scores(model, observer.track)
        calm = calmness(model, observer.track)
        pictures = frames.pick(chosen.tolist()).to(self.static)
        brightness = gaussian(pictures.clamp(min=0).pow(GAMMA).mean(1, keepdim=True), BLUR)
        turned = min(1.0, max(0.0, (head_turn(model, observer.track) - STILL) / (TURNED - STILL)))
        spaces = self._spaces(modes, settings.still.toward(settings.turned, turned))
        lit: float | None = None
        relief = self.static.new_zeros(1 + len(modes), len(self._among))
        albedo = self.static.new_zeros(len(self._among))
        for number in range(settings.shading_rounds):
            whole = self.static.new_zeros(len(chosen), len(skin.vertices))
            whole[:, self._among] = relief[0] + scores @ relief[1:]
            view = observer.view(slice(0, len(chosen)), whole[..., None] * skin.normals, seen, self._among)
            seen = view.seen
            rows = self._rows(view, view.sample(brightness)[..., 0], albedo.exp(), turned, lit)
            lit = rows.lit  # as the first round tells it; later a relief may have followed the paint
            log.setdefault("shading", []).append(rows.error)
            space = spaces[number == settings.shading_rounds - 1]
            changes, left = space.static(rows, calm, relief[0], albedo)
            relief[0], albedo = relief[0] + changes[0], albedo + changes[1]
            # Wrinkles follow what a static relief near the truth leaves over.
            if number > 0:
                for mode in range(len(modes)):
                    change, left = space.wrinkle(rows, left, scores[:, mode], mode, relief[1 + mode])
                    relief[1 + mode] += change
            tick(len(self.observer.track) if number == 0 else 0)
        self._keep(relief, modes)

    def _keep(self, relief: Tensor, modes: ExpressionModes) -> None:
        """Static relief and wrinkles of all frames, the wrinkles of mean 0."""
        model, track = self.observer.model, self.observer.track
        whole = self.static.new_zeros(len(relief), len(self.static))
        whole[:, self._among] = relief
        scores = modes.scores(model, track)
        centre = scores[track.valid].mean(0)
        self.wrinkles = Wrinkles(modes, centre, whole[1:])
        self.static = whole[0] + centre @ whole[1:]
        self._moving = (scores - centre) @ whole[1:]

    def _rows(self, view: View, found: Tensor, albedo: Tensor, turned: float, lit: float | None) -> _Rows:
        """Brightness [t, N], linear in the changes of relief and log albedo, under the lights that it shows; albedo [N].

        `turned`: whether the head turns, 0..1; `lit`: see `_lit`, None in the first round.
        """
        weight = view.seen.square() * self._plain * (1 - torch.lerp(*self._hidden, turned)) * view.valid[:, None]
        # A nose differs most from the fitted one, and would bend the light.
        sure = weight * self._area * (1 - self._nose if lit is None else 1)
        mean = (sure * found).sum() / sure.sum().clamp(min=1e-6)
        found = found / mean.clamp(min=1e-6)
        lights = shared_light(found, albedo, view.normals, sure).expand(len(found), 9)
        if lit is not None:
            lights = own_lights(lights, found, albedo, view.normals, sure, self.settings.shading_outlier)
        expected = albedo * (sh_basis(view.normals) @ lights[..., None])[..., 0].clamp(min=DARKEST)  # [t, N]
        if lit is None:
            lit = self._lit(found, expected, sure, turned)
        difference = found - expected
        robust = weight / (1 + (difference / self.settings.shading_outlier).square()).square()
        trust = self._patch.at_faces(robust[..., None])[..., 0]  # [t, F]
        independent = min(1 + (INDEPENDENT - 1) * turned, len(found))
        return _Rows(
            torch.einsum("fkx,tfx->tfk", self._patch.hats, self._patch.at_faces(self._tilts(view, lights, albedo))),
            self._patch.at_faces(expected[..., None])[..., 0],
            trust * (independent / len(found) / self._noise(view, sure) ** 2 * self._patch.area),
            self._patch.at_faces((robust * difference)[..., None])[..., 0] / trust.clamp(min=1e-6),
            min(INDEPENDENT, len(found)) / independent,
            lit,
            float(energies.weighted_mean(difference.square(), sure).sqrt()),
        )

    def _tilts(self, view: View, lights: Tensor, albedo: Tensor) -> Tensor:
        """Brightness under lights [t, 9] by the gradient of the relief, at rest: [t, N, 3]."""
        slopes = (sh_slopes(view.normals).mT @ lights[:, None, :, None])[..., 0] * albedo[:, None]  # by the normal, camera space
        slopes = slopes - (slopes * view.normals).sum(-1, keepdim=True) * view.normals
        tilt = -(view.turns.mT @ slopes[..., None])[..., 0]
        return tilt - (tilt * self._patch.normals).sum(-1, keepdim=True) * self._patch.normals

    def _noise(self, view: View, weight: Tensor) -> float:
        """Sigma of one frame's brightness over an area, metres: the less sure, the fewer pixels there are of the face."""
        footprint = float(-energies.weighted_mean(view.points[..., 2], weight)) / self.observer.stage.camera.focal
        return self.settings.shading_noise * max(1.0, footprint / FOOTPRINT) * PATCH

    def _lit(self, found: Tensor, expected: Tensor, weight: Tensor, turned: float) -> float:
        """How surely brightness [t, N] is shading at all, LEAST_LIT..1, and not paint: whether it changes as the head turns as expected.

        Where the head does not turn the contrast that is expected has to tell, as a flat one may be paint alone.
        """
        contrast = energies.weighted_mean((expected - energies.weighted_mean(expected, weight)).square(), weight).sqrt()
        contrast = (contrast - CONTRAST[0]) / (CONTRAST[1] - CONTRAST[0])
        total = weight.sum(0).clamp(min=1e-6)
        own, wanted = (values - (weight * values).sum(0) / total for values in (found, expected))
        robust = weight / (1 + ((own - wanted) / self.settings.shading_outlier).square())
        followed = (robust * own * wanted).sum() / (robust * wanted.square()).sum().clamp(min=1e-12)
        return float(torch.lerp(contrast.clamp(LEAST_LIT, 1), followed.clamp(LEAST_LIT, 1), turned))

    def _spaces(self, modes: ExpressionModes, prior: ShadingPrior) -> tuple[_Space, _Space]:
        """A coarse and a fine space of reliefs; both end at 0 where the face does, and at lids and lips, which have to meet."""
        skin, settings, model = self._patch, self.settings, self.observer.model
        length = settings.relief_length
        uneven = skin.mass() / (4 * np.pi * (settings.asymmetry * length) ** 2)
        symmetry = mirror_precision(skin, mirror_pairs(model, skin.vertices), uneven)
        relief = field_precision(skin, prior.relief, length, prior.pull) + symmetry
        albedo = field_precision(skin, prior.albedo_change, prior.albedo_length)
        wrinkle = field_precision(skin, prior.wrinkle, settings.wrinkle_length)
        inside = (~skin.border()).cpu().numpy()
        fine = sparse.identity(len(inside), format="csc")[:, inside]
        coarse = (sparse.diags(inside.astype(float)) @ control_basis(model, skin)).tocsc()
        coarse = coarse[:, np.diff(coarse.indptr) > 0]
        return tuple(_Space(skin, basis, relief, albedo, wrinkle, modes.size.tolist()) for basis in (coarse, fine))


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Brightness of t frames at F triangles: wanted change = by_relief . change of the relief + expected * change of log albedo."""

    by_relief: Tensor  # [t, F, 3] by the relief at the corners
    expected: Tensor  # [t, F]
    weight: Tensor  # [t, F]
    wanted: Tensor  # [t, F]
    of_expression: float  # times as much do frames of different expressions tell as the weight says, however the head turns
    lit: float  # how surely there is shading at all
    error: float  # RMS error, as a share of the mean brightness

    def moved(self, relief: Tensor, skin: Skin) -> Tensor:
        """What a change [S] of the relief does [t, F]."""
        return torch.einsum("tfi,fi->tf", self.by_relief, relief[skin.faces])


class _Space:
    """Fields on a skin [S] as sums of C basis fields, with priors [S, S] of relief, log albedo and wrinkles by movement."""

    def __init__(
        self,
        skin: Skin,
        basis: sparse.spmatrix,
        relief: sparse.spmatrix,
        albedo: sparse.spmatrix,
        wrinkle: sparse.spmatrix,
        movements: list[float],
    ):
        """`basis` [S, C]; `movements` are the sizes of the modes in metres."""
        self._skin, self._basis, self._movements = skin, basis, movements
        self._relief, self._albedo, self._wrinkle = (_Prior(basis, precision) for precision in (relief, albedo, wrinkle))

    def static(self, rows: _Rows, calm: Tensor, relief: Tensor, albedo: Tensor) -> tuple[Tensor, Tensor]:
        """Changes [2, S] of relief and log albedo, frames counted by `calm` [t], and what of the wanted change [t, F] they leave."""
        weight = rows.weight * calm[:, None]
        weighed = rows.by_relief * weight[..., None]
        third = rows.expected / 3  # by the log albedo at each corner
        both = torch.einsum("tfi,tf->fi", weighed, third)[:, :, None].expand(-1, -1, 3)
        square = torch.einsum("tf,tf->f", weight, third.square())[:, None, None].expand(-1, 3, 3)
        relief_system = self._within(torch.einsum("tfi,tfj->fij", weighed, rows.by_relief)) + self._relief.within / rows.lit**2
        mixed, albedo_system = self._within(both), self._within(square) + self._albedo.within
        by_relief = self._right(torch.einsum("tfi,tf->fi", weighed, rows.wanted)) - self._relief.pull(relief) / rows.lit**2
        by_albedo = torch.einsum("tf,tf->f", weight * third, rows.wanted)[:, None].expand(-1, 3)
        by_albedo = self._right(by_albedo) - self._albedo.pull(albedo)
        system = sparse.bmat([[relief_system, mixed], [mixed.T, albedo_system]])
        found = factor(system).solve(np.concatenate([by_relief, by_albedo]))
        changes = torch.stack([self._field(part, relief) for part in np.split(found, 2)])
        left = rows.wanted - rows.moved(changes[0], self._skin) - rows.expected * changes[1][self._skin.faces].mean(-1)
        return changes, left

    def wrinkle(self, rows: _Rows, left: Tensor, score: Tensor, mode: int, relief: Tensor) -> tuple[Tensor, Tensor]:
        """Change [S] of the relief of a mode with score [t], and what of the wanted change [t, F] it leaves."""
        weighed = rows.by_relief * (rows.weight * score[:, None])[..., None]
        sure = 1 / (self._movements[mode] ** 2 * rows.of_expression * rows.lit**2)
        system = self._within(torch.einsum("tfi,tfj->fij", weighed * score[:, None, None], rows.by_relief)) + sure * self._wrinkle.within
        right = self._right(torch.einsum("tfi,tf->fi", weighed, left)) - sure * self._wrinkle.pull(relief)
        change = self._field(factor(system).solve(right), relief)
        return change, left - score[:, None] * rows.moved(change, self._skin)

    def _within(self, local: Tensor) -> sparse.spmatrix:
        """What couples the corners of the triangles [F, 3, 3], in the space: [C, C]."""
        return self._basis.T @ self._skin.assemble(local) @ self._basis

    def _right(self, corners: Tensor) -> np.ndarray:
        return self._basis.T @ self._skin.gather(corners)

    def _field(self, found: np.ndarray, like: Tensor) -> Tensor:
        return torch.from_numpy(self._basis @ found).to(like)


class _Prior:
    """A precision [S, S] seen from a space of fields with basis [S, C]."""

    def __init__(self, basis: sparse.spmatrix, precision: sparse.spmatrix):
        self._half = (basis.T @ precision).tocsr()
        self.within = self._half @ basis

    def pull(self, field: Tensor) -> np.ndarray:
        """How it pulls a field [S] to 0: [C]."""
        return self._half @ field.double().cpu().numpy()


def head_turn(model: HeadModel, track: HeadTrack) -> float:
    """RMS angle in radians between the head's rotations in the frames of a track with a face and their mean."""
    track = track.at(track.valid.nonzero()[:, 0])
    rotations = model.joint_transforms(track.identity[None], track.expression, track.joints)[:, model.pivot, :3, :3]
    left, _, right = torch.linalg.svd(rotations.mean(0))
    cosine = ((rotations * (left @ right)).sum((1, 2)) - 1) / 2
    return float(cosine.clamp(-1, 1).acos().square().mean().sqrt())


def shared_light(found: Tensor, albedo: Tensor, normals: Tensor, weight: Tensor) -> Tensor:
    """Light [9] of all frames together: found [t, S] ~ albedo [S] * basis(normals [t, S, 3]) light, weighted by [t, S], robustly."""
    found, albedo = (values.expand_as(weight).flatten()[:, None] for values in (found, albedo))
    return fit_light(found, albedo, normals.flatten(0, 1), weight.flatten(), LIGHT_STEPS, *LIGHT_RIDGE)[:, 0]


def own_lights(light: Tensor, found: Tensor, albedo: Tensor, normals: Tensor, weight: Tensor, outlier: float) -> Tensor:
    """Lights [t, 9] of single frames near those of `light` [t, 9] that the clip shows.

    A fit that has turned the head by too much makes its light look turned; what a frame's nine numbers explain says nothing of relief.
    """
    rows = sh_basis(normals) * albedo[:, None]  # [t, S, 9]
    left = found - (rows @ light[..., None])[..., 0]
    weighed = rows * (weight / (1 + (left / outlier).square()))[..., None]
    system = weighed.mT @ rows
    held = torch.diag_embed(OWN_LIGHT * system.diagonal(dim1=1, dim2=2).mean(0).clamp(min=1e-12))
    return light + torch.linalg.solve(system + held, weighed.mT @ left[..., None])[..., 0]
