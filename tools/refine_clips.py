"""What the refinement is judged on: synthetic clips of known geometry, held-out frames of real clips, and how they are drawn."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from refine_metrics import align_points, face_ovals, vertex_areas
from synthetic_head import DetailedHead, KnownClip
from torch import Tensor
from torch.nn.functional import normalize

from expportrait.proxy.build import best_frame, build_proxy
from expportrait.proxy.fit import fit_frames
from expportrait.proxy.frames import Frames
from expportrait.proxy.head_model import HeadModel, load_head_model
from expportrait.proxy.head_proxy import HeadProxy
from expportrait.proxy.head_track import HeadTrack
from expportrait.proxy.landmark_points import table_of
from expportrait.proxy.landmarks import Landmarker, load_landmarker
from expportrait.proxy.lighting import fit_light, shade
from expportrait.proxy.posing import Shot, Stage
from expportrait.proxy.refine import RefineSettings, refine_head, solve_dynamic
from expportrait.proxy.render_interior import interior_light, posed_interior_light
from expportrait.transfer.neutral import rest_of

SEEDS = (31, 32, 33)  # of the synthetic people
SCAN_POINTS = 3000  # points of a scan, drawn by area from its visible vertices
# Points that both heads have, in ICT-FaceKit's 68 and MediaPipe's 478: corners of the eyes, of the mouth, under the nose, chin, lips.
POINTS68, POINTS478 = (36, 39, 42, 45, 48, 54, 33, 8, 51, 57), (33, 133, 362, 263, 61, 291, 2, 152, 0, 17)
CLIPS = ("d0", "d18", "d19", "d20")
CHUNK = 8  # frames drawn together


# Synthetic clips of known geometry


def known_clips(data: Path, model: HeadModel) -> Iterator[tuple[int, KnownClip]]:
    """The seeded synthetic clips, in the size that the model's heads have on average."""
    head = _detailed_head(data)
    size = size_ratio(head, model)
    for seed in SEEDS:
        generator = torch.Generator().manual_seed(seed)
        person = head.person(generator)
        yield seed, head.clip(person, head.expressions(generator), generator).resized(size)


def size_ratio(head: DetailedHead, model: HeadModel) -> float:
    """Size of the model's mean head over the synthetic one's.

    One camera cannot tell a small head nearby from a large one far away, so a fit takes the size from its model's mean. What
    two models' means differ by is not an error of the fit; what single people differ by is left in.
    """
    own = table_of(model).points((model.stencil @ model.template)[None], model.faces)[0, list(POINTS478)]
    return align_points(head.points[list(POINTS68)], own, scaled=True).scale


@functools.lru_cache(maxsize=1)
def _detailed_head(data: Path) -> DetailedHead:
    return DetailedHead(Path(data) / "heads" / "ict_facekit_light.npz")


def two_expressions(data: Path, model: HeadModel, landmarker: Landmarker) -> tuple[Frames, HeadTrack]:
    """Two clips of one synthetic person in the same motion with different expressions, one after the other, fitted as one person."""
    head, generator = _detailed_head(data), torch.Generator().manual_seed(SEEDS[0])
    person = head.person(generator)
    expression = torch.cat([head.expressions(generator) for _ in range(2)])
    clips = [head.clip(person, part, torch.Generator().manual_seed(SEEDS[0])) for part in expression.chunk(2)]
    frames = Frames.from_images(torch.cat([clip.images for clip in clips]))
    return frames, fit_frames(frames, model, landmarker)


def scan_points(clip: KnownClip, frame: int) -> Tensor:
    """SCAN_POINTS of the visible vertices of the face, drawn by their area so that they cover it evenly."""
    area = vertex_areas(clip.vertices[frame], clip.faces) * clip.seen[frame]
    generator = torch.Generator().manual_seed(frame)
    return clip.vertices[frame][torch.multinomial(area, SCAN_POINTS, generator=generator)]


def matching_points(clip: KnownClip, frame: int, stage: Stage, vertices: Tensor) -> tuple[Tensor, Tensor]:
    """Surface points [M, 3] of the scan and of a head with vertices [V, 3] that are seen at the same pixels of the face."""
    seen = clip.seen[frame].nonzero()[:, 0]
    shot = stage.shot(vertices[None])
    (points,) = shot.pixels(shot.vertices)
    image = shot.raster.scatter(points)[0]
    pixel = clip.camera.project(clip.vertices[frame, seen]).floor().long()
    found = image[pixel[:, 1], pixel[:, 0]]
    both = found[:, 2] < 0
    return clip.vertices[frame, seen][both], found[both]


def posed(model: HeadModel, track: HeadTrack, displacement: Tensor | None = None, identity: Tensor | None = None) -> Tensor:
    """Vertices [T, V, 3] in camera space of a track, with a displacement [T or 1, V, 3] or none."""
    identity = track.identity if identity is None else identity
    return model.forward(identity[None], track.expression, track.joints, displacement) + track.translation[:, None]


