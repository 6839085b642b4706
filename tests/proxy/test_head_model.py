"""The embedded head: structure, motion, gradients and the anatomy that the pictures show."""

from pathlib import Path

import numpy as np
import pytest
import torch

from expportrait.proxy import head_asset, mesh
from expportrait.proxy.camera import Camera
from expportrait.proxy.head_model import JOINTS, PARTS, REGIONS, LandmarkTable, load_head_model
from expportrait.proxy.raster import Rasterizer
from expportrait.proxy.rotation import to_matrix

HEAD_BYTES = 1_500_000


@pytest.fixture(scope="module")
def model():
    return load_head_model()


def neutral(model, batch=1, dtype=torch.float32):
    return (
        torch.zeros(batch, len(model.identity_names), dtype=dtype),
        torch.zeros(batch, len(model.expression_names), dtype=dtype),
        torch.zeros(batch, len(JOINTS), 3, dtype=dtype),
    )


def expression(model, **values):
    weights = torch.zeros(1, len(model.expression_names))
    for name, value in values.items():
        weights[0, model.expression_index(name)] = value
    return weights


def part_vertices(model, *names):
    codes = torch.tensor([PARTS.index(name) for name in names])
    return model.faces[torch.isin(model.parts, codes)].unique()


def test_shapes_and_sums(model):
    vertices, controls = model.stencil.shape
    count, expressions = len(model.identity_names), len(model.expression_names)
    assert model.template.shape == (controls, 3) and model.identity_basis.shape == (count, controls, 3)
    assert model.expression_basis.shape == (expressions, controls, 3) and expressions == 52
    assert model.expression_bounds.shape == (expressions, 2) and model.expression_joints.shape == (expressions, 6, 3)
    assert model.joint_identity.shape == (count, 6, 3) and model.weights.shape == (vertices, 6)
    assert model.uv_faces.shape == model.faces.shape == (len(model.parts), 3)
    assert set(model.regions) == set(REGIONS) and all(mask.shape == (vertices,) for mask in model.regions.values())
    assert 18_000 < vertices < 26_000 and 36_000 < len(model.faces) < 48_000
    torch.testing.assert_close(model.weights.sum(1), torch.ones(vertices))
    torch.testing.assert_close(torch.sparse.sum(model.stencil, 1).to_dense(), torch.ones(vertices), atol=2e-5, rtol=0)
    assert 0 <= float(model.uv.min()) and float(model.uv.max()) <= 1
    for mask in model.regions.values():
        assert float(mask.min()) >= 0 and 0.9 < float(mask.max()) <= 1
    assert Path(head_asset.HEAD).stat().st_size < HEAD_BYTES


def test_every_vertex_is_used_and_texture_islands_of_parts_do_not_overlap(model):
    assert len(model.faces.unique()) == model.vertex_count
    grid = torch.zeros(512, 512, dtype=torch.int64)
    centres = model.uv[model.uv_faces].mean(1)
    cell = (centres * 512).long().clamp(0, 511)
    for name in PARTS:
        mine = model.parts == PARTS.index(name)
        taken = torch.zeros_like(grid)
        taken[cell[mine, 1], cell[mine, 0]] = 1
        grid += taken
    assert int(grid.max()) == 1


def test_neutral_is_the_subdivided_template(model):
    identity, weights, joints = neutral(model)
    expected = torch.sparse.mm(model.stencil, model.template)
    torch.testing.assert_close(model(identity, weights, joints)[0], expected, atol=1e-6, rtol=0)


def test_canonical_is_linear(model):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1, len(model.identity_names), generator=generator) for _ in range(2))
    e, f = (torch.rand(1, len(model.expression_names), generator=generator) for _ in range(2))
    base = model.canonical(0 * a, 0 * e)
    total = model.canonical(a + 2 * b, e - f) - base
    parts = model.canonical(a, e) - base + 2 * (model.canonical(b, 0 * e) - base) - (model.canonical(0 * a, f) - base)
    torch.testing.assert_close(total, parts, atol=2e-5, rtol=0)
    joints = model.joint_positions(a + b, e) - model.joint_positions(a, e)
    torch.testing.assert_close(joints, model.joint_positions(b, 0 * e) - model.joint_template, atol=1e-5, rtol=0)


