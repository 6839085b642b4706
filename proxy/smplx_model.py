"""SMPL-X (a file the user brings) as a HeadModel: head and shoulders cut out, subdivided once."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import scipy.sparse as sparse
import torch

from .calibrate import landmarks_path
from .head_asset import read_landmarks
from .head_model import JOINTS, PARTS, HeadModel, LandmarkTable
from .mesh import vertex_normals
from .mesh_cut import Cut, cut_mesh
from .smplx_archive import open_with_smplx, read_smplx_arrays
from .smplx_look import default_albedo, find_eyeballs, part_colour, soft_regions, unwrap
from .subdivide import midpoint_triangles

KEPT = (9, 12, 15, 22, 23, 24)  # spine3 (our root), neck, head, jaw, left eye, right eye
LEFT_SHOULDER = 16
EXPRESSION_BOUND = 3.0  # standard deviations


def load_smplx(path: str | os.PathLike) -> HeadModel:
    """Reads `SMPLX_*.npz` through the `smplx` package, whose licence allows non-commercial research only.

    300 shape and 100 expression coefficients in standard deviations; joints are spine3 (the root), neck, head, jaw and
    eyes, and everything else hangs on its nearest kept ancestor. The control mesh is the original one inside the cut,
    whose vertices come first and unchanged, plus the points where the cut crosses an edge; the dense mesh adds the
    middle of each edge. Poses agree with `smplx`'s own forward to 1e-5 m. Region masks and the default colours are
    computed, hence approximate; teeth, tongue and mouth cavity do not exist.

    A landmark table that a calibration of this very model left beside the file is loaded with it.

    Raises FileNotFoundError, ValueError for a damaged or wrong file (see `read_smplx_arrays`), ImportError without the
    package.
    """
    arrays = read_smplx_arrays(path)
    with torch.inference_mode(False), torch.no_grad():
        body = {name: buffer.numpy() for name, buffer in open_with_smplx(arrays).named_buffers()}
        model = _cut_model(_model_id(path, arrays), body, arrays.get("vt"), arrays.get("ft"))
        return dataclasses.replace(model, landmarks=landmarks_beside(path, model))


def _cut_model(model_id: str, body: dict[str, np.ndarray], vt: np.ndarray | None, ft: np.ndarray | None) -> HeadModel:
    template, faces = body["v_template"], body["faces_tensor"]  # [N, 3], [N_F, 3]
    bases = np.concatenate([body["shapedirs"], body["expr_dirs"]], axis=2).transpose(2, 0, 1)  # [I + E, N, 3]
    identity_count = body["shapedirs"].shape[2]
    regressor = body["J_regressor"].astype(np.float64)  # [55, N]
    joints = regressor @ template  # [55, 3]
    joint_bases = np.einsum("jn,knc->kjc", regressor[list(KEPT)], bases, optimize=True)  # [I + E, J, 3]
    weights = _collapse(body["lbs_weights"], body["parents"])  # [N, J]
    corrective_rows = np.concatenate([np.arange(9) + 9 * (joint - 1) for joint in KEPT[1:]])
    correctives = body["posedirs"][corrective_rows].reshape(len(corrective_rows), *template.shape)

    cut = cut_mesh(_bust_field(template, joints), faces, faces if ft is None else ft.astype(np.int64))
    stencil, dense_faces = midpoint_triangles(cut.faces, len(cut.first))
    kept_joints = joints[list(KEPT)]
    dense_vertices, dense_weights = stencil @ cut.vertices(template), stencil @ cut.vertices(weights)  # [V, 3], [V, J]
    ball = find_eyeballs(dense_faces, dense_weights)
    normals = vertex_normals(_tensor(dense_vertices)[None], torch.from_numpy(dense_faces))[0].numpy()
    regions = soft_regions(dense_vertices, normals, dense_weights, kept_joints, ball)
    albedo = default_albedo(dense_vertices, kept_joints, ball, regions["lips"])
    part_of_ball = np.array([PARTS.index(name) for name in ("skin", "left_eye", "right_eye")])
    parts = part_of_ball[ball[dense_faces[:, 0]]]
    if vt is None:
        uv, uv_faces = unwrap(dense_vertices, dense_faces, kept_joints, ball)
    else:
        uv, uv_faces = _dense_texture(cut, vt)
    expression_count = len(bases) - identity_count
    control_bases = _tensor(np.stack([cut.vertices(basis) for basis in bases]))
    return HeadModel(
        model_id=model_id,
        template=_tensor(cut.vertices(template)),
        identity_basis=control_bases[:identity_count].clone(),
        identity_names=tuple(f"shape_{k:03d}" for k in range(identity_count)),
        expression_basis=control_bases[identity_count:].clone(),
        expression_names=tuple(f"expression_{k:03d}" for k in range(expression_count)),
        expression_bounds=torch.tensor([[-EXPRESSION_BOUND, EXPRESSION_BOUND]]).repeat(expression_count, 1),
        joint_template=_tensor(kept_joints),
        joint_identity=_tensor(joint_bases[:identity_count]),
        joint_expression=_tensor(joint_bases[identity_count:]),
        expression_joints=torch.zeros(expression_count, len(JOINTS), 3),
        pose_basis=_tensor(np.stack([cut.vertices(column) for column in correctives])),
        weights=_tensor(dense_weights),
        stencil=_sparse_tensor(stencil),
        faces=torch.from_numpy(dense_faces),
        uv=_tensor(uv),
        uv_faces=torch.from_numpy(uv_faces),
        parts=torch.from_numpy(parts),
        regions={name: _tensor(mask) for name, mask in regions.items()},
        part_colour=_tensor(part_colour(albedo, dense_faces, parts)),
        albedo=_tensor(albedo),
        landmarks=None,
    )


def landmarks_beside(path: str | os.PathLike, model: HeadModel) -> LandmarkTable | None:
    """Landmark table that a calibration left beside the file; None if there is none or it was made for other content.

    Raises ValueError if it is damaged.
    """
    sidecar = landmarks_path(path)
    if not sidecar.is_file():
        return None
    try:
        with np.load(sidecar, allow_pickle=False) as file:
            if str(file["model_id"]) != model.model_id:
                return None
        table = read_landmarks(sidecar)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise ValueError(f"{sidecar} is no readable landmark table; delete it, and it will be made anew") from None
    if table.triangle.max() >= len(model.faces):
        raise ValueError(f"{sidecar} does not fit the model; delete it, and it will be made anew")
    return table


def _model_id(path: str | os.PathLike, arrays: dict[str, np.ndarray]) -> str:
    """`smplx-<gender>-<hash>`: the gender that the file name tells and what the file holds."""
    gender = re.search("neutral|female|male", Path(path).stem.lower())
    digest = hashlib.sha256()
    for name in ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table"):
        digest.update(np.ascontiguousarray(arrays[name], dtype="<f4").tobytes())
    return f"smplx-{gender[0] if gender else 'unnamed'}-{digest.hexdigest()[:8]}"


def _collapse(weights: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Weights of all joints [N, 55] to those of the kept ones [N, J], each moved to its nearest kept ancestor."""
    target = []
    for joint in range(len(parents)):
        while joint >= 0 and joint not in KEPT:
            joint = parents[joint]
        target.append(KEPT.index(joint) if joint >= 0 else 0)  # pelvis and legs hang on the root
    collapsed = weights.astype(np.float64) @ np.eye(len(KEPT))[target]
    return collapsed / collapsed.sum(1, keepdims=True)


def _bust_field(vertices: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Positive inside the bust [N]: between the shoulder joints, and below the neck joint within a half ellipse."""
    neck, chest = joints[KEPT[1]], joints[KEPT[0]]
    half_width = abs(joints[LEFT_SHOULDER, 0] - neck[0])
    depth = 0.85 * (neck[1] - chest[1])
    below = (neck[1] - vertices[:, 1]).clip(min=0)
    return 1 - ((vertices[:, 0] - neck[0]) / half_width) ** 2 - (below / depth) ** 2


def _dense_texture(cut: Cut, vt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    uv = cut.texture(vt)
    stencil, uv_faces = midpoint_triangles(cut.uv_faces, len(uv))
    return stencil @ uv, uv_faces


def _sparse_tensor(matrix: sparse.csr_matrix) -> torch.Tensor:
    entries = matrix.tocoo()
    indices = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    return torch.sparse_coo_tensor(indices, _tensor(entries.data), matrix.shape, check_invariants=True).coalesce()


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
