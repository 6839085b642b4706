"""The rims that meet when a head closes its lids or its lips, found on any head model with a landmark table."""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor

from ..proxy.head_model import JOINTS, PARTS, HeadModel, LandmarkTable

COLUMNS = 11  # cuts through each opening, from its right corner to its left one
SAMPLES = 10  # points of one cut through one rim
TRIALS = torch.linspace(-0.2, 1.2, 57)  # cuts that find the corners, in shares of the way between the landmarks there
BESIDE = 0.35  # how far from its landmarks a rim may lie, as a share of the opening's width
OPEN = 0.0003  # metres between two rims from which on a cut counts as inside the opening
MARGIN = 0.01  # share of the opening's width, at each corner, that is left alone: rims are one there
REACH = 0.0025  # metres along the skin, each way, from the rim to where a cut's samples end
SIDE_STEPS = 4  # how often a cut is centred on its rim again: landmarks lie a little beside it
OPEN_JAW = 0.25  # radians that part the lips to tell upper from lower


@dataclasses.dataclass(frozen=True)
class Contour:
    """MediaPipe's points around an opening: the corners (subject's right, then left) and its two rims from right to left."""

    corners: tuple[int, int]
    upper: tuple[int, ...]
    lower: tuple[int, ...]


LEFT_EYE = Contour((362, 263), (398, 384, 385, 386, 387, 388, 466), (382, 381, 380, 374, 373, 390, 249))
RIGHT_EYE = Contour((33, 133), (246, 161, 160, 159, 158, 157, 173), (7, 163, 144, 145, 153, 154, 155))
LIPS = Contour((78, 308), (191, 80, 81, 82, 13, 312, 311, 310, 415), (95, 88, 178, 87, 14, 317, 402, 318, 324))


@dataclasses.dataclass(frozen=True, eq=False)
class Rim:
    """An opening cut into N columns by planes across it; each cut runs over both rims in S samples on mesh edges.

    Frame of the opening: x from its right corner to its left one, z to the front, y up; shares are those of its width.
    `points` holds the mean person's samples with the opening open; there the rims are told apart.
    """

    table: LandmarkTable  # [2 N S] places of the samples: upper then lower rim, column, sample along the cut
    points: Tensor  # [2, N, S, 3] metres, model space
    share: Tensor  # [N] place of each column, 0 at the right corner, 1 at the left one
    axes: Tensor  # [3, 3] rows x, y, z in model space
    origin: Tensor  # [3] right corner, metres
    width: float  # metres

    @property
    def edge(self) -> Tensor:
        """Point [2, N, 3] of each cut that borders the opening: the upper rim's lowest, the lower rim's highest sample."""
        height = self.points @ self.axes[1]  # [2, N, S]
        best = torch.stack([height[0].argmin(-1), height[1].argmax(-1)])
        return torch.gather(self.points, 2, best[..., None, None].expand(-1, -1, 1, 3))[:, :, 0]

    def shares_of(self, points: Tensor) -> Tensor:
        """Places [...] of points [..., 3] along the opening: 0 at the right corner, 1 at the left one."""
        return (points - self.origin) @ self.axes[0] / self.width


@dataclasses.dataclass(frozen=True, eq=False)
class Rims:
    """The three openings of a head: lids of the left and the right eye, lips."""

    left_eye: Rim
    right_eye: Rim
    lips: Rim
    parted: Tensor  # [V, 3] mean person with open eyes and a jaw turned by OPEN_JAW: `Rim.points` lie on it

    @property
    def all(self) -> tuple[Rim, Rim, Rim]:
        return self.left_eye, self.right_eye, self.lips


@functools.lru_cache(maxsize=4)
def find_rims(model: HeadModel) -> Rims | None:
    """Rims of a model; None if it has no landmark table, or its lids or lips are no two rims near their landmarks.

    The landmarks only say where to look: each rim is where a cut through the skin turns back from the opening. Cached per model.
    """
    if model.landmarks is None:
        return None
    with torch.inference_mode(False), torch.no_grad():
        return _find(model)


