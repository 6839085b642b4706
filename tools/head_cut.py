"""Cuts the bust (skin, mouth cavity, lid insides, tongue) out of the whole body on a smooth closed hem."""

from __future__ import annotations

import dataclasses

import numpy as np
from head_source import BODY_VERTICES, Source
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from expportrait.proxy.subdivide import catmull_clark

SOCKET_RINGS = 4  # rows of quads kept behind the lid's edge; the rest of the socket is never seen


@dataclasses.dataclass
class Cut:
    """C control vertices as linear combinations of the n source vertices; the anchors at the end belong to no quad."""

    combine: sparse.csr_matrix  # [C, n]
    quads: np.ndarray  # [Q, 4] into the control vertices
    islands: np.ndarray  # [Q] "face", "mouth", "torso", "left_eye", "right_eye" or "tongue"
    uv: np.ndarray  # [U, 2] of the source layout
    uv_quads: np.ndarray  # [Q, 4]
    anchors: dict[str, np.ndarray]  # group name -> control vertices


def hem(points: np.ndarray) -> np.ndarray:
    """Positive above the cut [n], in metres near it: a bust whose outline is a cubic superellipse from the front."""
    across, below = np.abs(points[:, 0]) / 0.25, np.clip(0.60 - points[:, 1], 0, None) / 0.165
    return 0.2 * (1 - np.cbrt(across**3 + below**3))


def cut_bust(source: Source) -> Cut:
    """Keeps the quads that reach above the hem, and slides their lower vertices onto it along the mesh."""
    skin = source.groups == "body"
    height = hem(source.vertices)
    height[BODY_VERTICES:] = 1.0
    above = height > 0
    keep = skin & above[source.quads].any(1)
    islands = _islands(source, keep)
    keep &= ~_deep_socket(source, keep, islands)
    tongue = source.groups == "helper-tongue"
    islands[tongue] = "tongue"
    keep |= tongue

    quads, uv_quads = source.quads[keep], source.uv_quads[keep]
    # Face first, so that triangle numbers of the face do not depend on the rest.
    ranks = {"face": 0, "torso": 1, "left_eye": 2, "right_eye": 3, "mouth": 4, "tongue": 5}
    order = np.argsort([ranks[i] for i in islands[keep]], kind="stable")
    quads, uv_quads, islands = quads[order], uv_quads[order], islands[keep][order]
    used = np.unique(quads)
    used = np.concatenate([used[used < BODY_VERTICES], used[used >= BODY_VERTICES]])
    groups = ("helper-l-eye", "helper-r-eye", "helper-upper-teeth", "helper-lower-teeth")
    members = [source.group(g) for g in groups]
    starts = np.cumsum([len(used)] + [len(m) for m in members])
    anchors = {g: np.arange(a, b) for g, a, b in zip(groups, starts, starts[1:], strict=False)}
    rows = np.concatenate([used, *members])
    combine = _slide(source, height, quads)[rows]
    renumber = np.full(len(source.vertices), -1)
    renumber[used] = np.arange(len(used))
    uv_used, uv_quads = np.unique(uv_quads, return_inverse=True)
    combine = sparse.vstack([_sharpened(combine[: len(used)], renumber[quads]), combine[len(used) :]]).tocsr()
    return Cut(combine, renumber[quads], islands, source.uv[uv_used], uv_quads.reshape(-1, 4), anchors)


def _sharpened(combine: sparse.csr_matrix, quads: np.ndarray) -> sparse.csr_matrix:
    """Moves control vertices out by what subdivision pulls them in, so that lips and lids keep MakeHuman's shape."""
    smooth = catmull_clark(quads, combine.shape[0])[0][: combine.shape[0]]
    return (2 * combine - smooth @ combine).tocsr()


def rings(cut: Cut, count: int, first: str, second: str, most: int = 12) -> np.ndarray:
    """Number of quads between each control vertex [C] and the seam of two islands (0 on it, `most` if farther)."""
    on = []
    for name in (first, second):
        mask = np.zeros(count, bool)
        mask[cut.quads[cut.islands == name]] = True
        on.append(mask)
    distance = np.where(on[0] & on[1], 0, most)
    for ring in range(1, most):
        touched = np.unique(cut.quads[(distance[cut.quads] < ring).any(1)])
        distance[touched] = np.minimum(distance[touched], ring)
    return distance


def _slide(source: Source, height: np.ndarray, quads: np.ndarray) -> sparse.csr_matrix:
    """Rows [n, n]: the identity, except that a vertex below the hem moves along quad sides (or diagonals) onto it."""
    count = len(height)
    sides = np.concatenate([quads[:, [k, (k + 1) % 4]] for k in range(4)])
    diagonals = np.concatenate([quads[:, [k, (k + 2) % 4]] for k in range(4)])
    pull = sparse.lil_matrix((count, count))
    below = np.unique(quads[height[quads] <= 0])
    for vertex in below:
        for pairs in (sides, diagonals):
            other = np.concatenate([pairs[pairs[:, 0] == vertex, 1], pairs[pairs[:, 1] == vertex, 0]])
            inner = np.unique(other[height[other] > 0])
            if len(inner):
                break
        share = height[inner] / (height[inner] - height[vertex])  # fraction of the way from inner to vertex
        pull[vertex, vertex] = share.mean()
        for i, s in zip(inner, share, strict=True):
            pull[vertex, i] += (1 - s) / len(inner)
    rest = np.ones(count)
    rest[below] = 0
    return (sparse.diags(rest) + pull).tocsr()


def _islands(source: Source, keep: np.ndarray) -> np.ndarray:
    """Name of each quad's island in the texture layout; MakeHuman's seams part exactly what is needed here."""
    uv_quads = source.uv_quads[keep]
    rows = uv_quads[:, :1].repeat(4, 1).ravel()
    graph = sparse.coo_matrix((np.ones(len(rows)), (rows, uv_quads.ravel())), (len(source.uv),) * 2)
    label = connected_components(graph)[1][uv_quads[:, 0]]
    names = np.full(len(keep), "", dtype="<U16")
    centres = source.vertices[source.quads[keep]].mean(1)
    kept = np.full(len(label), "", dtype="<U16")
    for island in np.unique(label):
        low, high = centres[label == island].min(0), centres[label == island].max(0)
        if high[1] > 0.8:
            name = "face"
        elif low[1] < 0.5:
            name = "torso"
        elif low[0] > 0:
            name = "left_eye"
        elif high[0] < 0:
            name = "right_eye"
        else:
            name = "mouth"
        kept[label == island] = name
    names[keep] = kept
    return names


def _deep_socket(source: Source, keep: np.ndarray, islands: np.ndarray) -> np.ndarray:
    """Quads of the eye islands that lie more than SOCKET_RINGS rows behind the lid's edge."""
    socket = keep & np.isin(islands, ("left_eye", "right_eye"))
    reached = np.zeros(len(source.vertices), bool)
    reached[source.quads[keep & (islands == "face")]] = True
    near = np.zeros(len(keep), bool)
    for _ in range(SOCKET_RINGS):
        near |= socket & reached[source.quads].any(1)
        reached[source.quads[near]] = True
    return socket & ~near
