import numpy as np
import torch

from expportrait.proxy.refine.outside_maps import CHUNK
from expportrait.proxy.refine.shift_system import TOLERANCE, Membrane, Pins, Ties, solve_shifts
from expportrait.proxy.refine.surface import Skin, control_basis


def test_shifts_solve_their_system(model, generator):
    skin = Skin.of(model, model.stencil @ model.template)
    count = len(skin.vertices)
    rows = 300 * torch.randn(2, count, 3, 2, generator=generator)
    blocks, right = rows.mT @ rows, torch.randn(2, count, 2, generator=generator)
    membrane = Membrane(skin, 0.3, 0.004, float(blocks.diagonal(dim1=-2, dim2=-1).mean()))
    present = 1e-3 * torch.randn(2, count, 2, generator=generator)
    change = solve_shifts(membrane, blocks, right, present)
    for t in range(2):
        left = (blocks[t] @ change[t, :, :, None])[..., 0] + membrane.apply(change[t] + present[t])
        start = right[t] - membrane.apply(present[t])
        assert (left - right[t]).norm() < 0.1 * start.norm()


def test_shifts_with_landmarks_and_ties_solve_the_dense_system(model, generator):
    skin = Skin.of(model, model.stencil @ model.template)
    place = (model.stencil @ model.template)[skin.vertices]
    tip = place[place[:, 2].argmax()]
    keep = ((place - tip).norm(dim=1) < 0.012)[skin.faces].all(1)
    vertices, faces = torch.unique(skin.faces[keep], return_inverse=True)
    small = Skin(skin.vertices[vertices], faces, skin.hats[keep], skin.area[keep], skin.normals[vertices])
    count, frames, landmarks = len(vertices), 2, 7
    assert 30 < count < 400
    rows = 300 * torch.randn(frames, count, 3, 2, generator=generator)
    blocks, right = rows.mT @ rows, torch.randn(frames, count, 2, generator=generator)
    present = 1e-3 * torch.randn(frames, count, 2, generator=generator)
    corners = small.faces[torch.randint(len(small.faces), (landmarks,), generator=generator)]
    pulls = 1000 * torch.randn(frames, landmarks, 2, 6, generator=generator)
    pins = Pins(corners, pulls.mT @ pulls, torch.randn(frames, landmarks, 6, generator=generator))
    outside = 1e-3 * torch.randn(2, count, 2, generator=generator)
    ties = Ties(torch.tensor([2.0, 5.0, 3.0]), *outside)
    membrane = Membrane(small, 0.3, 0.004, float(blocks.diagonal(dim1=-2, dim2=-1).mean()))
    found = solve_shifts(membrane, blocks, right, present, pins, ties, steps=400, tolerance=1e-12)

    size = frames * count * 2
    at = torch.arange(size).view(frames, count, 2)
    system, side = np.zeros((size, size)), np.zeros(size)
    stiffness = membrane.apply(torch.eye(count)).double().numpy()
    for t in range(frames):
        for axis in (0, 1):
            own = at[t, :, axis].numpy()
            system[np.ix_(own, own)] += stiffness
            side[own] -= stiffness @ present[t, :, axis].double().numpy()
        for v in range(count):
            own = at[t, v].numpy()
            system[np.ix_(own, own)] += blocks[t, v].double().numpy()
            side[own] += right[t, v].double().numpy()
        for landmark in range(landmarks):
            own = at[t, corners[landmark]].flatten().numpy()
            system[np.ix_(own, own)] += pins.blocks[t, landmark].double().numpy()
            side[own] += pins.right[t, landmark].double().numpy()
    stretch = membrane.stretch(torch.eye(count)).double().numpy()
    for first, second, weight in ((None, 0, 2), (0, 1, 5), (1, None, 3)):
        now = [outside[0 if second == 0 else 1] if t is None else present[t] for t in (first, second)]
        for axis in (0, 1):
            pull = weight * stretch @ (now[1] - now[0])[:, axis].double().numpy()
            own = [None if t is None else at[t, :, axis].numpy() for t in (first, second)]
            for place, sign in zip(own, (1, -1)):
                if place is not None:
                    side[place] += sign * pull
                    system[np.ix_(place, place)] += weight * stretch
            if first is not None and second is not None:
                system[np.ix_(own[0], own[1])] -= weight * stretch
                system[np.ix_(own[1], own[0])] -= weight * stretch
    exact = torch.from_numpy(np.linalg.solve(system, side)).view(frames, count, 2)
    assert (found - exact).norm() < 1e-3 * exact.norm()


