"""Bars of the refinement: synthetic clips of known geometry, held-out frames of real clips, disentangling, speed; and pictures of them.

    python tools/bench_refine.py synthetic|real|disentangling|speed [--data ../shared/data]
    python tools/bench_refine.py sheet OUT.png [--real] [--data ../shared/data]
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from bench import DATA
from refine_metrics import (
    Surface,
    align_points,
    correlation,
    face_ovals,
    flicker,
    landmark_error,
    normal_error,
    normal_images,
    psnr,
    scan_distance,
    signed_distances,
    vertex_areas,
)
from synthetic_head import DetailedHead, KnownClip
from torch import Tensor
from torch.nn.functional import normalize

from expportrait.proxy.build import best_frame, build_proxy
from expportrait.proxy.fit import fit_frames
from expportrait.proxy.frames import Frames, write_image
from expportrait.proxy.head_model import HeadModel, load_head_model
from expportrait.proxy.head_proxy import HeadProxy
from expportrait.proxy.head_track import HeadTrack
from expportrait.proxy.landmark_points import table_of
from expportrait.proxy.landmarks import Landmarker, load_landmarker
from expportrait.proxy.lighting import fit_light, shade
from expportrait.proxy.posing import Shot, Stage
from expportrait.proxy.refine import RefineSettings, refine_head, solve_dynamic
from expportrait.proxy.render_interior import interior_light, posed_interior_light
from expportrait.proxy.sheet import contact_sheet
from expportrait.transfer.neutral import rest_of

NORMALS_WITH, NORMALS_WITHOUT = 0.5, 0.7  # of the plain fit's normal error, with normal maps and without
DISTANCE_WITH, DISTANCE_WITHOUT = 0.7, 0.85  # of the plain fit's distance to the scan
MIN_GAIN, MAX_FLICKER = 2.0, 1.1  # dB and ratio
MIN_AGREEMENT, MAX_LEAK = 0.9, 0.3  # correlation and millimetres
MIN_RATE, MIN_CUDA_RATE = 2.0, 30.0
SEEDS = (31, 32, 33)  # of the synthetic people
SCAN_POINTS, SCAN_EVERY = 3000, 4  # points of a scan, drawn by area from its visible vertices; every so many frames
# Points that both heads have, in ICT-FaceKit's 68 and MediaPipe's 478: corners of the eyes, of the mouth, under the nose, chin, lips.
POINTS68, POINTS478 = (36, 39, 42, 45, 48, 54, 33, 8, 51, 57), (33, 133, 362, 263, 61, 291, 2, 152, 0, 17)
CLIPS = ("d0", "d18", "d19", "d20")
SWAP_CLIP, SWAP_FRAMES = "d18", 24  # frames in each half
SPEED_CLIP, SPEED_FRAMES = "d0", 48
CHUNK = 8
SHEET_ROWS, SHEET_RANGE = 2, 0.004  # frames of a clip; metres that become full red (outside) or blue (inside)


def refine_bars(data: Path) -> list[dict]:
    """Bars as {name, value, unit, bound, ok, figures}, from the shared data's folder."""
    return [bar for part in PARTS.values() for bar in part(Path(data))]


def _bar(name: str, value: float, unit: str, most: float | None = None, least: float | None = None, **figures: float) -> dict:
    ok = value <= most if least is None else value >= least
    bound = f"<= {most:g}" if least is None else f">= {least:g}"
    rounded = {key: round(figure, 3) for key, figure in figures.items()}
    return {"name": name, "value": round(value, 3), "unit": unit, "bound": bound, "ok": ok, "figures": rounded}


# Synthetic clips of known geometry


def synthetic_bars(data: Path) -> list[dict]:
    """Normals and distance to the scan against the plain fit, with true normals given and without."""
    model, landmarker = load_head_model(), load_landmarker()
    bars = []
    for seed, clip in known_clips(data, model):
        track = fit_frames(clip.frames, model, landmarker)
        plain = known_figures(clip, model, track, posed(model, track))
        for kind, given, most_normal, most_distance in (
            ("normals given", clip.normal_images, NORMALS_WITH, DISTANCE_WITH),
            ("photometric", None, NORMALS_WITHOUT, DISTANCE_WITHOUT),
        ):
            refined = refine_head(clip.frames, track, model, RefineSettings(), normals=given)
            found = known_figures(clip, model, track, posed_refined(model, track, refined.proxy))
            bars += _known_bars(f"person {seed}, {kind}", plain, found, most_normal, most_distance)
    return bars


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


