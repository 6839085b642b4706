import dataclasses
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import smplx
import torch

from expportrait.proxy import calibrated_head
from expportrait.proxy.calibrate import landmarks_path
from expportrait.proxy.head_model import JOINTS, PARTS, REGIONS, LandmarkTable, load_head_model
from expportrait.proxy.smplx_archive import open_with_smplx, read_smplx_arrays
from expportrait.proxy.smplx_model import landmarks_beside, load_smplx

from .smplx_file import EYE_RADIUS, LEFT_EYE, smplx_arrays, write_smplx_file


@pytest.fixture(scope="module")
def body_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("smplx") / "SMPLX_NEUTRAL.npz"
    write_smplx_file(path)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def head(body_file):
    return load_smplx(body_file)


@pytest.fixture(scope="module")
def body(body_file):
    """The real package's own model of the file, for batches of three."""
    options = dict(num_betas=300, num_expression_coeffs=100, use_pca=False, flat_hand_mean=True, batch_size=3)
    return smplx.create(str(body_file), ext="npz", **options)


def original_vertices(head, body) -> tuple[int, torch.Tensor]:
    """How many control vertices are unchanged ones of the file, which come first, and their indices there."""
    index = {tuple(point): k for k, point in enumerate(body.v_template.tolist())}
    found = [index.get(tuple(point), -1) for point in head.template.tolist()]
    count = found.index(-1)
    assert max(found[count:]) == -1
    return count, torch.tensor(found[:count])


def small_arrays() -> dict[str, np.ndarray]:
    """The least that has the form of an SMPL-X file: one triangle."""
    arrays = {
        "v_template": np.eye(3),
        "f": np.array([[0, 1, 2]]),
        "shapedirs": np.zeros((3, 3, 400)),
        "posedirs": np.zeros((3, 3, 486)),
        "J_regressor": np.zeros((55, 3)),
        "weights": np.zeros((3, 55)),
        "lmk_faces_idx": np.zeros(2, int),
        "lmk_bary_coords": np.zeros((2, 3)),
        "hands_componentsl": np.eye(45),
        "hands_componentsr": np.eye(45),
        "hands_meanl": np.zeros(45),
        "hands_meanr": np.zeros(45),
    }
    return arrays | {"kintree_table": np.stack([np.arange(-1, 54) % 2**32, np.arange(55)]).astype(np.uint32)}


def test_agrees_with_the_package(head, body, generator):
    def draw(*shape, scale=1.0):
        return torch.randn(*shape, generator=generator) * scale

    betas, expression, translation = draw(3, 300), draw(3, 100), draw(3, 3)
    joints = draw(3, 6, 3, scale=0.4)
    joints[:, 0] = 0
    body_pose = torch.zeros(3, 21, 3)
    body_pose[:, 11], body_pose[:, 14] = joints[:, 1], joints[:, 2]
    with torch.no_grad():
        wanted = body(
            betas=betas, expression=expression, global_orient=torch.zeros(3, 3), body_pose=body_pose.flatten(1),
            transl=translation, jaw_pose=joints[:, 3], leye_pose=joints[:, 4], reye_pose=joints[:, 5],
        )  # fmt: skip
    found = head.forward(betas, expression, joints) + translation[:, None]
    count, index = original_vertices(head, body)
    assert count > 5000
    torch.testing.assert_close(found[:, :count], wanted.vertices[:, index], atol=1e-5, rtol=0)
    transforms, rest = head.joint_transforms(betas, expression, joints), head.joint_positions(betas, expression)
    posed = (transforms[..., :3, :3] @ rest[..., None])[..., 0] + transforms[..., :3, 3] + translation[:, None]
    torch.testing.assert_close(posed, wanted.joints[:, [9, 12, 15, 22, 23, 24]], atol=1e-5, rtol=0)
    # The test would see a lost corrective or a lost dependence of the joints on the coefficients.
    plain = dataclasses.replace(head, pose_basis=torch.zeros_like(head.pose_basis))
    assert (plain.forward(betas, expression, joints) + translation[:, None] - found).abs().max() > 1e-3
    assert head.joint_expression.abs().max() > 1e-4 and head.joint_identity.abs().max() > 1e-4