def posed_refined(model: HeadModel, track: HeadTrack, proxy: HeadProxy) -> Tensor:
    """Vertices [T, V, 3] of the frames that a proxy was refined on, from what its file keeps of the dynamic field."""
    return posed(model, track, proxy.displaced(track.expression, proxy.detail), proxy.identity)


# Real clips: refined on the even frames, judged on the odd ones


@dataclasses.dataclass(frozen=True)
class Look:
    """One way to draw the held-out frames."""

    proxy: HeadProxy
    vertices: Tensor  # [T, V, 3] camera space


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The odd frames of a clip, plain and refined on the even ones."""

    model: HeadModel
    frames: Frames
    track: HeadTrack
    plain: Look
    refined: Look
    refined_colours: Look  # the plain geometry in the refined proxy's colours

    @property
    def looks(self) -> list[Look]:
        return [self.plain, self.refined, self.refined_colours]


def held_out(data: Path, name: str) -> HeldOut:
    """Refines on the even frames of a clip and solves the odd ones with everything else fixed."""
    model, frames = load_head_model(), Frames.open(Path(data) / "clips" / f"{name}.mp4")
    track = fit_frames(frames, model, load_landmarker())
    even, odd = (torch.arange(start, len(frames), 2) for start in (0, 1))
    seen, seen_track = SomeFrames(frames, even), take(track, even)
    unseen, unseen_track = SomeFrames(frames, odd), take(track, odd)
    best = best_frame(seen_track)
    plain = build_proxy(seen.frame(best), seen_track, model, best, rest_of(seen_track, model).expression)
    settings = RefineSettings()
    refined = refine_head(seen, seen_track, model, settings)
    dynamic = solve_dynamic(refined, unseen, unseen_track, model, settings)
    basic = posed(model, unseen_track)
    detailed = posed(model, unseen_track, refined.fields.static + dynamic, refined.proxy.identity)
    looks = Look(plain, basic), Look(refined.proxy, detailed), Look(refined.proxy, basic)
    return HeldOut(model, unseen, unseen_track, *looks)


class SomeFrames(Frames):
    """Some frames [N] of others, in ascending order."""

    def __init__(self, frames: Frames, index: Tensor):
        super().__init__(len(index), frames.width, frames.height, frames.fps * len(index) / len(frames))
        self._frames, self._index = frames, set(index.tolist())

    def chunks(self, size: int = 16) -> Iterator[Tensor]:
        walk = itertools.islice(itertools.chain.from_iterable(self._frames.chunks()), max(self._index) + 1)
        chosen = (frame for number, frame in enumerate(walk) if number in self._index)
        while batch := list(itertools.islice(chosen, size)):
            yield torch.stack(batch)


def take(track: HeadTrack, index: Tensor) -> HeadTrack:
    """Some frames [N] of a track."""
    names = ("expression", "joints", "translation", "valid", "confidence", "landmarks", "landmarks_fit")
    return dataclasses.replace(track, **{name: getattr(track, name)[index] for name in names})


def draw_looks(clip: HeldOut, looks: list[Look]) -> Iterator[tuple[int, Tensor, list[tuple[Tensor, Tensor]]]]:
    """First frame, photos [t, H, W, 3], and each look's pictures [t, H, W, 3] and coverage [t, H, W], chunk by chunk.

    The light is that which fits each photo best inside the face, given the look's albedo and normals.
    """
    stage, inside, start = Stage(clip.model, clip.track.camera), interior_light(clip.model), 0
    for photos in clip.frames.chunks(CHUNK):
        photos = photos.permute(0, 2, 3, 1)
        frames = torch.arange(start, start + len(photos))
        ovals = face_ovals(take(clip.track, frames))
        shots = [stage.shot(look.vertices[frames]) for look in looks]
        images = [_relit(shot, look.proxy.albedo, inside, photos, ovals) for shot, look in zip(shots, looks)]
        yield start, photos, [(image, shot.raster.mask) for image, shot in zip(images, shots)]
        start += len(photos)


def _relit(shot: Shot, albedo: Tensor, inside: Tensor, photos: Tensor, face: Tensor) -> Tensor:
    """Draws a shot in one light per frame, fitted to the photos [t, H, W, 3] inside the face [t, H, W]."""
    dark = posed_interior_light(shot.stage.model, inside, shot.vertices)[..., None]
    normals, dark = shot.pixels(shot.normals, dark)
    normals, colour = normalize(normals, dim=-1), shot.texture(albedo) * dark
    pixels = shot.raster.pixels
    frame = pixels // face[0].numel()
    photo, weight = photos.reshape(-1, 3)[pixels], face.reshape(-1)[pixels].float()
    for number in range(len(photos)):
        here = frame == number
        used = here & (weight > 0)
        light = fit_light(photo[used], colour[used], normals[used], weight[used])
        colour[here] *= shade(light, normals[here])
    return shot.raster.scatter(colour.clamp(0, 1))