def test_batches_broadcast_and_agree_with_single_frames(model):
    generator = torch.Generator().manual_seed(1)
    identity = torch.randn(1, len(model.identity_names), generator=generator)
    weights = torch.rand(3, len(model.expression_names), generator=generator)
    joints = 0.3 * torch.randn(1, 6, 3, generator=generator)
    offset = 1e-3 * torch.randn(1, model.vertex_count, 3, generator=generator)
    batch = model(identity, weights, joints, offset)
    assert batch.shape == (3, model.vertex_count, 3)
    for k in range(3):
        torch.testing.assert_close(batch[k : k + 1], model(identity, weights[k : k + 1], joints, offset), atol=1e-6, rtol=0)
    plain = model(identity, 0 * weights, 0 * joints)
    torch.testing.assert_close(
        model(identity, 0 * weights, 0 * joints, offset) - plain, offset.expand(3, -1, -1), atol=1e-6, rtol=0
    )


def test_transforms_are_rigid_and_the_root_moves_everything(model):
    generator = torch.Generator().manual_seed(2)
    identity, weights, joints = neutral(model, 4)
    joints = torch.randn(4, 6, 3, generator=generator)
    transforms = model.joint_transforms(identity, weights, joints)
    rotation = transforms[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.transpose(-1, -2), torch.eye(3).expand(4, 6, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(4, 6), atol=1e-5, rtol=0)
    # The root joint stays, a child joint is carried along by its parent only.
    joints[:, 1:] = 0
    root = model.joint_template[0]
    expected = (model.canonical(identity, weights) - root) @ to_matrix(joints[:, 0]).transpose(-1, -2) + root
    torch.testing.assert_close(model(identity, weights, joints), expected, atol=1e-5, rtol=0)


def test_jaw_and_teeth(model):
    identity, closed, joints = neutral(model)
    opened = expression(model, jawOpen=1.0)
    before, after = model(identity, closed, joints)[0], model(identity, opened, joints)[0]
    lower, upper = part_vertices(model, "lower_teeth"), part_vertices(model, "upper_teeth")
    assert float((after - before)[upper].norm(dim=1).max()) < 1e-6
    turn = to_matrix(model.expression_joints[model.expression_index("jawOpen"), 3])
    pivot = model.joint_template[3]
    torch.testing.assert_close(after[lower], (before[lower] - pivot) @ turn.T + pivot, atol=1e-5, rtol=0)
    assert 0.015 < float((before - after)[lower, 1].mean()) < 0.04
    for name, axis, sign in (("jawLeft", 0, 1), ("jawRight", 0, -1), ("jawForward", 2, 1)):
        shift = (model(identity, expression(model, **{name: 1.0}), joints)[0] - before)[lower, axis].mean()
        assert float(sign * shift) > 0.002, name
    tongue = part_vertices(model, "tongue")
    reach = model(identity, expression(model, tongueOut=1.0), joints)[0, tongue, 2].max() - before[tongue, 2].max()
    assert float(reach) > 0.015


@pytest.mark.parametrize(
    "name, joint, axis, sign",
    [("eyeLookUpLeft", 4, 1, 1), ("eyeLookDownRight", 5, 1, -1), ("eyeLookOutLeft", 4, 0, 1), ("eyeLookInRight", 5, 0, 1)],
)
def test_gaze_turns_the_eyeball_rigidly(model, name, joint, axis, sign):
    identity, rest, joints = neutral(model)
    ball = part_vertices(model, ("left_eye", "right_eye")[joint - 4])
    before, after = model(identity, rest, joints)[0, ball], model(identity, expression(model, **{name: 1.0}), joints)[0, ball]
    front = before[:, 2].argmax()
    assert float(sign * (after - before)[front, axis]) > 0.002
    a, b = before - model.joint_template[joint], after - model.joint_template[joint]
    torch.testing.assert_close(a.norm(dim=1), b.norm(dim=1), atol=1e-5, rtol=0)


def seen_of_eyes(model, identity, weights):
    """Square millimetres of eyeball that a camera in front of the face sees."""
    faces = model.faces[model.visible_faces()]
    parts = model.parts[model.visible_faces()]
    vertices = model(identity, weights, torch.zeros(1, 6, 3)) - torch.tensor([0.0, 0.735, 1.1])
    camera = Camera.centred(6000.0, 500, 250)  # 0.17 mm per pixel at the eyes
    ids = Rasterizer(faces, model.vertex_count).rasterize(camera.clip(vertices), (250, 500)).ids[0].long()
    seen = parts[(ids - 1).clamp(min=0)]
    eyes = (ids > 0) & ((seen == PARTS.index("left_eye")) | (seen == PARTS.index("right_eye")))
    return float(eyes.sum()) * (0.98 / 6000 * 1000) ** 2


def test_blink_closes_the_lids_of_anybody(model):
    generator = torch.Generator().manual_seed(3)
    closed = expression(model, eyeBlinkLeft=1.0, eyeBlinkRight=1.0)
    squeezed = closed + expression(model, cheekSquintLeft=1.0, cheekSquintRight=1.0, eyeSquintLeft=1.0, eyeSquintRight=1.0)
    for number in range(5):
        identity = torch.randn(1, len(model.identity_names), generator=generator) * min(number, 1)
        assert seen_of_eyes(model, identity, torch.zeros_like(closed)) > 100
        assert seen_of_eyes(model, identity, closed) < 0.5
        assert seen_of_eyes(model, identity, squeezed) < 0.5


def test_lips_cover_the_teeth_at_rest(model):
    faces, parts = model.faces[model.visible_faces()], model.parts[model.visible_faces()]
    identity, rest, joints = neutral(model)
    raster = Rasterizer(faces, model.vertex_count)

    def teeth_seen(weights):
        vertices = model(identity, weights, joints) - torch.tensor([0.0, 0.67, 1.1])
        ids = raster.rasterize(Camera.centred(4000.0, 300, 200).clip(vertices), (200, 300)).ids[0].long()
        seen = parts[(ids - 1).clamp(min=0)]
        return int(((ids > 0) & ((seen == PARTS.index("upper_teeth")) | (seen == PARTS.index("lower_teeth")))).sum())

    smile = {f"{name}{side}": 1.0 for name in ("mouthSmile", "mouthUpperUp") for side in ("Left", "Right")}
    assert teeth_seen(rest) < 20
    assert teeth_seen(expression(model, jawOpen=0.2, **smile)) > 1000


def test_gradients_in_double_precision(model):
    double = model.to(dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)
    identity, weights, joints = neutral(model, dtype=torch.float64)
    mix = torch.randn(3, model.vertex_count * 3, generator=generator, dtype=torch.float64) / 1000
    weights[0, 20:26] = 0.4
    where = torch.arange(0, model.vertex_count, 5000)

    def measured(first, second, third, offset):
        i = torch.cat([first, identity[:, 3:]], dim=1)
        e = torch.cat([weights[:, :22], second, weights[:, 26:]], dim=1)
        bumps = torch.zeros(1, model.vertex_count, 3, dtype=torch.float64).index_add(1, where, offset)
        return double(i, e, third, bumps).flatten(1) @ mix.T

    inputs = (
        torch.randn(1, 3, generator=generator, dtype=torch.float64),
        torch.rand(1, 4, generator=generator, dtype=torch.float64),
        0.3 * torch.randn(1, 6, 3, generator=generator, dtype=torch.float64),
        1e-3 * torch.randn(1, len(where), 3, generator=generator, dtype=torch.float64),
    )
    assert torch.autograd.gradcheck(measured, [x.requires_grad_() for x in inputs])


def test_loaded_in_inference_mode_it_can_still_be_optimised_through():
    with torch.inference_mode():
        load_head_model.cache_clear()
        loaded = load_head_model()
        assert torch.isfinite(loaded(*neutral(loaded))).all()
        copy = loaded.to(dtype=torch.float32)
    for candidate in (loaded, copy):
        identity, weights, joints = (x.requires_grad_() for x in neutral(candidate))
        candidate(identity, weights, joints).square().sum().backward()
        assert all(float(x.grad.abs().max()) > 0 for x in (identity, weights, joints))


def test_normals_point_outwards(model):
    identity, weights, joints = neutral(model)
    vertices = model(identity, weights, joints)
    normals = model.vertex_normals(vertices)
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(1, model.vertex_count), atol=1e-4, rtol=0)
    for part in ("left_eye", "right_eye"):
        ball = part_vertices(model, part)
        joint = JOINTS.index(part)
        outward = torch.nn.functional.normalize(vertices[0, ball] - model.joint_template[joint], dim=1)
        assert float((normals[0, ball] * outward).sum(1).median()) > 0.9
    nose = (model.regions["nose"] > 0.8).nonzero()[:, 0]
    assert float(normals[0, nose, 2].mean()) > 0.2
    flat = mesh.vertex_normals(torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]]), torch.tensor([[0, 1, 2]]))
    torch.testing.assert_close(flat[0, 0], torch.tensor([0.0, 0, 1]))