def test_cut_keeps_head_and_shoulders(head, body):
    full = body.v_template
    _, index = original_vertices(head, body)
    eyeballs = torch.arange(len(full) - 2 * 546, len(full))
    assert torch.isin(eyeballs, index).all()
    assert torch.isin((full[:, 1] > 0.2).nonzero()[:, 0], index).all()
    assert head.template[:, 0].abs().max() < 0.17 and head.template[:, 1].min() > 0
    # Nothing but the rim has an open edge, and the rim lies on one smooth curve seen from the front.
    edges = head.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).sort(1).values
    unique, count = edges.unique(dim=0, return_counts=True)
    assert count.max() == 2
    vertices = head.canonical(torch.zeros(1, 300), torch.zeros(1, 100))[0]
    neck, chest = head.joint_template[1], head.joint_template[0]
    rim = vertices[unique[count == 1].unique()]
    half_width = body.J_regressor[16] @ full[:, 0]
    ellipse = (rim[:, 0] / half_width) ** 2 + ((neck[1] - rim[:, 1]) / (0.85 * (neck[1] - chest[1]))) ** 2
    assert (ellipse - 1).abs().max() < 0.03


def test_model_is_complete(head):
    control, dense = len(head.template), head.vertex_count
    assert head.model_id.startswith("smplx-neutral-") and len(head.model_id) == len("smplx-neutral-") + 8
    assert (len(head.identity_names), len(head.expression_names)) == (300, 100)
    assert head.expression_names[7] == "expression_007"
    assert head.identity_basis.shape == (300, control, 3) and head.expression_basis.shape == (100, control, 3)
    assert head.pose_basis.shape == (45, control, 3) and head.weights.shape == (dense, len(JOINTS))
    torch.testing.assert_close(head.weights.sum(1), torch.ones(dense))
    rows, columns = head.stencil.indices()
    old = rows < control
    assert torch.equal(rows[old], columns[old]) and (head.stencil.values()[old] == 1).all() and old.sum() == control
    assert (head.stencil.values()[~old] == 0.5).all()
    torch.testing.assert_close(torch.sparse.sum(head.stencil, 1).to_dense(), torch.ones(dense))
    assert 0 <= head.faces.min() and head.faces.max() == dense - 1
    assert head.landmarks is None and not head.expression_joints.any()
    eyes = [(head.parts == PARTS.index(name)).sum() for name in ("left_eye", "right_eye")]
    assert eyes[0] == eyes[1] == 4 * 2 * 544
    left = head.faces[head.parts == PARTS.index("left_eye")].unique()
    vertices = head.canonical(torch.zeros(1, 300), torch.zeros(1, 100))[0]
    distance = (vertices[left] - torch.from_numpy(LEFT_EYE).float()).norm(dim=1)
    assert 0.9 * EYE_RADIUS < distance.min() and distance.max() < 1.001 * EYE_RADIUS


def test_regions_lie_where_they_should(head):
    vertices = head.canonical(torch.zeros(1, 300), torch.zeros(1, 100))[0]
    assert set(head.regions) == set(REGIONS)
    assert all(mask.shape == (head.vertex_count,) and 0 <= mask.min() and mask.max() <= 1 for mask in head.regions.values())
    eyes = head.joint_template[4:].mean(0)
    centre = {n: (vertices * m[:, None]).sum(0) / m.sum() - eyes for n, m in head.regions.items() if m.any()}
    for name in ("face", "lips", "lids", "brows", "nose", "scalp", "neck", "shoulders"):
        assert head.regions[name].sum() > 30 and abs(centre[name][0]) < 2e-3, name
    heights = [centre[name][1] for name in ("scalp", "brows", "lids", "nose", "lips", "neck", "shoulders")]
    assert heights == sorted(heights, reverse=True)
    assert centre["nose"][2] > centre["face"][2] > centre["scalp"][2]
    in_eyes = torch.zeros(head.vertex_count)
    in_eyes[head.faces[head.parts > 0]] = 1
    assert torch.equal(head.regions["eyes"], in_eyes)
    assert (head.regions["face"] * head.regions["scalp"]).max() < 0.3
    pupil = head.albedo[(vertices - torch.from_numpy(LEFT_EYE + [0, 0, EYE_RADIUS]).float()).norm(dim=1).argmin()]
    assert pupil.max() < 0.1 and head.albedo.min() >= 0 and head.albedo.max() <= 1


