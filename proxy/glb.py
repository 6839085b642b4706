"""The head as binary glTF 2.0 for 3D programs: textured mesh, skeleton, expressions as morph targets, and the motion.

glTF has morph targets and joints but no link between them, while expressions such as jawOpen also turn a joint here.
The morph target of such an expression therefore holds where its vertices end up at its full strength, so that moving
nothing but this target opens the mouth. In between, vertices go straight instead of along the arc: at half of jawOpen
(0.37 rad), points 10 cm from the hinge are off by 1.7 mm at most. The animation of a motion does not use these targets
but turns the joints themselves and adds the rest of the shape by targets of its own (named `jawOpen_shape`); likewise it
applies a model's pose correctives by targets (`jaw_corrective_0`), and is exact.

Of a refined proxy the static displacement is in the mesh itself and the detail that follows an expression in that
expression's target. Detail that a motion holds for its own frames is not written: the animation's skin follows its expression.
"""

from __future__ import annotations

import dataclasses
import io
import os

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .camera import FAR, NEAR
from .frames import to_uint8
from .glb_file import INDEX_TARGET, VERTEX_TARGET, GlbFile
from .head_model import JOINTS, PARENTS, HeadModel
from .head_proxy import HeadProxy
from .posing import check_models
from .rotation import to_matrix, to_quaternion

MORPH_THRESHOLD = 2e-6  # metres: smaller displacements are left out
WEIGHT_THRESHOLD = 1e-6
MESH_NODE, FIRST_JOINT_NODE = 0, 1
CAMERA_NODE = FIRST_JOINT_NODE + len(JOINTS)


@dataclasses.dataclass(frozen=True)
class _Morph:
    """K morph targets: displacements [K, V, 3] of the neutral head and their strength [T, K] over the motion."""

    names: list[str]
    displacement: Tensor
    strength: Tensor


def export_glb(path: str | os.PathLike, proxy: HeadProxy, model: HeadModel, motion=None) -> None:
    """Writes `path` (.glb): the neutral head of `proxy`, where it stands in the source picture, seen by a camera like its own.

    Metres, y up, the camera looks along -z from the origin. Morph targets bear the expression's names; a strength of 0
    is the person's neutral. With a `motion` (its `expression` [T, E], `joints` [T, J, 3], `translation` [T, 3],
    `fps`, and its detail if that was made for this proxy) the file has one animation of T frames. The transparent outer eye
    is left out.

    Raises ValueError if proxy, motion and model do not belong together.
    """
    check_models(model, proxy, *([] if motion is None else [motion]))
    with torch.no_grad():
        identity, neutral = proxy.identity[None], proxy.neutral[None]
        rest = _joint_places(model, identity, neutral, neutral, torch.zeros_like(proxy.source_joints)[None])
        morph = _morph(model, proxy, motion)
        file = GlbFile()
        displacement = proxy.displaced(neutral)
        vertices = model.canonical(identity, neutral) + (0 if displacement is None else displacement)
        mesh = _mesh(file, model, vertices[0], morph)
        rest_position = model.joint_positions(identity, neutral)[0]
        document = {
            "asset": {"version": "2.0", "generator": "ExpPortrait", "extras": {"head_model": model.model_id}},
            "scene": 0,
            "scenes": [{"nodes": [MESH_NODE, FIRST_JOINT_NODE, CAMERA_NODE]}],
            "nodes": _nodes(rest, proxy.source_translation),
            "cameras": [_camera(proxy)],
            "meshes": [mesh],
            "skins": [_skin(file, rest_position)],
            "materials": [{"name": "head", "doubleSided": True, "pbrMetallicRoughness": _surface()}],
            "textures": [{"source": 0, "sampler": 0}],
            "samplers": [{"wrapS": 33071, "wrapT": 33071}],  # clamp to edge
            "images": [{"mimeType": "image/png", "bufferView": file.view(_png(proxy.albedo))}],
        }
        if motion is not None:
            places = _joint_places(model, identity, neutral, motion.expression, motion.joints)
            document["animations"] = [_animation(file, places, motion.translation, morph.strength, motion.fps)]
    file.write(path, document)


def _joint_places(
    model: HeadModel, identity: Tensor, neutral: Tensor, expression: Tensor, joints: Tensor
) -> tuple[Tensor, Tensor]:
    """Rotation matrices [T, J, 3, 3] and positions [T, J, 3] of each joint relative to its parent.

    The mesh is bound to the joints of the neutral head; where an expression moves a joint, its position changes so that
    skinning still gives what the model gives.
    """
    transforms = model.joint_transforms(identity, expression, joints)  # canonical to posed
    bound = model.joint_positions(identity, neutral)
    origin = (transforms[..., :3, :3] @ bound[..., None])[..., 0] + transforms[..., :3, 3]  # [T, J, 3]
    rotation = to_matrix(model.joint_rotations(expression, joints))
    position = [origin[:, 0]]
    for joint, parent in list(enumerate(PARENTS))[1:]:
        offset = origin[:, joint] - origin[:, parent]
        position.append((transforms[:, parent, :3, :3].mT @ offset[..., None])[..., 0])
    return rotation, torch.stack(position, dim=1)


