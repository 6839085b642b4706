"""HeadModel: a head as linear blend shapes over a control mesh, a subdivision stencil, and skinning to six joints."""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor

from . import mesh
from .rotation import to_matrix

JOINTS = ("root", "neck", "head", "jaw", "left_eye", "right_eye")
PARENTS = (-1, 0, 1, 2, 2, 2)
PARTS = ("skin", "left_eye", "right_eye", "cornea", "upper_teeth", "lower_teeth", "gums", "tongue", "mouth")
REGIONS = (
    "face", "lips", "lids", "brows", "nose", "ears", "scalp", "neck", "eyes", "teeth", "tongue", "mouth", "shoulders",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class LandmarkTable:
    """Where each of MediaPipe's 478 points lies on the dense mesh."""

    triangle: Tensor  # [478] int64, index into HeadModel.faces
    barycentric: Tensor  # [478, 3]
    weight: Tensor  # [478] 0..1, 0 = not to be fitted

    def points(self, vertices: Tensor, faces: Tensor) -> Tensor:
        """Positions [B, 478, 3] on vertices [B, V, 3]."""
        return (vertices[:, faces[self.triangle]] * self.barycentric[..., None]).sum(2)


@dataclasses.dataclass(frozen=True, eq=False)
class HeadModel:
    """C control vertices, V dense vertices, F triangles, I identity and E expression coefficients, J = 6 joints.

    Metres, y up, the face looks to +z, +x is the subject's left. Identity coefficients have a standard normal prior.
    """

    model_id: str
    template: Tensor  # [C, 3]
    identity_basis: Tensor  # [I, C, 3]
    identity_names: tuple[str, ...]
    expression_basis: Tensor  # [E, C, 3]
    expression_names: tuple[str, ...]
    expression_bounds: Tensor  # [E, 2]
    joint_template: Tensor  # [J, 3]
    joint_identity: Tensor  # [I, J, 3]
    joint_expression: Tensor  # [E, J, 3]
    expression_joints: Tensor  # [E, J, 3] rotation vector per unit of expression, added to the given joint rotations
    pose_basis: Tensor | None  # [(J - 1) * 9, C, 3], times (R - I) of joints 1..5, row major
    weights: Tensor  # [V, J], rows sum to 1
    stencil: Tensor  # sparse COO [V, C], rows sum to 1
    faces: Tensor  # [F, 3] int64, counter-clockwise from outside
    uv: Tensor  # [U, 2] 0..1, v up
    uv_faces: Tensor  # [F, 3] int64
    parts: Tensor  # [F] int64, index into PARTS
    regions: dict[str, Tensor]  # REGIONS, each [V] 0..1
    part_colour: Tensor  # [P, 3] plain albedo of each part
    albedo: Tensor  # [V, 3] default albedo
    landmarks: LandmarkTable | None

    @property
    def pivot(self) -> int:
        """Index of the skull's joint."""
        return JOINTS.index("head")

    @property
    def vertex_count(self) -> int:
        return self.stencil.shape[0]

    def vertex_parts(self) -> Tensor:
        """Part [V] of each vertex as an index into PARTS, the first of them where several meet; len(PARTS) where no triangle is."""
        corners, parts = self.faces.flatten(), self.parts.repeat_interleave(3)
        # Assigning by index would leave it to the threads which of several parts comes last.
        first = torch.full((self.vertex_count,), len(PARTS), dtype=parts.dtype, device=parts.device)
        return first.scatter_reduce(0, corners, parts, "amin", include_self=False)

    def canonical(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Dense vertices [B, V, 3] before skinning, of identity [B or 1, I] and expression [B or 1, E]."""
        return self.dense(self._control(identity, expression))

    def joint_positions(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Joints [B, J, 3] before posing, of identity [B or 1, I] and expression [B or 1, E]."""
        return self.joint_template + _blend(identity, self.joint_identity) + _blend(expression, self.joint_expression)

    def joint_rotations(self, expression: Tensor, joints: Tensor) -> Tensor:
        """Local rotation vectors [B, J, 3]: the given ones [B or 1, J, 3] plus those that expression [B or 1, E] turns."""
        return joints + _blend(expression, self.expression_joints)

    def joint_transforms(self, identity: Tensor, expression: Tensor, joints: Tensor) -> Tensor:
        """Transforms [B, J, 4, 4] that take canonical points to posed points; joints [B or 1, J, 3] in radians."""
        rotation = to_matrix(self.joint_rotations(expression, joints))
        return _chain(rotation, self.joint_positions(identity, expression))

    def forward(self, identity: Tensor, expression: Tensor, joints: Tensor, displacement: Tensor | None = None) -> Tensor:
        """Posed dense vertices [B, V, 3] in model space; every argument may have B = 1 and is broadcast.

        `displacement` [B or 1, V, 3] is added in canonical space, before skinning.
        """
        rotation = to_matrix(self.joint_rotations(expression, joints))
        transforms = _chain(rotation, self.joint_positions(identity, expression))
        control = self._control(identity, expression)
        if self.pose_basis is not None:
            bend = rotation[:, 1:] - torch.eye(3, dtype=rotation.dtype, device=rotation.device)
            control = control + _blend(bend.flatten(1), self.pose_basis)
        points = self.dense(control)
        if displacement is not None:
            points = points + displacement
        return self.skin(points, transforms)

    __call__ = forward

    def skin(self, points: Tensor, transforms: Tensor) -> Tensor:
        """Linear blend skinning: canonical points [B or 1, V, 3], transforms [B or 1, J, 4, 4] to posed [B, V, 3]."""
        blended = self.weights @ transforms[:, :, :3].flatten(2)  # [B, V, 12]
        blended = blended.unflatten(-1, (3, 4))
        return (blended[..., :3] @ points[..., None])[..., 0] + blended[..., 3]

    def vertex_normals(self, vertices: Tensor) -> Tensor:
        """Smooth unit normals [B, V, 3] of vertices [B, V, 3]."""
        return mesh.vertex_normals(vertices, self.faces)

    def visible_faces(self, hidden: tuple[str, ...] = ("cornea",)) -> Tensor:
        """Indices [N] int64 of the triangles that belong to none of the hidden parts. Raises ValueError on an unknown part."""
        unknown = set(hidden) - set(PARTS)
        if unknown:
            raise ValueError(f"there is no part named {min(unknown)}; the parts are {', '.join(PARTS)}")
        codes = torch.tensor([PARTS.index(name) for name in hidden], dtype=torch.int64, device=self.parts.device)
        return torch.isin(self.parts, codes, invert=True).nonzero()[:, 0]

    def expression_index(self, name: str) -> int:
        """Place of a named expression. Raises ValueError if the model has none of that name."""
        if name not in self.expression_names:
            raise ValueError(f"head model {self.model_id} has no expression named {name}")
        return self.expression_names.index(name)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> HeadModel:
        """The same model on another device, or with its floating point tensors in another dtype."""

        def moved(value):
            if isinstance(value, Tensor):
                return value.to(device=device, dtype=dtype if value.is_floating_point() else None)
            if isinstance(value, dict):
                return {name: moved(item) for name, item in value.items()}
            if isinstance(value, LandmarkTable):
                return LandmarkTable(*(moved(getattr(value, f.name)) for f in dataclasses.fields(value)))
            return value

        with torch.inference_mode(False), torch.no_grad():
            return HeadModel(**{f.name: moved(getattr(self, f.name)) for f in dataclasses.fields(self)})

    def _control(self, identity: Tensor, expression: Tensor) -> Tensor:
        return self.template + _blend(identity, self.identity_basis) + _blend(expression, self.expression_basis)

    def dense(self, control: Tensor) -> Tensor:
        """Control vertices [B, C, 3] to dense vertices [B, V, 3]: one sparse product for the whole batch."""
        columns = control.transpose(0, 1).flatten(1)
        return torch.sparse.mm(self.stencil, columns).unflatten(1, (-1, 3)).transpose(0, 1)


def _blend(coefficients: Tensor, basis: Tensor) -> Tensor:
    """Coefficients [B, K] times basis [K, N, 3] -> [B, N, 3]."""
    return (coefficients @ basis.flatten(1)).unflatten(1, (-1, 3))


def _chain(rotation: Tensor, position: Tensor) -> Tensor:
    """Local rotations [B or 1, J, 3, 3] about joints at position [B or 1, J, 3] to transforms [B, J, 4, 4]."""
    batch = max(rotation.shape[0], position.shape[0])
    rotation, position = rotation.expand(batch, -1, -1, -1), position.expand(batch, -1, -1)
    # Rotating about a point p maps x to R x + (p - R p).
    offset = position - (rotation @ position[..., None])[..., 0]
    local = torch.cat([rotation, offset[..., None]], dim=-1)
    bottom = local.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(batch, len(PARENTS), 1, 4)
    local = torch.cat([local, bottom], dim=-2)  # [B, J, 4, 4]
    world: list[Tensor] = []
    for joint, parent in enumerate(PARENTS):
        world.append(local[:, joint] if parent < 0 else world[parent] @ local[:, joint])
    return torch.stack(world, dim=1)


@functools.lru_cache(maxsize=2)
def load_head_model(path: str | None = None) -> HeadModel:
    """The embedded head (None), or an SMPL-X npz file, in float32 on the CPU; cached per process.

    Raises FileNotFoundError or ValueError, in one sentence, if the file is missing or is not such a model.
    """
    # Built outside inference mode, so that a model first loaded by a ComfyUI node can still be optimised through later.
    with torch.inference_mode(False), torch.no_grad():
        if path is None:
            from .head_asset import load_embedded_head

            return load_embedded_head()
        from .smplx_model import load_smplx

        return load_smplx(path)