def check_texture(head):
    """Each corner of the texture belongs to one vertex, no triangle is torn over the seam, all lies in the unit square."""
    owner = torch.full((len(head.uv),), -1)
    owner[head.uv_faces.flatten()] = head.faces.flatten()
    assert torch.equal(owner[head.uv_faces], head.faces)
    assert head.uv.min() >= 0 and head.uv.max() <= 1 and len(head.uv_faces) == len(head.faces)
    corners = head.uv[head.uv_faces]
    spread = (corners.amax(1) - corners.amin(1)).amax(1)
    vertices = head.canonical(torch.zeros(1, 300), torch.zeros(1, 100))[0]
    below_crown = vertices[head.faces][:, :, 1].amax(1) < 0.44
    assert spread[below_crown].max() < 0.1  # the crown is a pole of the unwrap


def test_unwrap_of_a_file_without_texture_coordinates(head):
    check_texture(head)


def test_file_with_texture_coordinates_and_more_vertices(tmp_path, head):
    arrays = smplx_arrays(seed=1, uv=True)
    for name in ("v_template", "shapedirs", "posedirs", "weights"):
        arrays[name] = np.concatenate([arrays[name], arrays[name][:50]])
    arrays["J_regressor"] = np.concatenate([arrays["J_regressor"], np.zeros((55, 50))], 1)
    np.savez(tmp_path / "SMPLX_FEMALE.npz", **arrays)
    other = load_smplx(tmp_path / "SMPLX_FEMALE.npz")
    (tmp_path / "SMPLX_FEMALE.npz").unlink()
    assert other.model_id.startswith("smplx-female-") and other.model_id[-8:] != head.model_id[-8:]
    assert other.vertex_count == head.vertex_count and torch.equal(other.faces, head.faces)
    check_texture(other)
    u = other.uv[other.uv_faces[other.parts == PARTS.index("left_eye")]][..., 0]
    assert 0.6 - 1e-5 <= u.min() and u.max() <= 0.8 + 1e-5  # in the file, each piece has its own fifth


def test_first_loaded_in_inference_mode(body_file):
    with torch.inference_mode():
        head = load_head_model(str(body_file))
        posed = head.forward(torch.zeros(1, 300), torch.zeros(1, 100), torch.zeros(1, 6, 3))
    identity = torch.zeros(1, 300, requires_grad=True)
    joints = torch.zeros(1, 6, 3, requires_grad=True)
    again = head.forward(identity, torch.zeros(1, 100), joints)
    again.square().sum().backward()
    assert torch.equal(again.detach(), posed) and identity.grad.abs().sum() > 0 and joints.grad.abs().sum() > 0


def test_landmark_table_beside_the_file(tmp_path, head, body_file, monkeypatch):
    path = str(tmp_path / "SMPLX_MALE.npz")
    Path(path).hardlink_to(body_file)
    model_id = head.model_id.replace("neutral", "male")  # the same content under another name
    table = LandmarkTable(torch.arange(478) * 3, torch.full((478, 3), 1 / 3), torch.linspace(0, 1, 478))
    made = []

    def calibrate(model, landmarker, renders, progress):
        made.append((model.model_id, renders))
        return table

    # A real calibration takes minutes (tests of its own); here it is about where its result goes.
    monkeypatch.setattr(calibrated_head, "calibrate_landmarks", calibrate)
    first = calibrated_head.load_calibrated_head(path, None, renders=3)
    second = calibrated_head.load_calibrated_head(path, None)
    assert made == [(model_id, 3)] and sorted(os.listdir(tmp_path)) == [Path(path).name, landmarks_path(path).name]
    for model in (first, second, load_head_model(path)):
        for name in ("triangle", "barycentric", "weight"):
            assert torch.equal(getattr(model.landmarks, name), getattr(table, name))
    assert landmarks_beside(path, head) is None  # made for another model
    landmarks_path(path).write_text("no table")
    with pytest.raises(ValueError, match="landmarks.npz is no readable landmark table; delete it"):
        landmarks_beside(path, head)