def test_hem_is_one_closed_loop():
    arrays = head_asset.read_arrays(head_asset.HEAD)
    edges = head_asset.subdivide.border_edges(arrays["quads"], len(arrays["template"]))
    hem = edges[(arrays["template"][edges][:, :, 1] < 0.6).all(1)]
    following = {int(v): [] for v in np.unique(hem)}
    for a, b in hem.tolist():
        following[a].append(b)
        following[b].append(a)
    assert all(len(n) == 2 for n in following.values())
    start = previous = int(hem[0, 0])
    here, steps = following[start][0], 1
    while here != start:
        previous, here = here, next(n for n in following[here] if n != previous)
        steps += 1
    assert steps == len(hem)


def test_hidden_parts_and_unknown_names(model):
    kept = model.visible_faces(("cornea", "gums"))
    assert not torch.isin(model.parts[kept], torch.tensor([PARTS.index("cornea"), PARTS.index("gums")])).any()
    with pytest.raises(ValueError, match="no part named wig"):
        model.visible_faces(("wig",))
    with pytest.raises(ValueError, match="no expression named wink"):
        model.expression_index("wink")


def test_landmark_points_interpolate():
    table = LandmarkTable(torch.tensor([1, 0]), torch.tensor([[1.0, 0, 0], [0.25, 0.25, 0.5]]), torch.ones(2))
    vertices = torch.tensor([[[0.0, 0, 0], [4, 0, 0], [0, 4, 0], [0, 0, 8]]])
    points = table.points(vertices, torch.tensor([[0, 1, 2], [3, 1, 2]]))
    torch.testing.assert_close(points[0], torch.tensor([[0.0, 0, 8], [1, 2, 0]]))


