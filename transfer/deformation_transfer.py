"""How each expression would look on another face: deformation transfer from the template that keeps lids and lips together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree
from torch import Tensor

from ..proxy.head_model import PARTS, HeadModel
from .moving_skin import MOVING_PARTS, moving_controls, unit_expressions

TOUCHING, APART = 0.0012, 0.003  # metres: how near rims come when they meet, and how far they are when open
SHARES = (0.25, 0.5, 0.75, 1.0)  # of an expression at which lids are kept off the eyeballs
EYE_ROUNDS, EYE_WEIGHT = 5, 20.0
NEIGHBOURS = 8  # looked at around each rim point
CONTACT_WEIGHT = 10.0  # of a pair that touches; that of a regular triangle's edge is about 0.6
RIDGE = 2e-3  # weight, at each free control vertex, of the linear blend shapes scaled with the face
COTANGENTS = (0.05, 4.0)  # range of the edge weights: slivers have none or endless ones
STRETCH_LIMIT = 8.0  # Frobenius norm of a triangle's change: what slivers on the template may ask for at most


class DeformationTransfer:
    """Transfers the expressions of a head model from its template onto any neutral of the same mesh.

    Sumner and Popovic, "Deformation Transfer for Triangle Meshes", SIGGRAPH 2004: each triangle of the target shall change
    as the template's does, least squares over its edges with cotangent weights (the Poisson form of Botsch et al. 2006).
    As Saito, "Smooth Contact-Aware Facial Blendshapes Transfer", DigiPro 2013, ties lids and lips by virtual triangles,
    here pairs of rim points that touch (at rest or under an expression) keep their distance as a share of the open one, so
    that a lid that closes on the template closes on the target. Unknowns are the control vertices: the result has the
    smoothness of the subdivision. What no expression moves is pinned. Lids come no nearer to the eyeballs, at any share of an
    expression, than those of the template.

    The triangles' changes are taken in canonical space at one unit of each expression (or its bound, if that is less) and
    scale with it; the jaw's rotation is left to skinning, which knows the target's joints.
    """

    def __init__(self, model: HeadModel):
        self.model = model
        stencil = _csr(model.stencil)  # [V, C]
        basis = model.expression_basis.cpu().double().numpy()  # [E, C, 3]
        self._size = unit_expressions(model).cpu().double().numpy()  # [E]
        fields = np.stack([stencil @ field for field in basis * self._size[:, None, None]])  # [E, V, 3]
        rest = stencil @ model.template.cpu().double().numpy()  # [V, 3]
        moving = torch.isin(model.parts, torch.tensor([PARTS.index(name) for name in MOVING_PARTS], device=model.parts.device))
        faces = model.faces[moving].cpu().numpy()
        parts = model.vertex_parts().cpu().numpy()
        rigid = ~np.isin(parts, [PARTS.index(name) for name in MOVING_PARTS])
        self.free = moving_controls(model).cpu().numpy()
        self._stencil = stencil[:, self.free].tocsr()
        reached = np.asarray(self._stencil.sum(1)).ravel() > 0
        self._faces = faces[reached[faces].any(1)]
        self._rest, self._linear = rest, basis[:, self.free] * self._size[:, None, None]
        self._changes = _triangle_changes(rest, fields, self._faces)  # [E, F, 3, 3]
        lids, lips = (reached & ~rigid & (model.regions[name] > 0.3).cpu().numpy() for name in ("lids", "lips"))
        self._lids = np.flatnonzero(lids)
        self._eyes = [np.flatnonzero(parts == PARTS.index(name)) for name in ("left_eye", "right_eye")]
        self._lid_clearance = self._clearances(rest, fields[:, self._lids])  # [A, E, L]
        self.pairs = _touching_pairs(rest, fields, lids, lips)
        left, right = self.pairs.T
        self._pair_changes = (fields[:, left] - fields[:, right]).transpose(1, 0, 2)  # [N, E, 3]

    def fields(self, neutral: Tensor) -> Tensor:
        """Control offsets [E, C, 3] of each expression, metres per unit, on a neutral [V, 3] in canonical space.

        They take the place of `HeadModel.expression_basis`. Raises ValueError if the neutral has another number of vertices.
        """
        if neutral.shape != (self.model.vertex_count, 3):
            raise ValueError(
                f"the neutral has shape {list(neutral.shape)}, but {self.model.model_id} has {self.model.vertex_count} vertices; "
                f"give [{self.model.vertex_count}, 3]"
            )
        points = neutral.detach().cpu().double().numpy()
        count = len(self._linear)
        lengths = _edge_lengths(points, self._faces) / _edge_lengths(self._rest, self._faces)  # [V]
        triangle = points[self._faces]  # [F, 3, 3]
        matrix = sparse.csr_matrix((len(points), len(points)))
        right = np.zeros((len(points), 3 * count))
        for k in range(3):
            a, b, c = (self._faces[:, (k + i) % 3] for i in range(3))
            edge = triangle[:, (k + 1) % 3] - triangle[:, k]
            weight = 0.5 * _cotangents(triangle[:, k] - triangle[:, (k + 2) % 3], triangle[:, (k + 1) % 3] - triangle[:, (k + 2) % 3])
            # [F, E * 3]: how each expression changes this edge.
            wanted = np.einsum("efij,fj->fei", self._changes, edge, optimize=True).reshape(len(edge), -1)
            matrix, right = _add_edges(matrix, right, a, b, weight, wanted)
        matrix, right = self._add_contact(matrix, right, points, lengths)
        system = self._stencil.T @ matrix @ self._stencil
        ridge = RIDGE * system.diagonal().mean()
        system = system + ridge * sparse.identity(len(self.free))
        linear = lengths[self._faces].mean() * self._linear.transpose(1, 0, 2).reshape(len(self.free), -1)
        # Pinned control vertices do not move, so that they add nothing to the right side.
        right = self._stencil.T @ right + ridge * linear
        solved = _factor(system).solve(right)
        if len(self._lids):
            solved = self._keep_off_eyes(system, right, solved, points)
        solved = solved.reshape(len(self.free), count, 3).transpose(1, 0, 2) / self._size[:, None, None]
        out = self.model.expression_basis.clone()
        out[:, torch.from_numpy(self.free).to(out.device)] = torch.from_numpy(solved).to(out)
        return out

    def _clearances(self, points: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """Height of lid vertices over the nearer eyeball [A, E, L], metres, where a share of moves [E, L, 3] is done."""
        centre, radius = self._eyeballs(points)
        return np.stack([np.linalg.norm(points[self._lids] + share * moves - centre, axis=2) - radius for share in SHARES])

    def _eyeballs(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centre [L, 3] and radius [L] of the eyeball nearer to each lid vertex."""
        balls = [_sphere(points[eye]) for eye in self._eyes]
        centres, radii = np.stack([ball[0] for ball in balls]), np.array([ball[1] for ball in balls])
        nearer = np.linalg.norm(points[self._lids, None] - centres, axis=2).argmin(1)
        return centres[nearer], radii[nearer]

    def _keep_off_eyes(self, system: sparse.csc_matrix, right: np.ndarray, solved: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Control moves [N, E * 3] with lids no nearer to the eyeball than the template's come, or than they are at rest.

        Rounds of the same least squares in which lid vertices also want to be where they are, or farther out if they came too near.
        """
        centre, radius = self._eyeballs(points)
        start = np.linalg.norm(points[self._lids] - centre, axis=1) - radius
        least = np.minimum(self._lid_clearance * (radius / self._eyeballs(self._rest)[1]), start)
        share = self._stencil[self._lids]  # [L, N]
        solver = _factor(system + EYE_WEIGHT * share.T @ share)
        for _ in range(EYE_ROUNDS):
            moves = (share @ solved).reshape(share.shape[0], -1, 3).transpose(1, 0, 2)  # [E, L, 3]
            missing = (least - self._clearances(points, moves)).clip(min=0) / np.array(SHARES)[:, None, None]
            outward = points[self._lids] + 0.5 * moves - centre
            outward /= np.linalg.norm(outward, axis=2, keepdims=True)
            wanted = moves + missing.max(0)[..., None] * outward
            solved = solver.solve(right + EYE_WEIGHT * (share.T @ wanted.transpose(1, 0, 2).reshape(len(wanted[0]), -1)))
        return solved

    def _add_contact(self, matrix, right: np.ndarray, points: np.ndarray, lengths: np.ndarray):
        if len(self.pairs) == 0:
            return matrix, right
        a, b = self.pairs.T
        before, after = self._rest[a] - self._rest[b], points[a] - points[b]
        met = np.linalg.norm(before, axis=1) < APART  # such rims have no direction of their own
        turn = np.where(met[:, None, None], np.eye(3) * lengths[a, None, None], _turn_and_scale(before, after))  # [N, 3, 3]
        wanted = np.einsum("nij,nej->nei", turn, self._pair_changes).reshape(len(a), -1)
        return _add_edges(matrix, right, b, a, np.full(len(a), CONTACT_WEIGHT), wanted)


def _triangle_changes(rest: np.ndarray, fields: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """S - I [E, F, 3, 3] of triangles [F, 3] under displacement fields [E, V, 3]; S maps (edge, edge, scaled normal)."""
    inverse = np.linalg.inv(_frames(rest[faces]))
    changes = np.empty((len(fields), len(faces), 3, 3), np.float32)
    for k, field in enumerate(fields):
        changes[k] = _frames((rest + field)[faces]) @ inverse - np.eye(3)
    size = np.linalg.norm(changes, axis=(2, 3), keepdims=True)
    return changes * np.minimum(1, STRETCH_LIMIT / np.maximum(size, 1e-9)).astype(np.float32)


def _frames(triangle: np.ndarray) -> np.ndarray:
    """Columns e1, e2 and n = (e1 x e2) / sqrt |e1 x e2| [F, 3, 3] of triangles [F, 3, 3]."""
    e1, e2 = triangle[:, 1] - triangle[:, 0], triangle[:, 2] - triangle[:, 0]
    normal = np.cross(e1, e2)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return np.stack([e1, e2, normal / np.sqrt(np.maximum(length, 1e-12))], axis=2)


def _cotangents(e1: np.ndarray, e2: np.ndarray) -> np.ndarray:
    sine = np.linalg.norm(np.cross(e1, e2), axis=1)
    return ((e1 * e2).sum(1) / np.maximum(sine, 1e-12)).clip(*COTANGENTS)


def _add_edges(matrix, right: np.ndarray, start: np.ndarray, end: np.ndarray, weight: np.ndarray, wanted: np.ndarray):
    """Adds sum w |d_end - d_start - wanted|^2 to the normal equations [V, V], [V, K]."""
    rows = np.arange(len(start)).repeat(2)
    columns = np.stack([start, end], 1).ravel()
    signs = np.tile([-1.0, 1.0], len(start))
    incidence = sparse.csr_matrix((signs, (rows, columns)), (len(start), len(right)))
    weighted = incidence.T @ sparse.diags(weight)
    return matrix + weighted @ incidence, right + weighted @ wanted


def _pairs_near(points: np.ndarray, index: np.ndarray, keep: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Pairs [N, 2] of the vertices `index` that touch: each with its nearest one among those pairs that `keep` allows."""
    distance, other = cKDTree(points[index]).query(points[index], k=NEIGHBOURS, distance_upper_bound=TOUCHING)
    near = np.isfinite(distance)
    first = np.arange(len(index))[:, None].repeat(NEIGHBOURS, 1)[near]
    pairs, distance = np.stack([index[first], index[other[near]]], 1), distance[near]
    kept = keep(pairs)
    pairs = pairs[kept][distance[kept].argsort(kind="stable")]
    _, nearest = np.unique(pairs[:, 0], return_index=True)
    return np.sort(pairs[nearest], axis=1)


def _touching_pairs(rest: np.ndarray, fields: np.ndarray, lids: np.ndarray, lips: np.ndarray) -> np.ndarray:
    """Pairs [N, 2] of lid vertices that an expression brings together, and of lip vertices that one takes apart.

    Lips touch in many places when they roll in; only those that meet at rest seal the mouth.
    """

    def gaps(pairs: np.ndarray) -> np.ndarray:
        return np.linalg.norm(rest[pairs[:, 0]] - rest[pairs[:, 1]], axis=1)

    def part(pairs: np.ndarray) -> np.ndarray:
        difference = fields[:, pairs[:, 0]] - fields[:, pairs[:, 1]]
        return (np.linalg.norm(rest[pairs[:, 0]] - rest[pairs[:, 1]] + difference, axis=2) > APART).any(0)

    lips, lids = np.flatnonzero(lips), np.flatnonzero(lids)
    found = [_pairs_near(rest, lips, part)]
    found += [_pairs_near(rest + field, lids, lambda pairs: gaps(pairs) > APART) for field in fields if field[lids].any()]
    return np.unique(np.concatenate(found), axis=0)


def _turn_and_scale(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The least rotation times scale [N, 3, 3] that takes vectors [N, 3] to vectors [N, 3] (Rodrigues)."""
    size = np.linalg.norm(before, axis=1), np.linalg.norm(after, axis=1)
    a, b = before / size[0][:, None], after / size[1][:, None]
    axis, cosine = np.cross(a, b), (a * b).sum(1)
    cross = np.zeros((len(a), 3, 3))
    cross[:, [2, 0, 1], [1, 2, 0]], cross[:, [1, 2, 0], [2, 0, 1]] = axis, -axis
    rotation = np.eye(3) + cross + cross @ cross / (1 + cosine)[:, None, None].clip(min=0.1)
    return rotation * (size[1] / size[0])[:, None, None]


def _factor(system: sparse.csc_matrix):
    """Sparse factors of a symmetric positive matrix [N, N]."""
    return splu(system.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})


def _sphere(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre [3] and radius of the sphere through points [N, 3]: linear least squares on |x|^2 = 2 c x + r^2 - |c|^2."""
    middle = points.mean(0)
    local = points - middle
    system = np.concatenate([2 * local, np.ones((len(local), 1))], axis=1)
    solved = np.linalg.lstsq(system, (local**2).sum(1), rcond=None)[0]
    return middle + solved[:3], float(np.sqrt(solved[3] + (solved[:3] ** 2).sum()))


def _edge_lengths(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Mean length [V] of the edges around each vertex; 1 where there are none, so that ratios stay defined."""
    total, count = np.zeros(len(points)), np.zeros(len(points))
    for k in range(3):
        a, b = faces[:, k], faces[:, (k + 1) % 3]
        length = np.linalg.norm(points[a] - points[b], axis=1)
        for end in (a, b):
            total += np.bincount(end, length, len(points))
            count += np.bincount(end, minlength=len(points))
    return np.where(count > 0, total / np.maximum(count, 1), 1.0)


def _csr(matrix: Tensor) -> sparse.csr_matrix:
    matrix = matrix.coalesce().cpu()
    return sparse.csr_matrix((matrix.values().double().numpy(), matrix.indices().numpy()), matrix.shape)