def _find(model: HeadModel) -> Rims | None:
    joints = model.template.new_zeros(1, len(JOINTS), 3)
    joints[0, JOINTS.index("jaw"), 0] = OPEN_JAW
    nobody = model.template.new_zeros(1, model.identity_basis.shape[0])
    parted = model.forward(nobody, nobody.new_zeros(1, len(model.expression_names)), joints)[0]
    landmarks = model.landmarks.points(parted[None], model.faces)[0]
    skin = model.faces[(model.parts == PARTS.index("skin")) | (model.parts == PARTS.index("mouth"))]
    found = []
    for contour in (LEFT_EYE, RIGHT_EYE, LIPS):
        rim = _rim(model, contour, parted, landmarks, skin)
        if rim is None:
            return None
        found.append(rim)
    return Rims(*found, parted)


def _rim(model: HeadModel, contour: Contour, parted: Tensor, landmarks: Tensor, skin: Tensor) -> Rim | None:
    right, left = landmarks[list(contour.corners)]
    across = (left - right) * right.new_tensor([1.0, 1.0, 0.0])
    width = float(across.norm())
    if not width > 0.005:
        return None
    x, z = across / width, right.new_tensor([0.0, 0.0, 1.0])
    axes = torch.stack([x, torch.linalg.cross(z, x), z])
    near = (parted - (left + right) / 2).norm(dim=-1) < width
    edges = _SkinEdges.of(skin[near[skin].any(1)], (parted - right) @ axes.mT)
    hints = [(torch.stack([right, *landmarks[list(names)], left]) - right) @ axes.mT for names in (contour.upper, contour.lower)]
    inside = [edges.opening(level, hints, BESIDE * width) is not None for level in (TRIALS * width).tolist()]
    middle = len(TRIALS) // 2
    if not inside[middle]:
        return None
    first = next((k + 1 for k in range(middle, -1, -1) if not inside[k]), 0)
    last = next((k - 1 for k in range(middle, len(TRIALS)) if not inside[k]), len(TRIALS) - 1)
    start, stop = float(TRIALS[first]) * width, float(TRIALS[last]) * width
    share = torch.linspace(MARGIN, 1 - MARGIN, COLUMNS).to(right)
    columns = [edges.opening(level, hints, BESIDE * width) for level in (start + share * (stop - start)).tolist()]
    if any(column is None for column in columns):
        return None
    pairs = torch.stack([torch.stack([cut[k][0] for cut in columns]) for k in range(2)])  # [2, N, S, 2]
    weight = torch.stack([torch.stack([cut[k][1] for cut in columns]) for k in range(2)])  # [2, N, S]
    points = torch.lerp(parted[pairs[..., 0]], parted[pairs[..., 1]], weight[..., None])
    return Rim(_table(model, pairs.flatten(0, 2), weight.flatten()), points, share, axes, right + start * x, stop - start)


def _at(line: Tensor, level: float) -> Tensor:
    """Point [3] of a polyline [L, 3] of ascending x where x = level, or its nearer end."""
    k = min(max(1, int((line[:, 0] < level).sum())), len(line) - 1)
    t = ((level - line[k - 1, 0]) / (line[k, 0] - line[k - 1, 0])).clamp(0, 1)
    return torch.lerp(line[k - 1], line[k], t)


def _table(model: HeadModel, pairs: Tensor, weight: Tensor) -> LandmarkTable:
    """Points at `weight` [P] between dense vertices `pairs` [P, 2], as places on triangles that have both corners."""
    faces = model.faces
    triangles, barycentric = [], []
    for (a, b), t in zip(pairs.tolist(), weight.tolist()):
        triangle = int(((faces == a).any(1) & (faces == b).any(1)).nonzero()[0, 0])
        corners = faces[triangle].tolist()
        triangles.append(triangle)
        barycentric.append([(1 - t) * (c == a) + t * (c == b) for c in corners])
    device = faces.device
    return LandmarkTable(
        torch.tensor(triangles, device=device), torch.tensor(barycentric, device=device), torch.ones(len(triangles), device=device)
    )


