"""Relief from shading: what the skin's brightness, as the head turns in its light, says about its shape.

With one light L over the clip and an albedo a that changes slowly over the skin, a vertex of normal n has the brightness a shade(L, n).
A relief d along the normal tilts the normal by -grad d, so to first order the brightness is linear in d and in log a. All frames make
one sparse system for both (shape from shading with a smooth albedo, as in Barron and Malik, Shape, Illumination, and Reflectance from
Shading, TPAMI 2015, but linearised about a fitted head and summed over its poses). Light and linearisation are renewed in a few rounds.

Skin is alike on both sides of a face and one light shows each side another slope, so a weak prior of symmetry tells what neither side
shows alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor

from ..frames import Frames
from ..lighting import fit_light, sh_basis, sh_slopes
from ..photo_light import face_skin
from . import energies
from .observe import Observer, View
from .positions import mirror_pairs
from .register import gaussian
from .settings import RefineSettings
from .surface import factor, field_precision, mirror_precision

GAMMA = 2.2  # of the pictures: shading is linear in light, pixels are not
BLUR = 0.5  # pixels: takes out the pixel grid
PATCH = 0.01  # metres: within such a patch the errors of the brightness are alike, of the fit's pose for instance
INDEPENDENT = 6  # as many frames' errors are independent, however many there are
DARKEST = 0.1  # of the mean shading: what is darker is a cast shadow or outside of what nine coefficients can tell
CONTRAST = (0.09, 0.14)  # RMS of the shading about its mean that says nothing, as an albedo does as much .. that is surely light
OVERHANG = (0.1, 0.4)  # downward part of a normal: surely free .. surely an overhang, as under the nose, where shadows are cast
LEAST_LIT = 0.05  # share of a relief's sigma that is left where it is flat
LIGHT_STEPS, LIGHT_RIDGE = 4, 1e-3


class ShadingField:
    """Relief [S] of one head in metres along the resting normals, and the logarithm of its albedo [S], found together."""

    def __init__(self, observer: Observer, settings: RefineSettings):
        self.observer, self.settings = observer, settings
        skin, model = observer.skin, observer.model
        self.static = skin.normals.new_zeros(len(skin.vertices))
        self.albedo = torch.zeros_like(self.static)
        overhang = ((-skin.normals[:, 1] - OVERHANG[0]) / (OVERHANG[1] - OVERHANG[0])).clamp(0, 1)
        self._plain = face_skin(model)[skin.vertices] * (1 - overhang)
        self._nose = model.regions["nose"][skin.vertices]
        mass = torch.from_numpy(skin.mass()).to(self.static)
        self._area = mass / mass.mean()

    def displacement(self, frames: slice) -> Tensor:
        """Canonical displacements [1, S, 3]."""
        return (self.static[:, None] * self.observer.skin.normals)[None]

    def run(self, frames: Frames, log: dict[str, list[float]], tick: Callable[[int], None]) -> None:
        """Finds relief and albedo of some of the frames, spread over those with a face; `tick` is told the share of all done."""
        valid = self.observer.track.valid.nonzero()[:, 0].cpu()
        spread = torch.linspace(0, len(valid) - 1, min(self.settings.shading_frames, len(valid))).round().long()
        chosen = valid[spread].unique()
        pictures = frames.pick(chosen.tolist()).to(self.static)
        brightness = gaussian(pictures.clamp(min=0).pow(GAMMA).mean(1, keepdim=True), BLUR)
        observer, seen = self.observer.at(chosen), None
        # Off the face nothing is known of skin and light: there the relief ends at 0.
        face = (self.observer.model.regions["face"][self.observer.skin.vertices] > 0).nonzero()[:, 0].cpu().numpy()
        both = np.concatenate([face, face + len(self.static)])
        priors = [prior[face][:, face] for prior in self._priors()]
        for number in range(self.settings.shading_rounds):
            view = observer.view(slice(0, len(chosen)), self.displacement(slice(None)), seen)
            seen = view.seen
            system, right, error, lit = self._system(view, view.sample(brightness)[..., 0], number == 0)
            log.setdefault("shading", []).append(error)
            prior = sparse.block_diag([priors[0] / lit**2, priors[1]]).tocsc()
            present = np.concatenate([self.static.double().cpu().numpy(), np.zeros(len(self.static))])
            found = np.zeros_like(present)
            found[both] = factor(system[both][:, both] + prior).solve(right[both] - prior @ present[both])
            change, self.albedo = torch.from_numpy(found).to(self.static).tensor_split(2)
            self.static = self.static + change
            tick(len(observer.track) if number == 0 else 0)

    def _system(self, view: View, found: Tensor, first: bool) -> tuple[sparse.spmatrix, np.ndarray, float, float]:
        """Normal equations of brightness [t, S] in (change of the relief, log albedo).

        And the RMS error before, as a share of the mean brightness, and how surely there is shading at all, LEAST_LIT..1.
        """
        skin, settings = self.observer.skin, self.settings
        weight = view.seen.square() * self._plain * view.valid[:, None]
        # A nose differs most from the fitted one, and would bend the light.
        sure = weight * self._area * (1 - self._nose if first else 1)
        albedo = self.albedo.exp()
        light = shared_light(found, albedo, view.normals, sure)
        mean = (sure * found).sum() / sure.sum().clamp(min=1e-6)
        shading = torch.maximum(sh_basis(view.normals) @ light, DARKEST * mean) / mean  # [t, S]
        expected = albedo * shading
        difference = found / mean - expected
        contrast = energies.weighted_mean((shading - energies.weighted_mean(shading, sure)).square(), sure).sqrt()
        lit = ((contrast - CONTRAST[0]) / (CONTRAST[1] - CONTRAST[0])).clamp(LEAST_LIT, 1)
        robust = weight / (1 + (difference / settings.shading_outlier).square())
        slopes = (sh_slopes(view.normals).mT @ light) * (albedo / mean)[:, None]  # [t, S, 3] by the normal, camera space
        slopes = slopes - (slopes * view.normals).sum(-1, keepdim=True) * view.normals
        tilt = -(view.turns.mT @ slopes[..., None])[..., 0]  # by the gradient of the relief, at rest
        tilt = tilt - (tilt * skin.normals).sum(-1, keepdim=True) * skin.normals

        trust = skin.at_faces(robust[..., None])  # [t, F, 1]
        target = skin.at_faces((robust * (difference + expected * self.albedo))[..., None]) / trust.clamp(min=1e-6)
        share = min(INDEPENDENT, len(found)) / len(found) / (settings.shading_noise * PATCH) ** 2
        by_relief = torch.einsum("fkx,tfx->tfk", skin.hats, skin.at_faces(tilt))
        by_albedo = skin.at_faces(expected[..., None]).expand_as(by_relief) / 3
        rows = torch.cat([by_relief, by_albedo], -1)  # [t, F, 6]
        weighed = rows * (trust * (share * skin.area)[:, None])
        local = torch.einsum("tfi,tfj->fij", weighed, rows).double().cpu().numpy()
        corners = torch.cat([skin.faces, skin.faces + len(skin.vertices)], 1).cpu().numpy()  # [F, 6]
        size = 2 * len(skin.vertices)
        places = np.broadcast_to(corners[:, :, None], local.shape).ravel(), np.broadcast_to(corners[:, None], local.shape).ravel()
        system = sparse.coo_matrix((local.ravel(), places), (size, size)).tocsc()
        right = (weighed * target).sum(0).double().cpu().numpy()
        error = energies.weighted_mean(difference.square(), sure).sqrt()
        return system, np.bincount(corners.ravel(), right.ravel(), size), float(error), float(lit)

    def _priors(self) -> tuple[sparse.spmatrix, sparse.spmatrix]:
        """Precisions [S, S] of relief and log albedo: two random fields on the skin, the relief nearly alike on both sides."""
        skin, settings = self.observer.skin, self.settings
        length = settings.relief_length
        uneven = skin.mass() / (4 * np.pi * (settings.asymmetry * length) ** 2)
        symmetry = mirror_precision(skin, mirror_pairs(self.observer.model, skin.vertices), uneven)
        relief = (field_precision(skin, settings.relief, length) + symmetry).tocsc()
        return relief, field_precision(skin, settings.albedo_change, settings.albedo_length).tocsc()


def shared_light(found: Tensor, albedo: Tensor, normals: Tensor, weight: Tensor) -> Tensor:
    """Light [9] of all frames together: found [t, S] ~ albedo [S] * basis(normals [t, S, 3]) light, weighted by [t, S], robustly."""
    found, albedo = (values.expand_as(weight).flatten()[:, None] for values in (found, albedo))
    return fit_light(found, albedo, normals.flatten(0, 1), weight.flatten(), LIGHT_STEPS, LIGHT_RIDGE)[:, 0]