@dataclasses.dataclass(frozen=True)
class KnownFigures:
    """What is measured on a clip of known geometry."""

    degrees: float  # mean normal error over the visible face
    overlap: float  # share of the visible face where the fitted head has a normal
    millimetres: float  # mean distance of the scan to the head after rigid alignment
    scaled_millimetres: float  # the same when the size is aligned too


def known_figures(clip: KnownClip, model: HeadModel, track: HeadTrack, vertices: Tensor) -> KnownFigures:
    """Measures a head's vertices [T, V, 3] in the track's camera space against a clip's truth."""
    stage = Stage(model, track.camera)
    degrees, overlap = normal_error(normal_images(stage, vertices), clip.normals, clip.face)
    rigid, scaled = [], []
    for frame in range(0, len(clip), SCAN_EVERY):
        surface = Surface(vertices[frame], stage.faces[stage.parts == 0])
        matches = matching_points(clip, frame, stage, vertices[frame])
        points = scan_points(clip, frame)
        rigid.append(scan_distance(points, surface, matches))
        scaled.append(scan_distance(points, surface, matches, scaled=True))
    return KnownFigures(degrees, overlap, 1000 * sum(rigid) / len(rigid), 1000 * sum(scaled) / len(scaled))


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


def _known_bars(name: str, plain: KnownFigures, found: KnownFigures, most_normal: float, most_distance: float) -> list[dict]:
    return [
        _bar(
            f"{name}: normal error", found.degrees / plain.degrees, "of the plain fit's", most_normal,
            plain_degrees=plain.degrees, degrees=found.degrees, plain_overlap=plain.overlap, overlap=found.overlap,
        ),
        _bar(
            f"{name}: distance to the scan", found.millimetres / plain.millimetres, "of the plain fit's", most_distance,
            plain_mm=plain.millimetres, mm=found.millimetres,
            plain_scaled_mm=plain.scaled_millimetres, scaled_mm=found.scaled_millimetres,
        ),
    ]  # fmt: skip


# Real clips: refined on the even frames, judged on the odd ones


def real_bars(data: Path) -> list[dict]:
    """Likeness, landmarks and flicker of frames that the refinement did not see."""
    return [bar for name in CLIPS for bar in _real_bars(name, held_out(data, name))]


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
        numbered = zip(itertools.count(), itertools.chain.from_iterable(self._frames.chunks()))
        chosen = (frame for number, frame in numbered if number in self._index)
        while batch := list(itertools.islice(chosen, size)):
            yield torch.stack(batch)


def take(track: HeadTrack, index: Tensor) -> HeadTrack:
    """Some frames [N] of a track."""
    names = ("expression", "joints", "translation", "valid", "confidence", "landmarks", "landmarks_fit")
    return dataclasses.replace(track, **{name: getattr(track, name)[index] for name in names})


def _real_bars(name: str, clip: HeldOut) -> list[dict]:
    plain, refined, coloured = likeness(clip)
    errors = [landmark_error(clip.model, clip.track, look.vertices) for look in clip.looks[:2]]
    stage = Stage(clip.model, clip.track.camera)
    flickers = [flicker(stage, look.vertices, clip.track) for look in clip.looks[:2]]
    on_surface, in_place = [now / max(before, 1e-9) for before, now in zip(*flickers)]
    return [
        _bar(f"{name}: held-out likeness, gain", refined - plain, "dB", least=MIN_GAIN,
             plain_db=plain, db=refined, plain_geometry_refined_colours_db=coloured),
        _bar(f"{name}: held-out landmark error", errors[1] / errors[0], "of the plain fit's", 1.0,
             plain_percent=errors[0], percent=errors[1]),
        _bar(f"{name}: held-out flicker of normals", on_surface, "of the plain fit's", MAX_FLICKER,
             plain_degrees=flickers[0][0], degrees=flickers[1][0], same_pixel_ratio=in_place),
    ]  # fmt: skip