def check_sentence(error, path, *words):
    message = str(error.value)
    assert "\n" not in message and message.count("; ") == 1
    for word in (str(path), "SMPL-X project page", "non-commercial research", *words):
        assert word in message


def test_missing_file(tmp_path):
    for path in (tmp_path / "SMPLX_NEUTRAL.npz", tmp_path):
        with pytest.raises(FileNotFoundError) as error:
            load_smplx(path)
        check_sentence(error, path, "does not exist")


def test_file_that_is_no_archive(tmp_path):
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    np.savez(path, **small_arrays())
    read_smplx_arrays(path)
    content = path.read_bytes()
    for broken in (b"", b"This is a letter.", content[:100], content[: len(content) // 2], content[:-10]):
        path.write_bytes(broken)
        with pytest.raises(ValueError) as error:
            load_smplx(path)
        check_sentence(error, path, "is damaged or no npz file")


def test_file_with_flipped_bytes(tmp_path):
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    for save in (np.savez, np.savez_compressed):
        save(path, **small_arrays())
        content = bytearray(path.read_bytes())
        at = content.index(b"shapedirs.npy") + 200
        content[at : at + 8] = bytes(255 - value for value in content[at : at + 8])
        path.write_bytes(content)
        with pytest.raises(ValueError) as error:
            load_smplx(path)
        check_sentence(error, path, "damaged")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"hands_meanl": None}, "lacks the array hands_meanl"),
        ({"posedirs": None, "shapedirs": None}, "lacks the array shapedirs"),
        ({"shapedirs": np.zeros((3, 3, 20))}, "has 20 shape and expression columns where 400 are needed"),
        ({"kintree_table": np.zeros((2, 24)), "J_regressor": np.zeros((24, 3))}, "J_regressor has the shape [24, 3]"),
        ({"posedirs": np.zeros((3, 3, 36))}, "posedirs has the shape [3, 3, 36]"),
        ({"weights": np.zeros((4, 55))}, "weights has the shape [4, 55]"),
        ({"v_template": np.full((3, 3), np.nan)}, "v_template holds values that are no finite numbers"),
        ({"f": np.array([[0, 1, 3]])}, "f points outside of the mesh"),
        ({"f": np.array([[0, 1, -1]])}, "f points outside of the mesh"),
        ({"vt": np.zeros((2, 2)), "ft": np.array([[0, 1, 2]])}, "ft points outside of the mesh"),
        ({"kintree_table": np.full((2, 55), 60)}, "kintree_table is no tree"),
        ({"v_template": np.full((3, 3), "x")}, "no readable numbers under v_template"),
        ({"J_regressor": np.array([None])}, "no readable numbers under J_regressor"),
    ],
)
def test_wrong_kind_of_file(tmp_path, changes, words):
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    np.savez(path, **{name: array for name, array in (small_arrays() | changes).items() if array is not None})
    with pytest.raises(ValueError) as error:
        load_smplx(path)
    check_sentence(error, path, words)


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_pickled_objects_are_never_opened(tmp_path):
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    attack = np.array([Attack(tmp_path / "made")])
    np.savez(path, **small_arrays(), joint2num=attack)  # the real files hold such an array, harmless but of no use here
    opened = open_with_smplx(read_smplx_arrays(path))
    assert opened.num_betas == 300 and opened.num_expression_coeffs == 100
    np.savez(path, **small_arrays() | {"weights": attack})
    with pytest.raises(ValueError, match="no readable numbers under weights"):
        load_smplx(path)
    assert os.listdir(tmp_path) == ["SMPLX_NEUTRAL.npz"]


def test_package_not_installed(tmp_path, monkeypatch):
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **small_arrays())
    monkeypatch.setitem(sys.modules, "smplx", None)
    with pytest.raises(ImportError, match="pip install smplx.*non-commercial research only"):
        load_smplx(tmp_path / "SMPLX_NEUTRAL.npz")
