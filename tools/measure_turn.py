"""Measures what the landmarker gets wrong about turned heads: the constants at the top of proxy/fit_start.py, as JSON.

    python tools/measure_turn.py [--renders N] [--ict ict_facekit_light.npz]

Renders of the embedded head (and clips of ICT-FaceKit's, if given, with other people than bench.py's) have known rotations.
For each share of the landmarks' depth it prints the constants that fit best, the gains of pitch and yaw that are left, and the median
error in degrees before and after; after, with the constants in use, too. The tilt at rest means something on the embedded head alone,
since other heads' neutrals face elsewhere.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from scipy.optimize import least_squares
from synthetic_head import SIDE, IctHead
from torch import Tensor
from tqdm import tqdm

from expportrait.proxy.calibrate_render import Portraits, random_subjects
from expportrait.proxy.camera import Camera
from expportrait.proxy.fit_settings import FitSettings
from expportrait.proxy.fit_start import CROSS, REST_TILT, TILT, seen_place, still_weight, upright
from expportrait.proxy.frames import Frames
from expportrait.proxy.head_model import HeadModel, load_head_model
from expportrait.proxy.landmark_points import LandmarkPoints
from expportrait.proxy.landmarks import Landmarker, load_landmarker
from expportrait.proxy.landmarks.regions import landmark_region
from expportrait.proxy.rotation import compose, mean, to_matrix, to_rotvec

REACH = (25.0, 35.0, 20.0)  # degrees of pitch, yaw and roll
ICT_CLIPS, ICT_SEED = 6, 23
Seen = tuple[Tensor, Tensor, Camera]  # points [T, 478, 3], true rotations [T, 3, 3], camera


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renders", type=int, default=800)
    parser.add_argument("--ict", type=Path)
    options = parser.parse_args()
    model, landmarker = load_head_model(), load_landmarker()
    heads = {"embedded": [rendered(model, landmarker, options.renders)]}
    if options.ict is not None:
        heads["ict"] = ict_clips(options.ict, landmarker)
    result = {name: [measure(model, clips, share) for share in (1.0, 0.9, 0.8)] for name, clips in heads.items()}
    print(json.dumps(result, indent=1))


@torch.no_grad()
def rendered(model: HeadModel, landmarker: Landmarker, count: int) -> Seen:
    """Random subjects of the calibration, but turned further."""
    generator = torch.Generator().manual_seed(77)
    subjects, portraits = random_subjects(model, count, generator), Portraits(model)
    turn = (2 * torch.rand(3, count, 1, generator=generator) - 1) * torch.tensor(REACH)[:, None, None] * (math.pi / 180)
    pitch, yaw, roll = (turn[axis] * torch.eye(3)[axis] for axis in range(3))
    subjects.joints[:, 0] = compose(yaw, compose(pitch, roll))
    points, scores = [], []
    for s in tqdm([slice(start, start + 8) for start in range(0, count, 8)]):
        vertices = portraits.place(model.forward(subjects.identity[s], subjects.expression[s], subjects.joints[s]))
        pictures, _ = portraits.draw(vertices, model.vertex_normals(vertices), generator)
        region = portraits.region(portraits.camera.project(vertices))
        for _ in range(2):
            found, score = landmarker.mesh_in(pictures, region)
            region = landmark_region(found)
        points.append(found)
        scores.append(score)
    sure = torch.cat(scores) > 0.5
    return torch.cat(points)[sure], to_matrix(subjects.joints[sure, 0]), portraits.camera


def ict_clips(path: Path, landmarker: Landmarker) -> list[Seen]:
    head, generator = IctHead(path), torch.Generator().manual_seed(ICT_SEED)
    clips = []
    for _ in tqdm(range(ICT_CLIPS)):
        images, true = head.clip(generator)
        clips.append((landmarker.track(Frames.from_images(images)).points, true, Camera.centred(1.9 * SIDE, SIDE, SIDE)))
    return clips


def measure(model: HeadModel, clips: list[Seen], share: float) -> dict:
    points = LandmarkPoints.of(model)
    weight = still_weight(points, model.expression_bounds, FitSettings().expression)
    neutral = points.template.sum(1)
    seen = [(seen_place(neutral, detected, weight, camera, share).rotation, true) for detected, true, camera in clips]

    def errors(constants) -> Tensor:
        return torch.cat([_apart(upright(found, *constants), true) for found, true in seen])

    fitted = least_squares(lambda x: errors((x[0], 0.0, x[1])).flatten().numpy(), [0.0, 0.0], diff_step=1e-3, loss="soft_l1")
    tilt, cross = fitted.x.tolist()
    offsets = [to_rotvec(true.mT @ upright(found, tilt, 0.0, cross)) for found, true in seen]
    rest_tilt = -float(mean(torch.cat(offsets))[0])
    return {
        "depth_share": share,
        "tilt": round(math.degrees(tilt), 2),
        "rest_tilt": round(math.degrees(rest_tilt), 2),
        "cross": round(cross, 3),
        "gain": _gains([(upright(found, tilt, rest_tilt, cross), true) for found, true in seen]),
        "error_before": _median(errors((0.0, 0.0, 0.0))),
        "error_after": _median(errors((tilt, rest_tilt, cross))),
        "error_with_constants_in_use": _median(errors((TILT, REST_TILT, CROSS))),
    }


def _apart(found: Tensor, true: Tensor) -> Tensor:
    """[T, 3] degrees, without the constant turn between two models' neutrals."""
    offset = to_rotvec(true.mT @ found)
    return to_rotvec(to_matrix(mean(offset)).mT @ to_matrix(offset)) * (180 / math.pi)


def _median(errors: Tensor) -> float:
    return round(float(errors.norm(dim=1).median()), 3)


def _gains(seen: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Least-squares slopes of found by true pitch and yaw."""

    def angles(m: Tensor) -> Tensor:
        values = torch.stack([-m[:, 1, 2].clamp(-1, 1).asin(), torch.atan2(m[:, 0, 2], m[:, 2, 2])], 1)
        return values - values.mean(0)

    true = torch.cat([angles(t) for _, t in seen])
    found = torch.cat([angles(f) for f, _ in seen])
    slopes = torch.linalg.lstsq(true, found).solution.diagonal()
    return {name: round(float(slope), 3) for name, slope in zip(("pitch", "yaw"), slopes)}


if __name__ == "__main__":
    main()
