"""The one-euro filter: calm at rest, quick when things move, and causal (Casiez, Roussel and Vogel, CHI 2012)."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.signal import lfilter
from torch import Tensor

from ..proxy.rotation import to_matrix, to_rotvec

SPEED_CUTOFF = 1.0  # Hz: low-pass of the measured speed, the paper's dcutoff


def one_euro_values(values: Tensor, fps: float, min_cutoff: float, beta: float) -> Tensor:
    """Filters values [T, ...] over time, every channel for itself.

    y_t = y_{t-1} + a_t (x_t - y_{t-1}), a_t = 1 / (1 + fps / (2 pi c_t)), c_t = min_cutoff + beta |speed_t|: the cutoff c (Hz)
    is `min_cutoff` at rest and rises by `beta` Hz for each unit per second. The speed is the difference of successive values,
    itself low-passed at 1 Hz. An infinite `min_cutoff` returns the values unchanged. Raises ValueError for a bad parameter.
    """
    check_one_euro(fps, min_cutoff, beta)
    if math.isinf(min_cutoff) or len(values) < 2:
        return values
    x = values.detach().flatten(1).cpu().double().numpy()
    speed = np.abs(_low_pass(np.diff(x, axis=0) * fps, fps))
    share = _share(min_cutoff + beta * speed, fps)
    filtered = [x[0]]
    for part, value in zip(share, x[1:]):
        filtered.append(filtered[-1] + part * (value - filtered[-1]))
    return torch.from_numpy(np.stack(filtered)).to(values).view_as(values)


def one_euro_rotations(rotvec: Tensor, fps: float, min_cutoff: float, beta: float) -> Tensor:
    """Filters rotation vectors [T, ..., 3] (radians) over time on SO(3): `one_euro_values` along geodesics.

    Each frame turns the filtered rotation R by the share a_t of the way to the given one, R exp(a_t log(R' X_t)), which is
    a slerp; the speed is the low-passed angular velocity in radians per second, one for the three axes, so a change of the frame of
    reference changes nothing. Raises ValueError for a bad parameter.
    """
    check_one_euro(fps, min_cutoff, beta)
    if math.isinf(min_cutoff) or len(rotvec) < 2:
        return rotvec
    turns = rotvec.detach().cpu().double().reshape(len(rotvec), -1, 3)  # [T, N, 3]
    matrix = to_matrix(turns)
    velocity = to_rotvec(matrix[:-1].mT @ matrix[1:]).numpy() * fps
    speed = np.linalg.norm(_low_pass(velocity, fps), axis=-1)
    share = _share(min_cutoff + beta * speed, fps).T.tolist()
    given = _to_quaternion(turns).transpose(0, 1).tolist()  # N lists of T
    filtered = torch.tensor([_follow(*channel) for channel in zip(given, share)], dtype=torch.float64)
    return _from_quaternion(filtered.transpose(0, 1)).to(rotvec).view_as(rotvec)


def check_one_euro(fps: float, min_cutoff: float, beta: float) -> None:
    """Raises ValueError unless fps and min_cutoff are above 0 and beta is at least 0."""
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}; give the frames per second, above 0")
    if not min_cutoff > 0:
        raise ValueError(f"min_cutoff is {min_cutoff}; give a frequency in Hz above 0")
    if not (math.isfinite(beta) and beta >= 0):
        raise ValueError(f"beta is {beta}; give a number of at least 0")


def _share(cutoff: np.ndarray | float, fps: float) -> np.ndarray | float:
    """Share of a new value that a first-order low-pass with this cutoff (Hz) takes in one frame."""
    return 1 / (1 + fps / (2 * math.pi * cutoff))


def _low_pass(speed: np.ndarray, fps: float) -> np.ndarray:
    share = _share(SPEED_CUTOFF, fps)
    return lfilter([share], [1, share - 1], speed, axis=0)


def _follow(given: list[list[float]], share: list[float]) -> list[list[float]]:
    """Unit quaternions [T, 4]: from each to the given one by a share [T - 1] of the short way (slerp, Shoemake 1985).

    Plain numbers: on arrays of four, the calls would cost several times as much as the sums.
    """
    w, x, y, z = given[0]
    out = [given[0]]
    for (gw, gx, gy, gz), part in zip(given[1:], share):
        cosine = w * gw + x * gx + y * gy + z * gz
        angle = max(1e-9, math.acos(min(1.0, abs(cosine))))
        # Only their ratio matters; it tends to that of the shares as the angle tends to 0.
        a, b = math.sin((1 - part) * angle), math.copysign(math.sin(part * angle), cosine)
        w, x, y, z = a * w + b * gw, a * x + b * gx, a * y + b * gy, a * z + b * gz
        size = math.sqrt(w * w + x * x + y * y + z * z)
        w, x, y, z = w / size, x / size, y / size, z / size
        out.append([w, x, y, z])
    return out


def _to_quaternion(rotvec: Tensor) -> Tensor:
    """Rotation vectors [..., 3] to unit quaternions [..., 4], real part first."""
    half = rotvec.norm(dim=-1, keepdim=True) / 2
    return torch.cat([half.cos(), rotvec / 2 * torch.sinc(half / math.pi)], dim=-1)


def _from_quaternion(q: Tensor) -> Tensor:
    """Unit quaternions [..., 4] of either sign to rotation vectors [..., 3], angle at most pi."""
    q = torch.where(q[..., :1] < 0, -q, q)
    sine = q[..., 1:].norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, q[..., :1])
    return q[..., 1:] * torch.where(sine < 1e-9, 2 * torch.ones_like(sine), angle / sine.clamp(min=1e-9))