def likeness(clip: HeldOut) -> list[float]:
    """PSNR of each look inside the face, where all of them cover it. The face is the oval of the detected landmarks."""
    photos, images = [], [[] for _ in clip.looks]
    for start, photo, drawn in draw_looks(clip, clip.looks):
        part = take(clip.track, torch.arange(start, start + len(photo)))
        mask = face_ovals(part) & part.valid[:, None, None]
        for _, covered in drawn:
            mask &= covered
        photos.append(photo[mask])
        for pixels, (image, _) in zip(images, drawn):
            pixels.append(image[mask])
    return [psnr(torch.cat(pixels), torch.cat(photos)) for pixels in images]


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


# Disentangling


def disentangling_bars(data: Path) -> list[dict]:
    """The static field must be the person's alone: the same from other frames and from other expressions."""
    model, landmarker = load_head_model(), load_landmarker()
    frames = Frames.open(Path(data) / "clips" / f"{SWAP_CLIP}.mp4")
    track = fit_frames(frames, model, landmarker)
    half = len(frames) // 2
    parts = [torch.linspace(start, start + half - 1, SWAP_FRAMES).round().long() for start in (0, half)]
    first, second = (_static(frames, track, model, part) for part in parts)
    normals, area = _face_normals(model, track)
    along = [(field * normals).sum(-1) for field in (first, second)]
    agreement = correlation(*along, area)
    share = area / area.sum()
    size, apart = (1000 * float((share * field.abs()).sum()) for field in (along[0], along[0] - along[1]))

    frames, track = two_expressions(data, model, landmarker)
    parts = torch.arange(len(track)).chunk(2)
    first, second = (_static(frames, track, model, part) for part in parts)
    normals, area = _face_normals(model, track)
    share = area / area.sum()
    leak, most = (1000 * float((share * field.norm(dim=-1)).sum()) for field in (first - second, first))
    return [
        _bar(f"{SWAP_CLIP}: static fields of the two halves", agreement, "correlation", least=MIN_AGREEMENT,
             mean_mm=size, apart_mm=apart),
        _bar("change of the static field with the expression", leak, "mm", MAX_LEAK, mean_mm=most),
    ]  # fmt: skip


def two_expressions(data: Path, model: HeadModel, landmarker: Landmarker) -> tuple[Frames, HeadTrack]:
    """Two clips of one synthetic person in the same motion with different expressions, one after the other, fitted as one person."""
    head, generator = _detailed_head(data), torch.Generator().manual_seed(SEEDS[0])
    person = head.person(generator)
    expression = torch.cat([head.expressions(generator) for _ in range(2)])
    clips = [head.clip(person, part, torch.Generator().manual_seed(SEEDS[0])) for part in expression.chunk(2)]
    frames = Frames.from_images(torch.cat([clip.images for clip in clips]))
    return frames, fit_frames(frames, model, landmarker)


def _static(frames: Frames, track: HeadTrack, model: HeadModel, index: Tensor) -> Tensor:
    return refine_head(SomeFrames(frames, index), take(track, index), model, RefineSettings()).fields.static


def _face_normals(model: HeadModel, track: HeadTrack) -> tuple[Tensor, Tensor]:
    """Normals [V, 3] of the person's head at rest, and the area [V] of its vertices on the face's skin."""
    rest = model.canonical(track.identity[None], torch.zeros_like(track.expression[:1]))
    skin = model.faces[model.parts == 0]
    face = model.regions["face"] > 0.5
    return model.vertex_normals(rest)[0], vertex_areas(rest[0], skin) * face


# Speed


