"""Reading a user's SMPL-X file: checked array by array, without pickle, before the `smplx` package ever sees it."""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from torch import nn

SOURCE = (
    "download SMPLX_NEUTRAL.npz of SMPL-X v1.1 from the SMPL-X project page after registering there "
    "(its licence allows non-commercial research only)"
)
JOINT_COUNT, POSE_COLUMNS = 55, 54 * 9
SHAPE_COUNT, EXPRESSION_COUNT = 300, 100
# Shape of each array that the package reads; letters are sizes that the file itself decides.
_SHAPES = {
    "v_template": ("V", 3),
    "f": ("F", 3),
    "shapedirs": ("V", 3, None),
    "posedirs": ("V", 3, POSE_COLUMNS),
    "J_regressor": (JOINT_COUNT, "V"),
    "kintree_table": (2, JOINT_COUNT),
    "weights": ("V", JOINT_COUNT),
    "lmk_faces_idx": ("L",),
    "lmk_bary_coords": ("L", 3),
    "hands_componentsl": (None, 45),
    "hands_componentsr": (None, 45),
    "hands_meanl": (45,),
    "hands_meanr": (45,),
}
_OPTIONAL = {"vt": ("U", 2), "ft": ("F", 3)}


def read_smplx_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The numeric arrays of an SMPL-X npz file, by name; object arrays in it are never unpickled.

    Raises FileNotFoundError if there is no such file and ValueError if it is damaged or no SMPL-X model; the message
    says where the file is to be had and under which licence.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; {SOURCE}")
    if not zipfile.is_zipfile(path):
        raise _wrong(path, "is damaged or no npz file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            present = set(archive.files)
            missing = [name for name in _SHAPES if name not in present]
            if missing:
                raise _wrong(path, f"is no SMPL-X model, it lacks the array {missing[0]}")
            arrays = {name: _read(path, archive, name) for name in (*_SHAPES, *(_OPTIONAL.keys() & present))}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise _wrong(path, f"is damaged ({error})") from None
    _check(path, arrays)
    return arrays


def open_with_smplx(arrays: dict[str, np.ndarray]) -> nn.Module:
    """The `smplx` package's model of checked arrays, with 300 shape and 100 expression coefficients and flat hands.

    The package unpickles whatever a file holds, so it gets a temporary copy of the checked arrays instead.
    Raises ImportError if the package is not installed.
    """
    try:
        import smplx
    except ImportError:
        raise ImportError(
            "SMPL-X needs the smplx package, which is not installed; install it with `pip install smplx` "
            '(the extra "expportrait[smplx]") if its licence, non-commercial research only, allows your use'
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "SMPLX_NEUTRAL.npz"
        np.savez(copy, **{name: arrays[name] for name in _SHAPES})
        counts = {"num_betas": SHAPE_COUNT, "num_expression_coeffs": EXPRESSION_COUNT}
        return smplx.create(str(copy), ext="npz", use_pca=False, flat_hand_mean=True, **counts)


def _read(path: Path, archive: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    try:
        array = archive[name]
    except ValueError:  # numpy's answer to an object array or a broken header
        raise _wrong(path, f"holds no readable numbers under {name}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise _wrong(path, f"holds no readable numbers under {name}")
    return array


def _check(path: Path, arrays: dict[str, np.ndarray]) -> None:
    sizes: dict[str, int] = {}
    for name, shape in (_SHAPES | _OPTIONAL).items():
        if name not in arrays:
            continue
        array = arrays[name]
        fits = array.ndim == len(shape)
        for expected, size in zip(shape, array.shape, strict=False):
            expected = sizes.setdefault(expected, size) if isinstance(expected, str) else expected
            fits = fits and expected in (None, size)
        if not fits:
            raise _wrong(path, f"is no SMPL-X model, its {name} has the shape {list(array.shape)}")
        if not np.isfinite(array).all():
            raise _wrong(path, f"is damaged, its {name} holds values that are no finite numbers")
    columns = arrays["shapedirs"].shape[2]
    if columns < SHAPE_COUNT + EXPRESSION_COUNT:
        raise _wrong(path, f"has {columns} shape and expression columns where {SHAPE_COUNT + EXPRESSION_COUNT} are needed")
    for name, size in {"f": sizes["V"], "ft": sizes.get("U", 0), "lmk_faces_idx": sizes["F"]}.items():
        if name in arrays and arrays[name].size and not 0 <= arrays[name].min() <= arrays[name].max() < size:
            raise _wrong(path, f"is damaged, its {name} points outside of the mesh")
    parents = arrays["kintree_table"][0, 1:].astype(np.int64)
    if not ((parents >= 0) & (parents < np.arange(1, JOINT_COUNT))).all():
        raise _wrong(path, "is damaged, its kintree_table is no tree of joints")


def _wrong(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} {what}; {SOURCE}")
