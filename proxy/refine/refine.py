"""HeadProxy of a whole clip: the fitted head displaced to what the frames show, static for identity, dynamic for expression.

Three layers lie on one another. Where the skin has to be, by its silhouette and outside depth maps (`position_field`). Relief along the
normals, from outside normal maps (`normal_field`) or else from the skin's shading (`shading_field`). And how the skin moves along itself,
which the frames show (`register`): it is shifted until all frames agree on its colours. The mean of a clip's displacements is static,
what is left is dynamic and of zero mean, so that identity lives in the static field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ..build import best_frame, source_proxy
from ..detail import expression_map, low_rank
from ..frames import Frames
from ..head_model import HeadModel
from ..head_proxy import HeadProxy
from ..head_track import HeadTrack
from ..overlay import check_frames
from ..posing import check_models
from . import energies
from .albedo import clip_albedo
from .expression_modes import Wrinkles
from .normal_field import NormalField
from .observe import Observer
from .outside_depth import depth_targets
from .outside_maps import OutsideMaps
from .outside_normals import CameraNormals, camera_normals
from .person import check_person_mask
from .plain_fit import PlainFit
from .position_field import PositionField
from .register import Registration
from .settings import RefineSettings
from .shading_field import ShadingField

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Fields:
    """Displacements in canonical space, metres."""

    static: Tensor  # [V, 3]
    dynamic: Tensor  # [T, V, 3], its mean over the valid frames is 0


@dataclasses.dataclass(frozen=True)
class Refined:
    """What a refinement found."""

    proxy: HeadProxy
    fields: Fields
    colours: Tensor  # [S, 3] of the skin's vertices, without light: what other frames are registered to
    log: dict[str, list[float]]  # energies by name, one value per round
    wrinkles: Wrinkles | None = None  # of a relief from shading: what the dynamic field holds along the normals


def refine_head(
    frames: Frames,
    track: HeadTrack,
    model: HeadModel,
    settings: RefineSettings = RefineSettings(),
    maps: OutsideMaps = OutsideMaps(),
    frame: int | None = None,
    neutral: Tensor | None = None,
    progress: Progress | None = None,
) -> Refined:
    """Refines a fitted photo or clip.

    Args:
        frames: the T pictures that `track` was fitted to.
        maps: normals, depth and mask of the same pictures from outside. Without normals relief comes from shading, without a mask
            the person is found by segmentation.
        frame: the frame that is the proxy's source picture (default: `best_frame`).
        neutral: expression [E] of the face at rest (default: all zero).
        progress: told (done, total) in units of frames.

    One photo alone tells nothing about shifts: its dynamic field is zero, its static one comes from silhouette, shading or maps, and
    symmetry. Frames without a face have no say and no dynamic field. Runs on the model's device.

    Raises ValueError if frames and track differ in number or size, no frame has a face, or the maps do not fit.
    """
    with torch.inference_mode(False), torch.no_grad():
        _check(frames, track, model)
        observer = Observer(model, track)
        log: dict[str, list[float]] = {}
        tick = _counter(progress, _passes(settings, track, maps) * len(track))
        fit = PlainFit(observer)
        normals = None if maps.normals is None else camera_normals(maps.normals, fit, maps.normal_convention, tick)
        depth = None if maps.depth is None else depth_targets(maps.depth, fit, maps.depth_convention, tick)
        mask = None if maps.mask is None else check_person_mask(maps.mask, fit, tick)
        positions = PositionField(observer, settings)
        if settings.position_frames > 0:
            positions.run(frames, mask, depth, log, tick)
            observer = observer.over(positions.displacement(slice(None)))
        relief = _relief(observer, frames, settings, normals, log, tick)
        registration = Registration(observer, settings, relief.displacement)
        if int(track.valid.sum()) > 1:
            registration.run(frames, log, tick)
        else:
            registration.look(frames, log, tick)
        skin = observer.under + relief.displacement(slice(None)) + registration.offsets(slice(None))
        fields = _fields(skin, observer, settings)
        for name in ("static", "dynamic"):
            log[name] = [float(energies.magnitude(getattr(fields, name)[..., observer.skin.vertices, :], registration.face))]
        log["zero_mean"] = [float(energies.zero_mean(fields.dynamic[:, observer.skin.vertices], observer.track.valid, registration.face))]
        log["roughness"] = [float(energies.roughness(observer.skin, fields.static[None, observer.skin.vertices]))]
        log["temporal"] = [float(energies.temporal(fields.dynamic[:, observer.skin.vertices], registration.face.expand(len(track), -1)))]
        source = best_frame(track) if frame is None else frame
        proxy = _displaced(source_proxy(track, model, source, neutral), fields, track, settings)

        def moved(part: slice) -> Tensor:
            return relief.displacement(part) + registration.offsets(part)

        albedo, confidence = clip_albedo(frames, observer, registration.colours, moved, source, settings, tick)
        proxy = dataclasses.replace(proxy, albedo=albedo, albedo_confidence=confidence)
        return Refined(proxy, fields, registration.colours, log, relief.wrinkles if isinstance(relief, ShadingField) else None)


def solve_dynamic(
    refined: Refined,
    frames: Frames,
    track: HeadTrack,
    model: HeadModel,
    settings: RefineSettings = RefineSettings(),
    progress: Progress | None = None,
) -> Tensor:
    """Dynamic field [T, V, 3] of other frames of a refined person: identity, static field, wrinkles and colours as they are.

    Raises ValueError as `refine_head`.
    """
    with torch.inference_mode(False), torch.no_grad():
        _check(frames, track, model)
        track = dataclasses.replace(track, identity=refined.proxy.identity)
        observer = Observer(model, track)
        static = refined.fields.static.to(observer.skin.normals)[observer.skin.vertices]
        relief = static.new_zeros(len(track), len(static)) if refined.wrinkles is None else refined.wrinkles.at(model, observer.track)
        wrinkles = relief[..., None] * observer.skin.normals
        registration = Registration(observer, settings, lambda part: static + wrinkles[part], refined.colours)
        registration.run(frames, {}, _counter(progress, len(settings.levels) * len(track)))
        return observer.whole(settings.detail * (wrinkles + registration.offsets(slice(None))))


def _relief(
    observer: Observer,
    frames: Frames,
    settings: RefineSettings,
    normals: CameraNormals | None,
    log: dict[str, list[float]],
    tick: Callable[[int], None],
) -> NormalField | ShadingField:
    """What lies along the normals: from outside normals if there are any, else from shading."""
    if normals is None:
        field = ShadingField(observer, settings)
        field.run(frames, log, tick)
        return field
    field = NormalField(observer, settings)
    field.run(normals, log, tick)
    return field


def _check(frames: Frames, track: HeadTrack, model: HeadModel) -> None:
    check_models(model, track)
    check_frames(frames, track)
    if not bool(track.valid.any()):
        raise ValueError("no frame of the track has a face; give a picture or clip in which a face is seen")


def _passes(settings: RefineSettings, track: HeadTrack, maps: OutsideMaps) -> int:
    """How often every frame is looked at, the texture counted as one."""
    registered = 1 + len(settings.levels) if int(track.valid.sum()) > 1 else 1
    relief = int(settings.shading_rounds > 0) if maps.normals is None else settings.normal_rounds
    mapped = sum(given is not None for given in (maps.normals, maps.depth, maps.mask))
    return mapped + registered + relief + (settings.position_frames > 0) + 1


def _counter(progress: Progress | None, total: int) -> Callable[[int], None]:
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done = min(done + count, total)
        if progress is not None:
            progress(done, total)

    return tick


def _fields(skin: Tensor, observer: Observer, settings: RefineSettings) -> Fields:
    """Static and dynamic part of displacements [T, S, 3] of the skin."""
    valid = observer.track.valid
    static = skin[valid].mean(0)
    dynamic = settings.detail * (skin - static) * valid[:, None, None]
    return Fields(observer.whole(static[None])[0], observer.whole(dynamic))


def _displaced(proxy: HeadProxy, fields: Fields, track: HeadTrack, settings: RefineSettings) -> HeadProxy:
    basis, coefficients, kept = low_rank(fields.dynamic)
    by_expression = expression_map(track.expression.to(coefficients), proxy.neutral.to(coefficients), coefficients, settings.ridge)
    return dataclasses.replace(
        proxy,
        displacement=fields.static,
        detail_basis=basis,
        detail=coefficients,
        detail_by_expression=by_expression,
        detail_kept=kept,
    )
