"""Outside normals into relief: how far the normals of the posed skin are from the wanted ones, integrated over the mesh.

A displacement d along the normal tilts the normal by -grad d, so wanted changes of the normals are the gradient of a relief (the linear
form of Nehab et al., Efficiently Combining Positions and Normals for Precise 3D Geometry, SIGGRAPH 2005). What all frames share is
static, what a frame has beyond that is dynamic; each is one solve for all frames. Skin that no frame shows is carried along by what is
around it.

Estimators know folds and noses better than which way a whole cheek faces. Low frequencies in which a map's frames disagree are left to
the fit, the silhouette and depth: only the high-pass normals are followed then, as in Grassal et al., Neural Head Avatars from Monocular
RGB Videos, CVPR 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy.sparse as sparse
import torch
import torch.nn.functional as F
from torch import Tensor

from . import energies
from .observe import Observer, View
from .outside_maps import chunks
from .outside_normals import CameraNormals
from .settings import RefineSettings
from .surface import Integrator, Skin, factor

STEEPEST = 0.2  # least of 1 + cosine between a posed normal and the resting one that still turns one into the other
FAR = 0.5  # the outlier of the first round, as heads may be that far from the fit; halved each round down to the one that is set
CARRY, LOOSE = 0.0005, 0.06  # metres over which a known relief is blurred, and from it one that is not known comes to an end
ENOUGH = 8  # frames that show skin well enough: glimpses into a nostril tear its rim
SURE = 0.98  # of a map's weight at a vertex: beyond its border it mixes with the background


class LowPass:
    """Weighted means of vertex values over the skin around each, as by a Gaussian with a standard deviation of `length` metres.

    Two steps of implicit diffusion (Desbrun et al., Implicit Fairing of Irregular Meshes Using Diffusion and Curvature Flow, SIGGRAPH 1999)
    of values and weights, of which the quotient is taken (Knutsson and Westin, Normalized and Differential Convolution, CVPR 1993).
    """

    def __init__(self, skin: Skin, length: float):
        self._mass = skin.mass()[:, None]
        self._solver = factor(sparse.diags(skin.mass()) + length**2 / 4 * skin.stiffness(torch.ones_like(skin.area)))

    def __call__(self, weighted: Tensor, weight: Tensor) -> Tensor:
        """Means [t, S, C] of values times their weight [t, S, C] and weights [t, S]."""
        both = torch.cat([weighted, weight[..., None]], -1).transpose(0, 1).flatten(1).double().cpu().numpy()
        for _ in range(2):
            both = self._solver.solve(np.ascontiguousarray(self._mass * both))
        both = torch.from_numpy(both).to(weighted).unflatten(1, (len(weighted), -1)).transpose(0, 1)
        return both[..., :-1] / both[..., -1:].clamp(min=1e-3)


def carry(skin: Skin, relief: Tensor, known: Tensor) -> Tensor:
    """Displacements [S, 3] along the normals by a relief [S], as far as it is `known` [S], 0..1; else along with what is around.

    Nobody sees the inside of a nostril or behind a fold of the ear. Along its own normal it would move against what lies across, and
    through it. One screened Poisson system.
    """
    mass = skin.mass()
    held = mass * known.double().cpu().numpy() / CARRY**2
    along = (relief[:, None] * skin.normals).double().cpu().numpy()
    system = skin.stiffness(torch.ones_like(skin.area)) + sparse.diags(held + mass / LOOSE**2)
    return torch.from_numpy(factor(system).solve(held[:, None] * along)).to(relief)


class NormalField:
    """Relief of one head, metres along the resting normals: static [1, S], as `carry` displaces it, and dynamic [T, S]."""

    def __init__(self, observer: Observer, settings: RefineSettings):
        self.observer, self.settings = observer, settings
        count, size = len(observer.track), len(observer.skin.vertices)
        self.static = observer.skin.normals.new_zeros(1, size)
        self.dynamic = observer.skin.normals.new_zeros(count, size)
        self._carried = observer.skin.normals.new_zeros(1, size, 3)  # what the static relief displaces
        self._face = observer.model.regions["face"][observer.skin.vertices]
        self._area = self._face * torch.from_numpy(observer.skin.mass()).to(self._face)

    def displacement(self, frames: slice) -> Tensor:
        """Canonical displacements [t, S, 3]."""
        return self._carried + self.dynamic[frames][..., None] * self.observer.skin.normals

    def run(self, normals: CameraNormals, log: dict[str, list[float]], tick: Callable[[int], None]) -> None:
        """Follows an estimator's normals; `tick` is told the number of frames done."""
        skin, settings, count = self.observer.skin, self.settings, len(self.dynamic)
        changes, trusts = skin.normals.new_zeros(count, len(skin.vertices), 3), torch.zeros_like(self.dynamic)
        low_pass, followed = LowPass(skin, settings.normal_bias_length), 1.0
        seen: Tensor | None = None
        solvers: tuple[Integrator, Integrator] | None = None
        for number in range(settings.normal_rounds):
            sights, angle, rest = [], 0.0, 0.0
            for part, wanted, weight in normals.chunks():
                view = self.observer.view(part, self.displacement(part), None if seen is None else seen[part])
                change, trust, error = self._change(view, wanted, weight, max(FAR / 2**number, settings.normal_outlier))
                changes[part], trusts[part] = change * trust[..., None], trust
                sights.append(view.seen)
                angle += float(error) * len(change) / count
                tick(len(change))
            seen = torch.cat(sights)
            total = trusts.sum(0)
            known = total / (total + 1)
            shared = changes.sum(0) / total.clamp(min=1e-3)[:, None]
            changes -= shared * trusts[..., None]  # a frame's own; 0 where it sees nothing
            if number == 0:
                believed = self._believed(changes, trusts, low_pass, log)
                followed = 1 - (1 - believed) ** (1 / settings.normal_rounds)  # each round follows its share of what is left
                inside = skin.at_faces((self._face * total)[:, None])[:, 0] / count
                solvers = (
                    Integrator(skin, skin.at_faces(known[:, None])[:, 0], settings.bend, self._reach(settings.static_reach)),
                    Integrator(skin, inside, settings.bend, self._reach(settings.dynamic_reach)),
                )
            (low,) = low_pass((shared * known[:, None])[None], known[None])
            self.static = self.static + solvers[0].solve(-skin.at_faces(shared - (1 - followed) * low)[None], self.static)
            for part in chunks(count):
                own, trust = changes[part], trusts[part, :, None]
                own_low = low_pass(own, trusts[part])
                self.dynamic[part] += solvers[1].solve(skin.at_faces((1 - followed) * own_low * trust - own), self.dynamic[part])
                high = own / trust.clamp(min=1e-3) - own_low + shared - low
                rest += float(energies.high_pass_normals(high, trusts[part])) * len(own) / count
            log.setdefault("normals", []).append(angle)
            log.setdefault("high_pass_normals", []).append(rest)
            mean = self.dynamic.mean(0, keepdim=True)
            self.dynamic, self.static = self.dynamic - mean, self.static + mean
            enough = min(ENOUGH, int(self.observer.track.valid.sum()))
            self._carried = carry(skin, self.static[0], (total / enough).clamp(max=1).square())[None]

    def _reach(self, elsewhere: float) -> Tensor:
        """How far the relief may rise [S]: less at lids and lips, which meet, and have eyes and teeth behind them."""
        regions = self.observer.model.regions
        meeting = torch.maximum(regions["lips"], regions["lids"])[self.observer.skin.vertices]
        return elsewhere ** (1 - meeting) * self.settings.meeting_reach**meeting

    def _believed(self, own: Tensor, trusts: Tensor, low_pass: LowPass, log: dict[str, list[float]]) -> float:
        """Share 0..1 of the map's low frequencies to follow, by how much frames disagree in them: own changes [T, S, 3] times trust [T, S].

        Such a difference is in part the fit's error, of RMS `normal_bias`; the rest is a bias of the estimator, which all frames together
        share as well. What is expected to be the fit's error is the Wiener filter's share. A single frame tells nothing.
        """
        square, area = 0.0, 0.0
        for part in chunks(len(own)):
            weight = trusts[part] * self._area
            square += float((low_pass(own[part], trusts[part]).square().sum(-1) * weight).sum())
            area += float(weight.sum())
        frames = int(self.observer.track.valid.sum())
        variance = square / max(area, 1e-6) * frames / max(frames - 1, 1)
        log["normal_bias"] = [math.degrees(math.sqrt(variance))]
        return min(1.0, self.settings.normal_bias**2 / max(variance, 1e-12))

    def _change(self, view: View, normals: Tensor, weight: Tensor, outlier: float) -> tuple[Tensor, Tensor, Tensor]:
        """Wanted changes [t, S, 3] of the resting normals, their weight [t, S], and the mean angle in degrees.

        Normals at a distance of `outlier` count half; it falls from round to round (graduated non-convexity, Blake and Zisserman, Visual
        Reconstruction, 1987).
        """
        values = view.sample(torch.cat([normals, weight], 1))
        trust = view.seen * (values[..., 3] > SURE) * view.valid[:, None]
        wanted = F.normalize(values[..., :3], dim=-1)
        change = wanted - view.normals
        robust = 1 / (1 + change.square().sum(-1) / outlier**2)
        return self._at_rest(view, change), trust * robust, energies.normals(wanted, view.normals, trust * robust)

    def _at_rest(self, view: View, change: Tensor) -> Tensor:
        """Camera-space changes of the normals, turned with the skin back to the head at rest, across its normals."""
        rest = self.observer.skin.normals.expand_as(change)
        change = (view.turns.mT @ change[..., None])[..., 0]
        now = F.normalize((view.turns.mT @ view.normals[..., None])[..., 0], dim=-1)
        change = change - (change * now).sum(-1, keepdim=True) * now
        axis, cosine = torch.linalg.cross(now, rest), (now * rest).sum(-1, keepdim=True)
        turned = cosine * change + torch.linalg.cross(axis, change)
        return turned + axis * (axis * change).sum(-1, keepdim=True) / (1 + cosine).clamp(min=STEEPEST)
