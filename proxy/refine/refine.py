"""HeadProxy of a whole clip: the fitted head displaced to what the frames show, static for identity, dynamic for expression.

Two kinds of evidence. Outside normal maps, if given, become relief (`normal_field`), else the skin's shading does (`shading_field`). The
frames themselves show how the skin really moves: `register` shifts it along itself until all frames agree on its colours. The mean of a clip's displacements is static, what is
left is dynamic and of zero mean, so that identity lives in the static field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ..build import best_frame, build_proxy
from ..detail import expression_map, low_rank
from ..frames import Frames
from ..head_model import HeadModel
from ..head_proxy import HeadProxy
from ..head_track import HeadTrack
from ..posing import Stage, check_models
from ..overlay import check_frames
from ..source_picture import person_mask
from ..texture import unwrap_albedo
from . import energies
from .normal_field import NormalField
from .observe import Observer
from .outside_normals import camera_normals
from .register import CHUNK, Registration
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


def refine_head(
    frames: Frames,
    track: HeadTrack,
    model: HeadModel,
    settings: RefineSettings = RefineSettings(),
    normals: Tensor | None = None,
    convention: str = "auto",
    frame: int | None = None,
    neutral: Tensor | None = None,
    progress: Progress | None = None,
) -> Refined:
    """Refines a fitted photo or clip.

    Args:
        frames: the T pictures that `track` was fitted to.
        normals: IMAGE batch [T or 1, H, W, 3] of camera-space normals from any estimator; see `camera_normals`.
        convention: of the normals: "auto", "opengl" or "directx".
        frame: the frame that is the proxy's source picture (default: `best_frame`).
        neutral: expression [E] of the face at rest (default: all zero).
        progress: told (done, total) in units of frames.

    One photo alone tells nothing about shifts: without normals its fields are zero. Frames without a face have no say and no dynamic
    field. Runs on the model's device.

    Raises ValueError if frames and track differ in number or size, no frame has a face, or the normals do not fit.
    """
    with torch.inference_mode(False), torch.no_grad():
        _check(frames, track, model)
        observer = Observer(model, track)
        log: dict[str, list[float]] = {}
        tick = _counter(progress, _passes(settings, track, normals) * len(track))
        relief = _relief(observer, frames, settings, normals, convention, log, tick)
        registration = Registration(observer, settings, relief.displacement)
        if int(track.valid.sum()) > 1:
            registration.run(frames, log, tick)
        else:
            registration.look(frames, log, tick)
        skin = relief.displacement(slice(None)) + registration.offsets(slice(None))
        fields = _fields(skin, observer, settings)
        log["static"] = [float(energies.magnitude(fields.static[observer.skin.vertices], registration.face))]
        log["dynamic"] = [float(energies.magnitude(fields.dynamic[:, observer.skin.vertices], registration.face))]
        source = best_frame(track) if frame is None else frame
        proxy = build_proxy(frames.frame(source), track, model, source, neutral, settings.texture_size)
        proxy = _look(_displaced(proxy, fields, track, settings), fields, frames, observer, source, settings, tick)
        return Refined(proxy, fields, registration.colours, log)


def solve_dynamic(
    refined: Refined,
    frames: Frames,
    track: HeadTrack,
    model: HeadModel,
    settings: RefineSettings = RefineSettings(),
    progress: Progress | None = None,
) -> Tensor:
    """Dynamic field [T, V, 3] of other frames of a refined person: identity, static field and colours as they are.

    Raises ValueError as `refine_head`.
    """
    with torch.inference_mode(False), torch.no_grad():
        _check(frames, track, model)
        track = dataclasses.replace(track, identity=refined.proxy.identity)
        observer = Observer(model, track)
        static = refined.fields.static.to(observer.skin.normals)[observer.skin.vertices]
        registration = Registration(observer, settings, lambda part: static[None], refined.colours)
        registration.run(frames, {}, _counter(progress, len(settings.levels) * len(track)))
        dynamic = static.new_zeros(len(track), model.vertex_count, 3)
        dynamic[:, observer.skin.vertices] = settings.detail * registration.offsets(slice(None))
        return dynamic


def _relief(
    observer: Observer,
    frames: Frames,
    settings: RefineSettings,
    normals: Tensor | None,
    convention: str,
    log: dict[str, list[float]],
    tick: Callable[[int], None],
) -> NormalField | ShadingField:
    """What lies along the normals: from outside normals if there are any, else from shading."""
    if normals is None:
        field = ShadingField(observer, settings)
        field.run(frames, log, tick)
        return field
    base, covered = _fitted_normals(observer, tick)
    wanted, weight = camera_normals(normals, base, covered, convention)
    field = NormalField(observer, settings)
    field.run(wanted, weight, log, tick)
    return field


def _check(frames: Frames, track: HeadTrack, model: HeadModel) -> None:
    check_models(model, track)
    check_frames(frames, track)
    if not bool(track.valid.any()):
        raise ValueError("no frame of the track has a face; give a picture or clip in which a face is seen")


def _passes(settings: RefineSettings, track: HeadTrack, normals: Tensor | None) -> int:
    """How often every frame is looked at, the texture counted as one."""
    registered = 1 + len(settings.levels) if int(track.valid.sum()) > 1 else 1
    return registered + 1 + (settings.shading_rounds > 0 if normals is None else 1 + settings.normal_rounds)


def _counter(progress: Progress | None, total: int) -> Callable[[int], None]:
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done = min(done + count, total)
        if progress is not None:
            progress(done, total)

    return tick


def _fitted_normals(observer: Observer, tick: Callable[[int], None]) -> tuple[Tensor, Tensor]:
    """Normals [T, H, W, 3] of the plain fit's skin in camera space, and where it is seen [T, H, W]."""
    normals, covered = [], []
    stage, track = observer.stage, observer.track
    for start in range(0, len(track), CHUNK):
        part = slice(start, min(start + CHUNK, len(track)))
        shot = stage.shot(observer.posed(part, observer.skin.normals.new_zeros(1, len(observer.skin.vertices), 3)))
        drawn = torch.nn.functional.normalize(shot.pixels(shot.normals)[0], dim=-1)
        skin = stage.parts_and_empty[shot.raster.ids.long()] == 0
        normals.append(shot.raster.scatter(drawn) * skin[..., None])
        covered.append(skin & track.valid[part, None, None])
        tick(len(skin))
    return torch.cat(normals), torch.cat(covered)