@dataclasses.dataclass(frozen=True)
class _SkinEdges:
    """Edges of the skin around an opening, to be cut by planes of constant x."""

    local: Tensor  # [V, 3] vertices in the opening's frame
    pairs: Tensor  # [G, 2] vertices of each edge
    sides: Tensor  # [F, 3] edges of each triangle

    @staticmethod
    def of(faces: Tensor, local: Tensor) -> _SkinEdges:
        ends = torch.stack([faces, faces.roll(-1, 1)], -1).sort(-1).values  # [F, 3, 2]
        pairs, inverse = torch.unique(ends.flatten(0, 1), dim=0, return_inverse=True)
        return _SkinEdges(local, pairs, inverse.view(-1, 3))

    def opening(self, level: float, hints: list[Tensor], beside: float) -> list[tuple[Tensor, Tensor]] | None:
        """Cuts through the upper and the lower rim at x = level; None where they are not apart or not at their landmarks."""
        found, heights = [], []
        for hint, side in zip(hints, (-1.0, 1.0)):
            at = _at(hint, level)
            samples = self.cut(level, at, side)
            if samples is None:
                return None
            points = torch.lerp(self.local[samples[0][:, 0]], self.local[samples[0][:, 1]], samples[1][:, None])
            edge = points[(points[:, 1] * side).argmax()]
            if (edge - at)[1:].norm() > beside:
                return None
            found.append(samples)
            heights.append(float(edge[1]))
        return found if heights[0] - heights[1] > OPEN else None

    def cut(self, level: float, hint: Tensor, side: float) -> tuple[Tensor, Tensor] | None:
        """SAMPLES points of the plane x = level around a rim: vertices [S, 2] and the weight [S] of the second.

        From the point nearest to `hint` [3] the cut is followed to where it comes furthest into the opening: y times `side`
        is largest. Short cuts repeat their last point. None if the plane meets no skin.
        """
        x = self.local[self.pairs, 0] - level  # [G, 2]
        crossed = (x[:, 0] < 0) != (x[:, 1] < 0)
        if not bool(crossed.any()):
            return None
        t = (x[:, 0] / (x[:, 0] - x[:, 1])).where(crossed, x.new_zeros(()))
        points = torch.lerp(self.local[self.pairs[:, 0]], self.local[self.pairs[:, 1]], t[:, None])
        mine = crossed[self.sides]
        links = self.sides[mine.sum(1) == 2][mine[mine.sum(1) == 2]].view(-1, 2).tolist()
        neighbours: dict[int, list[int]] = {}
        for a, b in links:
            neighbours.setdefault(a, []).append(b)
            neighbours.setdefault(b, []).append(a)
        index = torch.tensor(sorted(neighbours), device=points.device)
        centre = int(index[(points[index] - hint).norm(dim=-1).argmin()])
        for _ in range(SIDE_STEPS):
            path = _walk(centre, neighbours, points)
            centre = path[int((points[path, 1] * side).argmax())]
        path = _walk(centre, neighbours, points)
        middle = path.index(centre)
        start = min(max(0, middle - SAMPLES // 2), max(0, len(path) - SAMPLES))
        path = path[start : start + SAMPLES]
        path += path[-1:] * (SAMPLES - len(path))
        return self.pairs[path], t[path]


def _walk(centre: int, neighbours: dict[int, list[int]], points: Tensor) -> list[int]:
    """Points of the cut within REACH of one of them along the skin, in order."""
    arms = []
    for first in neighbours[centre][:2]:
        arm, before, here, length = [], centre, first, float((points[first] - points[centre]).norm())
        while length <= REACH and here not in arm and here != centre:
            arm.append(here)
            onward = [n for n in neighbours[here] if n != before]
            if not onward:
                break
            before, here = here, onward[0]
            length += float((points[here] - points[before]).norm())
        arms.append(arm)
    left, right = (arms + [[], []])[:2]
    return left[::-1] + [centre] + right


def joined_table(tables: list[LandmarkTable]) -> LandmarkTable:
    """Several tables as one, in their order."""
    names = [field.name for field in dataclasses.fields(LandmarkTable)]
    return LandmarkTable(*(torch.cat([getattr(table, name) for table in tables]) for name in names))
