"""Reads the embedded head, proxy/assets/head.npz (made by tools/make_head.py), into a HeadModel."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from . import subdivide
from .head_model import JOINTS, REGIONS, HeadModel, LandmarkTable
from .mesh import triangulate

HEAD = Path(__file__).parent / "assets" / "head.npz"
LANDMARKS = Path(__file__).parent / "assets" / "head_landmarks.npz"
COLOURS = (
    (0.76, 0.57, 0.48), (0.86, 0.82, 0.79), (0.86, 0.82, 0.79), (0.9, 0.9, 0.9), (0.86, 0.83, 0.76), (0.86, 0.83, 0.76),
    (0.62, 0.33, 0.33), (0.62, 0.30, 0.30), (0.28, 0.07, 0.07),
)  # fmt: skip


def load_embedded_head(path: Path = HEAD, landmarks: Path = LANDMARKS) -> HeadModel:
    """HeadModel of the file, float32 on the CPU.

    The landmark table is read from `landmarks` where that file exists. Raises FileNotFoundError if the head is missing
    and ValueError if it is damaged or another kind of file.
    """
    arrays = read_arrays(path)
    template = arrays["template"].astype(np.float64)
    stencil, quads = _stencil(arrays, len(template))
    smooth = stencil.shape[0] - len(arrays["piece_count"])  # dense vertices before the generated ones
    skin_faces = triangulate(torch.from_numpy(quads)).numpy()
    faces = np.concatenate([skin_faces, arrays["piece_faces"].astype(np.int64) + smooth])
    uv, uv_faces = _texture_coordinates(arrays)
    controls = _offsets(arrays, "control", len(template))
    mixing = arrays["identity_mixing"]
    expression = _offsets(arrays, "expression", len(template))
    regions = stencil @ (arrays["regions"].T / 255.0)
    albedo = stencil @ (arrays["albedo"] / 255.0)
    albedo[smooth:] = arrays["piece_albedo"] / 255.0
    turns = arrays["expression_joints"]
    return HeadModel(
        model_id=str(arrays["model_id"]),
        template=_float(template),
        identity_basis=_float((mixing @ controls.reshape(len(controls), -1)).reshape(len(mixing), -1, 3)),
        identity_names=tuple(f"identity_{k:03d}" for k in range(len(mixing))),
        expression_basis=_float(expression),
        expression_names=tuple(str(name) for name in arrays["expression_names"]),
        expression_bounds=_float(arrays["expression_bounds"]),
        joint_template=_float(arrays["joints"]),
        joint_identity=_float(np.tensordot(mixing, arrays["control_joints"], axes=1)),
        joint_expression=torch.zeros(len(expression), len(JOINTS), 3),
        expression_joints=_float(turns),
        pose_basis=None,
        weights=_float(stencil @ arrays["weights"].astype(np.float64)),
        stencil=_sparse(stencil),
        faces=torch.from_numpy(faces),
        uv=_float(uv),
        uv_faces=torch.from_numpy(uv_faces),
        parts=torch.from_numpy(np.concatenate([arrays["quad_parts"].repeat(8), arrays["piece_parts"]]).astype(np.int64)),
        regions={name: _float(regions[:, k].clip(0, 1)) for k, name in enumerate(REGIONS)},
        part_colour=torch.tensor(COLOURS),
        albedo=_float(albedo.clip(0, 1)),
        landmarks=read_landmarks(landmarks) if landmarks.is_file() else None,
    )


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of head.npz. Raises FileNotFoundError or ValueError, in one sentence."""
    if not path.is_file():
        raise FileNotFoundError(f"the embedded head {path} is missing; install ExpPortrait again")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable head model ({error}); install ExpPortrait again") from None
    if "model_id" not in arrays or "identity_mixing" not in arrays:
        raise ValueError(f"{path} is not an embedded head of ExpPortrait: it holds {', '.join(sorted(arrays)[:5])}")
    return arrays


def read_landmarks(path: Path) -> LandmarkTable:
    """Landmark table of triangle [478], barycentric [478, 3] and weight [478]."""
    with np.load(path, allow_pickle=False) as file:
        return LandmarkTable(
            torch.from_numpy(file["triangle"].astype(np.int64)), _float(file["barycentric"]), _float(file["weight"])
        )


def _stencil(arrays: dict[str, np.ndarray], control_count: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Rows of the subdivided mesh, then of the generated pieces, over all control vertices; and the dense quads."""
    quads = arrays["quads"]
    used = int(quads.max()) + 1  # the control vertices behind these only carry generated pieces
    smooth, dense_quads = subdivide.catmull_clark(quads, used)
    smooth = sparse.hstack([smooth, sparse.csr_matrix((smooth.shape[0], control_count - used))])
    ends = np.concatenate([[0], np.cumsum(arrays["piece_count"].astype(np.int64))])
    pieces = sparse.csr_matrix(
        (arrays["piece_share"].astype(np.float64), arrays["piece_vertex"].astype(np.int64), ends), (len(ends) - 1, control_count)
    )
    return sparse.vstack([smooth, pieces]).tocsr(), dense_quads


def _texture_coordinates(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    coarse, quads = arrays["uv"] / 65535.0, arrays["uv_quads"]
    linear, dense_quads = subdivide.midpoint(quads, len(coarse))
    uv = linear @ coarse
    faces = triangulate(torch.from_numpy(dense_quads)).numpy()
    pieces = arrays["piece_faces"].astype(np.int64) + len(uv)
    return np.concatenate([uv, arrays["piece_uv"] / 65535.0]), np.concatenate([faces, pieces])


def _offsets(arrays: dict[str, np.ndarray], prefix: str, vertex_count: int) -> np.ndarray:
    """Sparse 16-bit offsets to a dense array [K, C, 3] in metres."""
    counts = arrays[f"{prefix}_count"].astype(np.int64)
    offsets = np.zeros((len(counts), vertex_count, 3), np.float32)
    rows = np.arange(len(counts)).repeat(counts)
    offsets[rows, arrays[f"{prefix}_vertex"]] = arrays[f"{prefix}_offset"] * np.float32(arrays["step"])
    return offsets


def _float(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _sparse(matrix: sparse.csr_matrix) -> Tensor:
    matrix.sum_duplicates()
    coordinates = matrix.tocoo()
    index = torch.from_numpy(np.stack([coordinates.row, coordinates.col]).astype(np.int64))
    return torch.sparse_coo_tensor(index, _float(coordinates.data), matrix.shape, is_coalesced=True, check_invariants=False)
