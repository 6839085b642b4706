"""Pictures of what the refinement's bars measure, to be judged by eye: synthetic clips beside their truth, or held-out frames.

    python tools/refine_sheets.py known|real OUT.png [--data ../shared/data]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from bench import DATA
from refine_clips import CLIPS, draw_looks, held_out, known_clips, matching_points, posed, posed_refined, scan_points
from refine_metrics import Surface, normal_images, signed_distances
from synthetic_head import KnownClip
from torch import Tensor

from expportrait.proxy.fit import fit_frames
from expportrait.proxy.frames import write_image
from expportrait.proxy.head_model import load_head_model
from expportrait.proxy.landmarks import load_landmarker
from expportrait.proxy.posing import Stage
from expportrait.proxy.refine import RefineSettings, refine_head
from expportrait.proxy.sheet import contact_sheet

ROWS, RANGE = 2, 0.004  # frames of a clip; metres that become full red (outside) or blue (inside)


def known_rows(data: Path) -> Iterator[list[Tensor]]:
    """Rows of source, true, plain and refined normals, and the plain and the refined head's signed distance to the scan."""
    model, landmarker = load_head_model(), load_landmarker()
    for _, clip in known_clips(data, model):
        track = fit_frames(clip.frames, model, landmarker)
        refined = refine_head(clip.frames, track, model, RefineSettings())
        heads = [posed(model, track), posed_refined(model, track, refined.proxy)]
        stage = Stage(model, track.camera)
        for frame in torch.linspace(0.3, 0.7, ROWS).mul(len(clip)).long().tolist():
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
    share = (value / RANGE).clamp(-1, 1)
    colour = torch.cat([1 + share.clamp(max=0), 1 - share.abs(), 1 - share.clamp(min=0)], dim=-1)
    return shot.raster.scatter(colour)[0] * clip.face[frame, ..., None]


def real_rows(data: Path) -> Iterator[list[Tensor]]:
    """Rows of source, plain and refined textured head, plain and refined normals, of held-out frames."""
    for name in CLIPS:
        clip = held_out(data, name)
        stage = Stage(clip.model, clip.track.camera)
        shown = torch.linspace(0.3, 0.7, ROWS).mul(len(clip.track)).long().tolist()
        for start, photos, drawn in draw_looks(clip, clip.looks[:2]):
            for frame in [frame for frame in shown if start <= frame < start + len(photos)]:
                normals = [normal_images(stage, look.vertices[frame][None])[0] for look in clip.looks[:2]]
                textured = [images[frame - start] for images, _ in drawn]
                yield [photos[frame - start], *textured, *map(_encode, normals)]


def _encode(normals: Tensor) -> Tensor:
    return torch.where((normals != 0).any(-1, keepdim=True), (normals + 1) / 2, torch.zeros(()))


KNOWN_LABELS = ["source", "true normals", "plain normals", "refined normals", "plain: outside red, inside blue", "refined"]
REAL_LABELS = ["source, held out", "plain", "refined", "plain normals", "refined normals"]
SHEETS = {"known": (known_rows, KNOWN_LABELS), "real": (real_rows, REAL_LABELS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheet", choices=SHEETS)
    parser.add_argument("out", help="picture to write")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with clips/ and heads/")
    options = parser.parse_args()
    rows, labels = SHEETS[options.sheet]
    write_image(options.out, contact_sheet(list(rows(options.data)), labels))


if __name__ == "__main__":
    main()