def test_shifts_of_the_control_mesh_solve_the_system_of_the_skin(model, generator):
    """Few coefficients and data at some vertices only: nothing of the whole skin's residual is left that they could take."""
    skin = Skin.of(model, model.stencil @ model.template)
    basis = control_basis(model, skin)
    count, controls, frames = *basis.shape, 3
    some = (model.regions["face"][skin.vertices] > 0).nonzero()[:, 0]
    rows = torch.zeros(frames, count, 3, 2)
    trust = torch.rand(frames, len(some), 1, 1, generator=generator)
    rows[:, some] = 3000 * trust * torch.randn(frames, len(some), 3, 2, generator=generator)
    blocks = rows.mT @ rows
    right = (rows.mT @ torch.randn(frames, count, 3, 1, generator=generator))[..., 0]
    ties = Ties(torch.tensor([100.0, 100, 100, 0]), *torch.zeros(2, controls, 2))
    present = torch.zeros(frames, controls, 2)
    diagonal = blocks.diagonal(dim1=-2, dim2=-1).mean((0, -1))[some]
    membrane = Membrane(skin, 0.3, 0.004, diagonal, basis, some)

    def left_over(tolerance: float) -> tuple[torch.Tensor, float]:
        found = solve_shifts(membrane, blocks[:, some], right[:, some], present, ties=ties, tolerance=tolerance)
        shifts = torch.from_numpy(basis @ found.transpose(0, 1).flatten(1).double().numpy()).float().unflatten(1, (frames, 2))  # [S, t, 2]
        strain = whole.stretch((ties.matrix() @ shifts).flatten(1)) + whole.apply(shifts.flatten(1))
        forces = (right - (blocks @ shifts.transpose(0, 1)[..., None])[..., 0]).transpose(0, 1).flatten(1) - strain
        start = basis.T @ right.transpose(0, 1).flatten(1).double().numpy()
        return found, float(np.linalg.norm(basis.T @ forces.double().numpy()) / np.linalg.norm(start))

    whole = Membrane(skin, 0.3, 0.004, 1.0)
    exact, residual = left_over(1e-9)
    assert residual < 1e-3
    # The preconditioner knows the ties and where the data is: the default tolerance is enough, and takes few steps.
    assert (left_over(TOLERANCE)[0] - exact).norm() < 0.1 * exact.norm()


def test_ties_take_out_flicker_and_keep_what_moves_as_a_whole(model, generator):
    """Frames of several chunks that are each told another shift: one of the whole skin that jumps, and noise of each vertex."""
    skin = Skin.of(model, model.stencil @ model.template)
    count, frames = len(skin.vertices), 2 * CHUNK
    data, rounds = 1e6, 6
    whole = torch.tensor([5e-4, -3e-4]).expand(frames, 1, 2).clone()
    whole[CHUNK + 2 :] += 1e-3
    told = whole + 5e-4 * torch.randn(frames, count, 2, generator=generator)
    blocks = data * torch.eye(2).expand(CHUNK, count, 2, 2)

    def solved(tie: float) -> list[torch.Tensor]:
        weight = torch.full((frames + 1,), tie)
        weight[0] = weight[-1] = 0
        membrane = Membrane(skin, 0.3, 0.1, data)
        shifts, after = torch.zeros(frames, count, 2), []
        for _ in range(rounds):
            for start in range(0, frames, CHUNK):
                part = slice(start, start + CHUNK)
                ties = Ties(weight[start : start + CHUNK + 1], shifts[max(start - 1, 0)], shifts[min(start + CHUNK, frames - 1)])
                right = data * (told[part] - shifts[part])
                shifts[part] += solve_shifts(membrane, blocks, right, shifts[part], ties=ties)
            after.append(shifts.clone())
        return after

    tied = solved(9.0)
    free, steady = ((field - whole).diff(dim=0).square().mean((1, 2)).sqrt() for field in (solved(0.0)[-1], tied[-1]))
    assert steady.mean() < 0.6 * free.mean() and steady[CHUNK - 1] < 0.6 * free[CHUNK - 1]
    assert torch.allclose(tied[-1].mean(1), told.mean(1), atol=3e-5)
    moves = [float((b - a).square().mean().sqrt()) for a, b in zip(tied, tied[1:])]
    assert moves[-1] < 0.02 * float(tied[0].square().mean().sqrt())