def _morph(model: HeadModel, proxy: HeadProxy, motion) -> _Morph:
    neutral = proxy.neutral[None]
    names = list(model.expression_names)
    shapes = model.dense(model.expression_basis)  # [E, V, 3]
    if proxy.detail_by_expression is not None:
        shapes = shapes + (proxy.detail_by_expression @ proxy.detail_basis.flatten(1)).unflatten(1, (-1, 3))
    turning = model.expression_joints.abs().sum((1, 2)).nonzero()[:, 0]
    displacement = shapes.clone()
    if len(turning) > 0:
        displacement[turning] = _with_turned_joints(model, proxy, turning)
    if motion is None:
        return _Morph(names, displacement, shapes.new_zeros(0, len(names)))
    offset = motion.expression - neutral
    strength = offset.clone()
    strength[:, turning] = 0
    names += [f"{model.expression_names[k]}_shape" for k in turning.tolist()]
    displacements, strengths = [displacement, shapes[turning]], [strength, offset[:, turning]]
    if model.pose_basis is not None:
        rotation = to_matrix(model.joint_rotations(motion.expression, motion.joints))[:, 1:]
        bend = (rotation - torch.eye(3, dtype=rotation.dtype, device=rotation.device)).flatten(1)
        correctives = model.dense(model.pose_basis)
        felt = (correctives.abs().amax((1, 2)) > MORPH_THRESHOLD).nonzero()[:, 0]
        names += [f"{JOINTS[1 + k // 9]}_corrective_{k % 9}" for k in felt.tolist()]
        displacements.append(correctives[felt])
        strengths.append(bend[:, felt])
    if getattr(motion, "detail_id", None) == proxy.detail_id:
        fields, coefficients = _own_detail(proxy, motion)
        names += [f"detail_{k}" for k in range(len(fields))]
        displacements.append(fields)
        strengths.append(coefficients)
    return _Morph(names, torch.cat(displacements), torch.cat(strengths, dim=1))


def _own_detail(proxy: HeadProxy, motion) -> tuple[Tensor, Tensor]:
    """Fields [K, V, 3] and strengths [T, K] of a motion's own detail, less what the expressions' morph targets bring already."""
    fields, coefficients = [], []
    if motion.detail_basis is not None:
        fields, coefficients = [motion.detail_basis], [motion.detail]
    if proxy.detail_basis is not None:
        own = motion.detail if motion.detail_basis is None else motion.detail.new_zeros(len(motion), len(proxy.detail_basis))
        if proxy.detail_by_expression is not None:
            own = own - (motion.expression - proxy.neutral) @ proxy.detail_by_expression
        fields.append(proxy.detail_basis)
        coefficients.append(own)
    return torch.cat(fields), torch.cat(coefficients, dim=1)


def _with_turned_joints(model: HeadModel, proxy: HeadProxy, which: Tensor) -> Tensor:
    """Displacements [N, V, 3] before skinning that put each vertex where expression `which` [N] at full strength puts it."""
    identity, neutral = proxy.identity[None], proxy.neutral[None]
    at_rest = torch.zeros_like(model.joint_template)[None]
    full = neutral + torch.eye(neutral.shape[1], dtype=neutral.dtype, device=neutral.device)[which]
    moved = model.forward(identity, full, at_rest, proxy.displaced(full))
    moved = moved - model.forward(identity, neutral, at_rest, proxy.displaced(neutral))
    transforms = model.joint_transforms(identity, neutral, at_rest)[0, :, :3, :3]
    blended = (model.weights @ transforms.flatten(1)).unflatten(1, (3, 3))  # [V, 3, 3]
    return torch.linalg.solve(blended, moved.permute(1, 2, 0)).permute(2, 0, 1)


def _mesh(file: GlbFile, model: HeadModel, vertices: Tensor, morph: _Morph) -> dict:
    shown = model.visible_faces()
    corners = torch.stack([model.faces[shown], model.uv_faces[shown]], dim=-1).reshape(-1, 2).cpu().numpy()
    # glTF has one index per corner: a vertex on a texture seam is there once per texture coordinate.
    pairs, indices = np.unique(corners, axis=0, return_inverse=True)
    source = pairs[:, 0]
    normals = _array(model.vertex_normals(vertices[None])[0])[source]
    normals[np.linalg.norm(normals, axis=1) < 0.5] = (0, 0, 1)  # a vertex without area
    uv = _array(model.uv)[pairs[:, 1]] * np.float32([1, -1]) + np.float32([0, 1])
    attributes = {
        "POSITION": file.accessor(_array(vertices)[source], "VEC3", VERTEX_TARGET, bounds=True),
        "NORMAL": file.accessor(normals, "VEC3", VERTEX_TARGET),
        "TEXCOORD_0": file.accessor(uv, "VEC2", VERTEX_TARGET),
    } | _influences(file, _array(model.weights)[source])
    targets = [{"POSITION": file.morph_accessor(_array(one)[source], MORPH_THRESHOLD)} for one in morph.displacement]
    primitive = {
        "attributes": attributes,
        "indices": file.accessor(indices.reshape(-1).astype(np.uint32), "SCALAR", INDEX_TARGET),
        "material": 0,
        "targets": targets,
    }
    return {"name": "head", "primitives": [primitive], "weights": [0.0] * len(targets), "extras": {"targetNames": morph.names}}