def speed_bars(data: Path) -> list[dict]:
    """Frames per second of the default refinement without maps, after the fit; the better of two runs, the first also warms up."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, frames = load_head_model(), Frames.open(Path(data) / "clips" / f"{SPEED_CLIP}.mp4")
    index = torch.arange(SPEED_FRAMES)
    frames = Frames.from_images(torch.cat(list(SomeFrames(frames, index).chunks())).permute(0, 2, 3, 1))
    track = fit_frames(frames, model, load_landmarker())
    model, seconds = model.to(device), math.inf
    for _ in range(2):
        start = time.perf_counter()
        refine_head(frames, track, model, RefineSettings())
        seconds = min(seconds, time.perf_counter() - start)
    least = MIN_CUDA_RATE if device == "cuda" else MIN_RATE
    return [_bar(f"{frames.width}x{frames.height} refinement rate on {device}", SPEED_FRAMES / seconds, "frames/s", least=least)]


# Pictures


def known_rows(data: Path) -> Iterator[list[Tensor]]:
    """Rows of source, true, plain and refined normals, and the refined head's signed distance to the scan."""
    model, landmarker = load_head_model(), load_landmarker()
    for _, clip in known_clips(data, model):
        track = fit_frames(clip.frames, model, landmarker)
        refined = refine_head(clip.frames, track, model, RefineSettings())
        heads = [posed(model, track), posed_refined(model, track, refined.proxy)]
        stage = Stage(model, track.camera)
        for frame in torch.linspace(0.3, 0.7, SHEET_ROWS).mul(len(clip)).long().tolist():
            shown = [normal_images(stage, head[frame][None])[0] for head in heads]
            distances = [distance_image(clip, frame, stage, head[frame]) for head in heads]
            yield [clip.images[frame], clip.normal_images[frame], *map(_encode, shown), *distances]


def distance_image(clip: KnownClip, frame: int, stage: Stage, vertices: Tensor) -> Tensor:
    """Picture [H, W, 3] of a head's vertices [V, 3]: red where it lies outside the scan's face, blue inside, white where it agrees."""
    surface = Surface(vertices, stage.faces[stage.parts == 0])
    matches = matching_points(clip, frame, stage, vertices)
    scan = Surface(clip.vertices[frame], clip.faces)
    signed = signed_distances(vertices, scan, matches, scan_points(clip, frame), surface)
    shot = stage.shot(vertices[None])
    (value,) = shot.pixels(signed[None, :, None])
    share = (value / SHEET_RANGE).clamp(-1, 1)
    colour = torch.cat([1 + share.clamp(max=0), 1 - share.abs(), 1 - share.clamp(min=0)], dim=-1)
    return shot.raster.scatter(colour)[0] * clip.face[frame, ..., None]


def real_rows(data: Path) -> Iterator[list[Tensor]]:
    """Rows of source, plain and refined textured head, plain and refined normals, of held-out frames."""
    for name in CLIPS:
        clip = held_out(data, name)
        stage = Stage(clip.model, clip.track.camera)
        shown = torch.linspace(0.3, 0.7, SHEET_ROWS).mul(len(clip.track)).long().tolist()
        for start, photos, drawn in draw_looks(clip, clip.looks[:2]):
            for frame in [frame for frame in shown if start <= frame < start + len(photos)]:
                normals = [normal_images(stage, look.vertices[frame][None])[0] for look in clip.looks[:2]]
                textured = [images[frame - start] for images, _ in drawn]
                yield [photos[frame - start], *textured, *map(_encode, normals)]


def _encode(normals: Tensor) -> Tensor:
    return torch.where((normals != 0).any(-1, keepdim=True), (normals + 1) / 2, torch.zeros(()))


PARTS = {"synthetic": synthetic_bars, "real": real_bars, "disentangling": disentangling_bars, "speed": speed_bars}
KNOWN_LABELS = ["source", "true normals", "plain normals", "refined normals", "plain: outside red, inside blue", "refined"]
REAL_LABELS = ["source, held out", "plain", "refined", "plain normals", "refined normals"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "sheet"])
    parser.add_argument("out", nargs="?", help="picture to write, for sheet")
    parser.add_argument("--real", action="store_true", help="sheet of the real clips")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with clips/ and heads/")
    options = parser.parse_args()
    if options.part != "sheet":
        print(json.dumps(PARTS[options.part](options.data), indent=1))
        return
    if options.out is None:
        parser.error("name the picture to write: sheet OUT.png")
    rows, labels = (real_rows, REAL_LABELS) if options.real else (known_rows, KNOWN_LABELS)
    write_image(options.out, contact_sheet(list(rows(options.data)), labels))


if __name__ == "__main__":
    main()
