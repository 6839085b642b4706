"""Bars of the refinement: synthetic clips of known geometry, held-out frames of real clips, disentangling, speed.

    python tools/bench_refine.py synthetic|real|disentangling|speed [--data ../shared/data]

Pictures of the same: tools/refine_sheets.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path

import torch
from bars import bar as _bar
from bench import DATA
from refine_clips import (
    CLIPS,
    HeldOut,
    SomeFrames,
    draw_looks,
    held_out,
    known_clips,
    matching_points,
    posed,
    posed_refined,
    scan_points,
    take,
    two_expressions,
)
from refine_metrics import (
    Surface,
    correlation,
    face_ovals,
    flicker,
    landmark_error,
    normal_error,
    normal_images,
    psnr,
    scan_distance,
    vertex_areas,
)
from synthetic_head import KnownClip
from torch import Tensor

from expportrait.proxy.fit import fit_frames
from expportrait.proxy.frames import Frames
from expportrait.proxy.head_model import HeadModel, load_head_model
from expportrait.proxy.head_track import HeadTrack
from expportrait.proxy.landmarks import load_landmarker
from expportrait.proxy.posing import Stage
from expportrait.proxy.refine import OutsideMaps, RefineSettings, refine_head

NORMALS_WITH, NORMALS_WITHOUT = 0.5, 0.7  # of the plain fit's normal error, with normal maps and without
DISTANCE_WITH, DISTANCE_WITHOUT = 0.7, 0.85  # of the plain fit's distance to the scan
MIN_GAIN, MAX_FLICKER = 2.0, 1.1  # dB and ratio
MIN_AGREEMENT, MAX_LEAK = 0.9, 0.3  # correlation and millimetres
MIN_RATE, MIN_CUDA_RATE = 2.0, 30.0
SCAN_EVERY = 4  # the distance to the scan is measured every so many frames
SWAP_CLIP, SWAP_FRAMES = "d18", 24  # frames in each half
SPEED_CLIP, SPEED_FRAMES = "d0", 48


def refine_bars(data: Path) -> list[dict]:
    """Bars as {name, value, unit, bound, ok, figures}, from the shared data's folder."""
    return [bar for part in PARTS.values() for bar in part(Path(data))]


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
            refined = refine_head(clip.frames, track, model, RefineSettings(), OutsideMaps(given))
            found = known_figures(clip, model, track, posed_refined(model, track, refined.proxy))
            bars += _known_bars(f"person {seed}, {kind}", plain, found, most_normal, most_distance)
    return bars


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
    frames = Frames.from_images(frames.pick(range(SPEED_FRAMES)).permute(0, 2, 3, 1))
    track = fit_frames(frames, model, load_landmarker())
    model, seconds = model.to(device), math.inf
    for _ in range(2):
        start = time.perf_counter()
        refine_head(frames, track, model, RefineSettings())
        seconds = min(seconds, time.perf_counter() - start)
    least = MIN_CUDA_RATE if device == "cuda" else MIN_RATE
    return [_bar(f"{frames.width}x{frames.height} refinement rate on {device}", SPEED_FRAMES / seconds, "frames/s", least=least)]


PARTS = {"synthetic": synthetic_bars, "real": real_bars, "disentangling": disentangling_bars, "speed": speed_bars}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with clips/ and heads/")
    options = parser.parse_args()
    print(json.dumps(PARTS[options.part](options.data), indent=1))


if __name__ == "__main__":
    main()