def _influences(file: GlbFile, weights: np.ndarray) -> dict:
    """Joints and weights, strongest first, in as many groups of four as the vertices [N, J] need."""
    weights = np.where(weights > WEIGHT_THRESHOLD, weights, 0)
    weights = weights / weights.sum(1, keepdims=True)
    groups = -(-int((weights > 0).sum(1).max()) // 4)
    order = np.argsort(-weights, axis=1, kind="stable")
    weights = np.pad(np.take_along_axis(weights, order, 1), ((0, 0), (0, 4 * groups)))[:, : 4 * groups].astype(np.float32)
    joints = np.where(weights > 0, np.pad(order, ((0, 0), (0, 4 * groups)))[:, : 4 * groups], 0).astype(np.uint8)
    attributes = {}
    for group in range(groups):
        part = slice(4 * group, 4 * group + 4)
        attributes[f"JOINTS_{group}"] = file.accessor(joints[:, part], "VEC4", VERTEX_TARGET)
        attributes[f"WEIGHTS_{group}"] = file.accessor(weights[:, part], "VEC4", VERTEX_TARGET)
    return attributes


def _nodes(rest: tuple[Tensor, Tensor], translation: Tensor) -> list[dict]:
    quaternion, position = _array(_xyzw(rest[0]))[0], _array(rest[1])[0]
    position[0] += _array(translation)
    nodes = [{"name": "head_mesh", "mesh": 0, "skin": 0}]
    for joint, name in enumerate(JOINTS):
        children = [FIRST_JOINT_NODE + child for child, parent in enumerate(PARENTS) if parent == joint]
        node = {"name": name, "translation": position[joint].tolist(), "rotation": quaternion[joint].tolist()}
        nodes.append(node | ({"children": children} if children else {}))
    return [*nodes, {"name": "camera", "camera": 0}]


def _skin(file: GlbFile, joint_positions: Tensor) -> dict:
    inverse = np.tile(np.eye(4, dtype=np.float32), (len(JOINTS), 1, 1))
    inverse[:, 3, :3] = -_array(joint_positions)  # column major
    joints = [FIRST_JOINT_NODE + joint for joint in range(len(JOINTS))]
    return {"inverseBindMatrices": file.accessor(inverse, "MAT4"), "joints": joints, "skeleton": FIRST_JOINT_NODE}


def _animation(file: GlbFile, places: tuple[Tensor, Tensor], translation: Tensor, strength: Tensor, fps: float) -> dict:
    quaternion, position = _array(_xyzw(places[0])), _array(places[1])  # [T, J, 4], [T, J, 3]
    # Neighbours on the same half of the sphere, so that players turn the short way round.
    flips = np.where((quaternion[1:] * quaternion[:-1]).sum(2) < 0, -1, 1)
    quaternion[1:] *= np.cumprod(flips, axis=0)[..., None]
    position[:, 0] += _array(translation)
    frames = len(position)
    times = file.accessor((np.arange(frames) / fps).astype(np.float32), "SCALAR", bounds=True)
    tracks = [(MESH_NODE, "weights", file.accessor(_array(strength), "SCALAR"))]
    for joint in range(len(JOINTS)):
        tracks.append((FIRST_JOINT_NODE + joint, "rotation", file.accessor(quaternion[:, joint], "VEC4")))
        tracks.append((FIRST_JOINT_NODE + joint, "translation", file.accessor(position[:, joint], "VEC3")))
    return {
        "name": "motion",
        "samplers": [{"input": times, "output": output} for _, _, output in tracks],
        "channels": [{"sampler": k, "target": {"node": node, "path": kind}} for k, (node, kind, _) in enumerate(tracks)],
    }


def _camera(proxy: HeadProxy) -> dict:
    view = {"yfov": proxy.camera.field_of_view, "aspectRatio": proxy.width / proxy.height, "znear": NEAR, "zfar": FAR}
    return {"type": "perspective", "name": "camera", "perspective": view}


def _surface() -> dict:
    return {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 0.7}


def _png(albedo: Tensor) -> bytes:
    content = io.BytesIO()
    Image.fromarray(to_uint8(albedo.permute(1, 2, 0))).save(content, "PNG")
    return content.getvalue()


def _xyzw(rotation: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] to quaternions [..., 4] in glTF's order."""
    return to_quaternion(rotation).roll(-1, dims=-1)


def _array(tensor: Tensor) -> np.ndarray:
    """A copy as float32."""
    return tensor.detach().float().cpu().numpy().copy()