@pytest.mark.parametrize("content", [b"", b"not a head", None])
def test_wrong_files_are_named(tmp_path, content):
    path = tmp_path / "head.npz"
    if content is None:
        np.savez(path, something=np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="head.npz"):
        head_asset.load_embedded_head(path)
    with pytest.raises(FileNotFoundError, match="missing"):
        head_asset.load_embedded_head(tmp_path / "none.npz")


def test_truncated_file_is_refused(tmp_path):
    path = tmp_path / "head.npz"
    path.write_bytes(head_asset.HEAD.read_bytes()[:400_000])
    with pytest.raises(ValueError, match="head.npz"):
        head_asset.load_embedded_head(path)


def test_splitting_a_target_into_rotation_and_residual(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    import head_motion

    random = np.random.default_rng(0)
    template, target = random.normal(size=(50, 3)), 0.1 * random.normal(size=(1, 50, 3))
    weights = random.dirichlet(np.ones(6), 50)
    weights[:3] = np.eye(6)[3]
    joints = random.normal(size=(6, 3))
    anchors = {"helper-lower-teeth": np.arange(3)}
    residual, turns = head_motion.split_expressions(["jawOpen"], target, template, weights, joints, anchors)
    assert np.abs(residual[0, :3]).max() == 0  # teeth stay rigid
    rotation = to_matrix(torch.from_numpy(turns[0, 3])).numpy()
    moved = template + residual[0]
    rotated = (moved - joints[3]) @ rotation.T + joints[3]
    posed = (1 - weights[:, 3:4]) * moved + weights[:, 3:4] * rotated
    np.testing.assert_allclose(posed[3:], (template + target[0])[3:], atol=1e-12)


def test_a_vertex_of_several_parts_counts_as_the_first(model):
    parts = model.vertex_parts()
    for index, name in enumerate(PARTS):
        mine = part_vertices(model, name)
        assert (parts[mine] <= index).all() and (parts[mine] == index).any()
    assert (parts[part_vertices(model, "skin")] == 0).all()
    # The lips' rim belongs to the skin and to the mouth's inside; what it is must not hang on the threads.
    assert set(part_vertices(model, "skin").tolist()) & set(part_vertices(model, "mouth").tolist())
    assert all(torch.equal(parts, model.vertex_parts()) for _ in range(20))
