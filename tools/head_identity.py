"""Prior over MakeHuman's identity controls, and modes of it: independent, of unit variance, the most important first."""

from __future__ import annotations

import numpy as np

MODES = 120
PAIR_NOISE = 0.10  # how much left and right differ, over their common deviation
SIGMAS = (
    ("gender", 0.75), ("ancestry-", 0.40), ("age-old", 0.12), ("age-child", 0.05), ("weight", 0.30), ("muscle", 0.20),
    ("asym-", 0.06), ("head-", 0.10), ("neck-", 0.08), ("measure-neck", 0.08), ("chin-triangle", 0.10),
    ("forehead-nubian", 0.07), ("forehead-", 0.18), ("l-eye-", 0.15), ("eyebrows-", 0.16), ("mouth-", 0.20), ("nose-", 0.20),
    ("l-ear-", 0.20), ("", 0.22),
)  # fmt: skip


def sigma(name: str) -> float:
    """Standard deviation of a control; set by eye on random heads."""
    return next(value for prefix, value in SIGMAS if name.startswith(prefix))


def modes(names: list[str], controls: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Mixing matrix [MODES, K]: mode m is sum_k mixing[m, k] control_k, N(0, 1) per coefficient reproduces the prior.

    Ordered by variance under `importance` [C], so that a cut to the first N modes loses least where it matters.
    """
    factor = _prior_factor(names)  # [R, K], covariance = factor^T factor
    weighted = controls * np.sqrt(importance)[None, :, None]
    shapes = factor @ weighted.reshape(len(names), -1)
    variance, vectors = np.linalg.eigh(shapes @ shapes.T)
    order = np.argsort(-variance)[:MODES]
    mixing = vectors[:, order].T @ factor
    # The sign of an eigenvector is arbitrary; the largest entry is made positive so that rebuilding gives the same model.
    return mixing * np.sign(np.take_along_axis(mixing, np.abs(mixing).argmax(1)[:, None], axis=1))


def _prior_factor(names: list[str]) -> np.ndarray:
    """Rows are independent draws: one per single control, three per left-right pair (common, left noise, right noise)."""
    rows = []
    for k, name in enumerate(names):
        other = "r-" + name.removeprefix("l-")
        if name.startswith("l-") and other in names:
            pair = np.zeros((3, len(names)))
            pair[0, [k, names.index(other)]] = 1
            pair[1, k] = pair[2, names.index(other)] = PAIR_NOISE
            rows += list(pair * sigma(name))
        elif not name.startswith("r-"):
            rows.append(np.eye(len(names))[k] * sigma(name))
    return np.array(rows)