def _fields(skin: Tensor, observer: Observer, settings: RefineSettings) -> Fields:
    """Static and dynamic part of displacements [T, S, 3] of the skin."""
    valid = observer.track.valid
    static = skin[valid].mean(0)
    dynamic = settings.detail * (skin - static) * valid[:, None, None]
    count = observer.model.vertex_count
    whole = skin.new_zeros(count, 3), skin.new_zeros(len(skin), count, 3)
    whole[0][observer.skin.vertices] = static
    whole[1][:, observer.skin.vertices] = dynamic
    return Fields(*whole)


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


def _look(
    proxy: HeadProxy,
    fields: Fields,
    frames: Frames,
    observer: Observer,
    source: int,
    settings: RefineSettings,
    tick: Callable[[int], None],
) -> HeadProxy:
    """The proxy with an albedo from several frames: each unwrapped from the displaced head, weighed by how well it is seen."""
    track = observer.track
    valid = track.valid.nonzero()[:, 0]
    spread = torch.linspace(0, len(valid) - 1, min(settings.texture_frames, len(valid))).round().long()
    chosen = sorted({source, *valid[spread].tolist()})
    stage = Stage(observer.model, track.camera)
    total = weight = 0.0
    best = torch.zeros_like(proxy.albedo_confidence)
    for step, index in enumerate(chosen, 1):
        photo = frames.frame(index).to(proxy.albedo)
        displacement = fields.static + fields.dynamic[index]
        shot = stage.shot(observer.posed(slice(index, index + 1), displacement[None, observer.skin.vertices]))
        albedo, confidence = unwrap_albedo(photo[None], person_mask(photo)[None], shot, settings.texture_size)
        share = confidence + 1e-3 * (index == source)  # what no frame saw looks as the source's unwrapping fills it
        total, weight = total + share * albedo, weight + share
        best = torch.maximum(best, confidence)
        tick(step * len(track) // len(chosen) - (step - 1) * len(track) // len(chosen))
    return dataclasses.replace(proxy, albedo=total / weight.clamp(min=1e-6), albedo_confidence=best)
