"""A ball with a face's proportions as a HeadModel: smooth random bases, all joints in use, a random landmark table."""

import math

import torch

from expportrait.proxy.head_model import JOINTS, PARTS, REGIONS, HeadModel, LandmarkTable
from expportrait.proxy.landmarks import FaceLandmarks

ROWS, COLUMNS = 24, 24


def _ball() -> tuple[torch.Tensor, torch.Tensor]:
    """Points on a closed grid of a head-sized ellipsoid and its triangles, counter-clockwise from outside."""
    polar = torch.linspace(0.05, math.pi - 0.05, ROWS)
    turn = torch.arange(COLUMNS) * (2 * math.pi / COLUMNS)
    polar, turn = torch.meshgrid(polar, turn, indexing="ij")
    points = torch.stack([polar.sin() * turn.sin(), polar.cos(), polar.sin() * turn.cos()], -1).flatten(0, 1)
    at = torch.arange(ROWS * COLUMNS).view(ROWS, COLUMNS)
    a, b = at[:-1], at[1:]
    right_a, right_b = a.roll(-1, 1), b.roll(-1, 1)
    lower, upper = torch.stack([a, b, right_b], -1), torch.stack([a, right_b, right_a], -1)
    return points * torch.tensor([0.08, 0.11, 0.09]), torch.cat([lower, upper]).flatten(0, 1).view(-1, 3)


def _waves(points: torch.Tensor, count: int, size: float, generator: torch.Generator) -> torch.Tensor:
    """Smooth random fields [count, C, 3] with the given RMS."""
    frequency = 30 * torch.randn(count, 1, 3, generator=generator)
    phase = 2 * math.pi * torch.rand(count, 1, 1, generator=generator)
    field = torch.sin((points * frequency).sum(-1, keepdim=True) + phase) * torch.randn(count, 1, 3, generator=generator)
    return size * field / field.square().sum(-1).mean(-1).sqrt()[:, None, None]


def make_model(generator: torch.Generator, identities: int = 12, expressions: int = 10, correctives: bool = False) -> HeadModel:
    points, faces = _ball()
    count = len(points)
    joints = torch.tensor([[0, -0.2, -0.03], [0, -0.12, -0.03], [0, -0.02, 0], [0, -0.03, 0.02], [0.03, 0.02, 0.06], [-0.03, 0.02, 0.06]])
    distance = torch.cdist(points, joints)
    weights = torch.softmax(-distance / 0.015, 1)
    own = torch.arange(count)
    index = torch.stack([own.repeat(2), torch.cat([own, own.roll(1)])])
    values = torch.cat([torch.full((count,), 0.9), torch.full((count,), 0.1)])
    expression_joints = torch.zeros(expressions, len(JOINTS), 3)
    expression_joints[0, JOINTS.index("jaw"), 0] = 0.3
    front = (points[faces].mean(1)[:, 2] > 0.04).nonzero()[:, 0]
    picked = front[torch.randint(len(front), (478,), generator=generator)]
    barycentric = torch.rand(478, 3, generator=generator) + 0.1
    weight = torch.ones(478)
    weight[:36] = 0
    bend = 0.002 * torch.randn((len(JOINTS) - 1) * 9, count, 3, generator=generator)
    return HeadModel(
        model_id="toy",
        template=points,
        identity_basis=_waves(points, identities, 0.003, generator),
        identity_names=tuple(f"identity_{i}" for i in range(identities)),
        expression_basis=_waves(points, expressions, 0.004, generator),
        expression_names=tuple(f"expression_{i}" for i in range(expressions)),
        expression_bounds=torch.tensor([[0.0, 1.0]]).repeat(expressions, 1),
        joint_template=joints,
        joint_identity=0.002 * torch.randn(identities, len(JOINTS), 3, generator=generator),
        joint_expression=0.0005 * torch.randn(expressions, len(JOINTS), 3, generator=generator),
        expression_joints=expression_joints,
        pose_basis=bend if correctives else None,
        weights=weights,
        stencil=torch.sparse_coo_tensor(index, values, (count, count), check_invariants=True).coalesce(),
        faces=faces,
        uv=torch.zeros(count, 2),
        uv_faces=faces,
        parts=torch.zeros(len(faces), dtype=torch.int64),
        regions={name: torch.ones(count) for name in REGIONS},
        part_colour=torch.full((len(PARTS), 3), 0.5),
        albedo=torch.full((count, 3), 0.5),
        landmarks=LandmarkTable(picked, barycentric / barycentric.sum(1, keepdim=True), weight),
    )


def face_landmarks(pixels: torch.Tensor, depth: torch.Tensor, width: int, height: int, fps: float = 25.0) -> FaceLandmarks:
    """Detections of all frames from pixels [T, 478, 2] and z [T, 478] in pixels, away from the camera."""
    low, high = pixels.amin(1), pixels.amax(1)
    return FaceLandmarks(
        points=torch.cat([pixels, depth[..., None]], -1),
        valid=torch.ones(len(pixels), dtype=torch.bool),
        confidence=torch.ones(len(pixels)),
        box=torch.cat([low, high - low], 1),
        width=width,
        height=height,
        fps=fps,
    )
