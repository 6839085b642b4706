import dataclasses
import io
import json
import math
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from expportrait.proxy.glb import export_glb
from expportrait.proxy.head_model import JOINTS, PARTS, HeadModel
from expportrait.proxy.head_proxy import HeadProxy
from expportrait.proxy.smplx_model import load_smplx
from expportrait.transfer.motion import HeadMotion

from .smplx_file import write_smplx_file

sys.path.insert(0, str(Path(__file__).parent))
from displaced_head import displace  # noqa: E402

TYPES = {5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
FRAMES, FPS = 5, 24.0


class Glb:
    """An independent, strict reader of what the tests need of glTF 2.0."""

    def __init__(self, path):
        content = Path(path).read_bytes()
        magic, version, length = struct.unpack_from("<4sII", content)
        assert (magic, version, length) == (b"glTF", 2, len(content))
        size, kind = struct.unpack_from("<I4s", content, 12)
        assert kind == b"JSON" and size % 4 == 0
        self.document = json.loads(content[20 : 20 + size])
        binary, kind = struct.unpack_from("<I4s", content, 20 + size)
        assert kind == b"BIN\0" and binary % 4 == 0 and 28 + size + binary == length
        self.binary = content[28 + size :]
        assert self.document["buffers"] == [{"byteLength": len(self.binary)}]
        self.mesh = self.document["meshes"][0]
        self.primitive = self.mesh["primitives"][0]
        self.names = self.mesh["extras"]["targetNames"]

    def view(self, index: int) -> bytes:
        view = self.document["bufferViews"][index]
        assert view["byteOffset"] % 4 == 0 and view["byteOffset"] + view["byteLength"] <= len(self.binary)
        return self.binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]

    def array(self, index: int) -> np.ndarray:
        accessor = self.document["accessors"][index]
        width, dtype = WIDTHS[accessor["type"]], TYPES[accessor["componentType"]]
        array = np.zeros((accessor["count"], width), dtype)
        if "bufferView" in accessor:
            stored = np.frombuffer(self.view(accessor["bufferView"]), dtype)
            assert len(stored) == array.size
            array[:] = stored.reshape(-1, width)
        if "sparse" in accessor:
            sparse = accessor["sparse"]
            places = np.frombuffer(self.view(sparse["indices"]["bufferView"]), TYPES[sparse["indices"]["componentType"]])
            assert len(places) == sparse["count"] >= 1 and (np.diff(places.astype(int)) > 0).all() and places[-1] < len(array)
            array[places] = np.frombuffer(self.view(sparse["values"]["bufferView"]), dtype).reshape(-1, width)
        if "min" in accessor:
            assert np.array_equal(array.min(0), np.array(accessor["min"], dtype))
            assert np.array_equal(array.max(0), np.array(accessor["max"], dtype))
        assert np.isfinite(array).all()
        return array

    def attribute(self, name: str) -> np.ndarray:
        return self.array(self.primitive["attributes"][name])

    def targets(self) -> np.ndarray:
        for target in self.primitive["targets"]:
            assert "min" in self.document["accessors"][target["POSITION"]]
        return np.stack([self.array(target["POSITION"]) for target in self.primitive["targets"]])

    def places(self, frame: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Strengths [K] and joint matrices [J, 4, 4] at rest or at a frame of the animation."""
        nodes = [dict(node) for node in self.document["nodes"]]
        strengths = np.array(self.mesh["weights"])
        if frame is not None:
            animation = self.document["animations"][0]
            for channel in animation["channels"]:
                values = self.array(animation["samplers"][channel["sampler"]]["output"]).reshape(FRAMES, -1)[frame]
                if channel["target"]["path"] == "weights":
                    strengths = values
                else:
                    nodes[channel["target"]["node"]][channel["target"]["path"]] = values
        world = {}

        def walk(index: int, parent: np.ndarray):
            x, y, z, w = nodes[index].get("rotation", (0, 0, 0, 1))
            assert abs(x * x + y * y + z * z + w * w - 1) < 1e-5
            local = np.eye(4)
            local[:3, 3] = nodes[index].get("translation", (0, 0, 0))
            local[:3, :3] = [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
            world[index] = parent @ local
            for child in nodes[index].get("children", ()):
                walk(child, world[index])

        for root in self.document["scenes"][0]["nodes"]:
            walk(root, np.eye(4))
        skin = self.document["skins"][0]
        inverse = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        return strengths, np.stack([world[node] for node in skin["joints"]]) @ inverse

    def vertices(self, strengths: np.ndarray, matrices: np.ndarray) -> np.ndarray:
        """Skinned vertices [N, 3]."""
        points = self.attribute("POSITION") + np.tensordot(strengths, self.targets().astype(float), 1)
        blended = np.zeros((len(points), 4, 4))
        group = 0
        while f"JOINTS_{group}" in self.primitive["attributes"]:
            joints, weights = self.attribute(f"JOINTS_{group}"), self.attribute(f"WEIGHTS_{group}")
            assert (joints[weights == 0] == 0).all()
            blended += (matrices[joints] * weights[..., None, None]).sum(1)
            group += 1
        assert np.allclose(blended[:, 3], [0, 0, 0, 1], atol=1e-6)
        return (blended[:, :3, :3] @ points[..., None])[..., 0] + blended[:, :3, 3]


@pytest.fixture(scope="module")
def smplx_head(tmp_path_factory):
    path = tmp_path_factory.mktemp("smplx") / "SMPLX_NEUTRAL.npz"
    write_smplx_file(path)
    head = load_smplx(path)
    path.unlink()
    return head


@pytest.fixture(params=["embedded", "smplx"])
def head(request, model, smplx_head) -> HeadModel:
    return {"embedded": model, "smplx": smplx_head}[request.param]


def make_proxy(model: HeadModel, generator: torch.Generator) -> HeadProxy:
    def draw(*shape, scale=1.0):
        return torch.randn(*shape, generator=generator) * scale

    identity, expression = model.identity_basis.shape[0], model.expression_basis.shape[0]
    return HeadProxy(
        model.model_id, draw(identity, scale=0.5), torch.rand(3, 32, 64, generator=generator), torch.ones(1, 32, 64),
        draw(expression, scale=0.1).abs(), draw(expression, scale=0.1).abs(), draw(6, 3, scale=0.1),
        torch.tensor([0.02, -0.3, -0.9]), 800.0, 480, 640, (100.0, 100.0, 300.0, 300.0),
    )  # fmt: skip


def make_motion(model: HeadModel, generator: torch.Generator) -> HeadMotion:
    expression = torch.rand(FRAMES, model.expression_basis.shape[0], generator=generator)
    joints = torch.randn(FRAMES, 6, 3, generator=generator) * 0.3
    joints[2, 0] = torch.tensor([0.0, math.pi - 0.01, 0.0])  # over half a turn between two frames
    joints[3, 0] = torch.tensor([0.0, math.pi + 0.01, 0.0])
    translation = torch.tensor([0.0, -0.6, -0.9]) + 0.05 * torch.randn(FRAMES, 3, generator=generator)
    return HeadMotion(model.model_id, expression, joints, translation, torch.ones(FRAMES, dtype=torch.bool), FPS)


def sources(glb: Glb, model: HeadModel, proxy: HeadProxy) -> np.ndarray:
    """The model's vertex behind each vertex of the file [N], found by texture coordinate and place."""
    displacement = proxy.displaced(proxy.neutral[None])
    canonical = model.canonical(proxy.identity[None], proxy.neutral[None]) + (0 if displacement is None else displacement)
    canonical = canonical[0].numpy()
    corners = torch.stack([model.faces, model.uv_faces], -1)[model.visible_faces()].reshape(-1, 2).numpy()
    flipped = np.stack([model.uv[:, 0], np.float32(1) - model.uv[:, 1].numpy()], 1)
    keys = np.concatenate([flipped[corners[:, 1]], canonical[corners[:, 0]]], 1)
    owner = {tuple(key): vertex for key, vertex in zip(keys.tolist(), corners[:, 0], strict=True)}
    found = np.concatenate([glb.attribute("TEXCOORD_0"), glb.attribute("POSITION")], 1)
    return np.array([owner[tuple(key)] for key in found.tolist()])


def test_animation_gives_the_models_vertices(tmp_path, head, generator):
    proxy, motion = make_proxy(head, generator), make_motion(head, generator)
    export_glb(tmp_path / "head.glb", proxy, head, motion)
    glb = Glb(tmp_path / "head.glb")
    (tmp_path / "head.glb").unlink()
    source = sources(glb, head, proxy)
    wanted = head.forward(proxy.identity[None], motion.expression, motion.joints) + motion.translation[:, None]
    for frame in range(FRAMES):
        found = glb.vertices(*glb.places(frame))
        assert np.abs(found - wanted[frame].numpy()[source]).max() < 1e-4
    animation = glb.document["animations"][0]
    for sampler in animation["samplers"]:
        np.testing.assert_allclose(glb.array(sampler["input"])[:, 0], np.arange(FRAMES) / FPS, rtol=1e-6)
    for channel in animation["channels"]:
        if channel["target"]["path"] == "rotation":
            turns = glb.array(animation["samplers"][channel["sampler"]]["output"])
            assert ((turns[1:] * turns[:-1]).sum(1) >= 0).all()
    # At rest: the neutral, standing where the person stands in the source picture.
    neutral = head.forward(proxy.identity[None], proxy.neutral[None], torch.zeros(1, 6, 3))[0] + proxy.source_translation
    assert np.abs(glb.vertices(*glb.places()) - neutral.numpy()[source]).max() < 1e-5


def test_a_displaced_head_is_exported_with_its_detail(tmp_path, head, generator):
    """Mesh, each target alone, and animation are those of the displaced head."""
    proxy, motion = displace(make_proxy(head, generator), head, generator), make_motion(head, generator)
    export_glb(tmp_path / "head.glb", proxy, head, motion)
    glb = Glb(tmp_path / "head.glb")
    (tmp_path / "head.glb").unlink()
    source = sources(glb, head, proxy)

    def error(expression, joints, translation, found):
        expression, joints = expression[None], joints[None]
        wanted = head.forward(proxy.identity[None], expression, joints, proxy.displaced(expression))[0] + translation
        return np.abs(found - wanted.numpy()[source]).max()

    for frame in range(FRAMES):
        found = glb.vertices(*glb.places(frame))
        assert error(motion.expression[frame], motion.joints[frame], motion.translation[frame], found) < 1e-4
    rest, matrices = glb.places()
    at_rest = torch.zeros(6, 3)
    assert error(proxy.neutral, at_rest, proxy.source_translation, glb.vertices(rest, matrices)) < 1e-5
    for place in {0, 24, head.expression_names.index("jawOpen") if "jawOpen" in head.expression_names else 1}:
        expression = proxy.neutral.clone()
        expression[place] += 1
        found = glb.vertices(rest + (np.arange(len(rest)) == place), matrices)
        assert error(expression, at_rest, proxy.source_translation, found) < 5e-5, place


@pytest.mark.parametrize("refined, own_fields", ((True, True), (True, False), (False, True)))
def test_a_motions_detail_is_in_its_animation(tmp_path, head, generator, refined, own_fields):
    """With fields of its own on any head, or with coefficients on those of a refined one."""
    proxy, motion = make_proxy(head, generator), make_motion(head, generator)
    proxy = displace(proxy, head, generator) if refined else proxy
    count = 3 if own_fields else 4
    basis = 2e-3 * torch.randn(count, head.vertex_count, 3, generator=generator) if own_fields else None
    detail = torch.randn(FRAMES, count, generator=generator)
    motion = dataclasses.replace(motion, detail=detail, detail_id=proxy.detail_id, detail_basis=basis)
    export_glb(tmp_path / "head.glb", proxy, head, motion)
    glb = Glb(tmp_path / "head.glb")
    (tmp_path / "head.glb").unlink()
    source = sources(glb, head, proxy)
    displacement = proxy.displaced(motion.expression, detail, basis)
    wanted = head.forward(proxy.identity[None], motion.expression, motion.joints, displacement) + motion.translation[:, None]
    for frame in range(FRAMES):
        assert np.abs(glb.vertices(*glb.places(frame)) - wanted[frame].numpy()[source]).max() < 1e-4


def test_displacement_of_zeros_leaves_the_file_as_it_is(tmp_path, model, generator):
    plain = make_proxy(model, generator)
    displaced = displace(plain, model, generator)
    nothing = {name: torch.zeros_like(getattr(displaced, name)) for name in ("displacement", "detail_basis")}
    export_glb(tmp_path / "plain.glb", plain, model)
    export_glb(tmp_path / "zero.glb", dataclasses.replace(displaced, **nothing), model)
    assert (tmp_path / "plain.glb").read_bytes() == (tmp_path / "zero.glb").read_bytes()


def test_mesh_is_valid(tmp_path, model, generator):
    proxy = make_proxy(model, generator)
    export_glb(tmp_path / "head.glb", proxy, model)
    assert os.listdir(tmp_path) == ["head.glb"] and (tmp_path / "head.glb").stat().st_size < 12e6
    glb = Glb(tmp_path / "head.glb")
    document, count = glb.document, len(glb.attribute("POSITION"))
    assert document["asset"]["version"] == "2.0" and "animations" not in document
    indices = glb.array(glb.primitive["indices"])[:, 0].reshape(-1, 3)
    assert indices.max() == count - 1 and len(np.unique(indices)) == count
    assert all(len(glb.array(k)) == count for k in glb.primitive["attributes"].values())
    np.testing.assert_allclose(np.linalg.norm(glb.attribute("NORMAL"), axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(sum(glb.attribute(f"WEIGHTS_{k}").sum(1) for k in range(1)), 1, atol=1e-6)
    # The triangles are the model's, in order, without the transparent eye layer.
    source = sources(glb, model, proxy)
    shown = model.parts != PARTS.index("cornea")
    assert np.array_equal(source[indices], model.faces[shown].numpy()) and shown.sum() < len(model.faces)
    assert [document["nodes"][k]["name"] for k in document["skins"][0]["joints"]] == list(JOINTS)
    picture = Image.open(io.BytesIO(glb.view(document["images"][0]["bufferView"])))
    albedo = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(albedo, proxy.albedo, atol=0.5 / 255 + 1e-6, rtol=0)
    view = document["cameras"][0]["perspective"]
    assert view["yfov"] == pytest.approx(2 * math.atan(320 / 800)) and view["aspectRatio"] == pytest.approx(0.75)


def test_morph_target_alone_gives_the_expression(tmp_path, model, generator):
    """A viewer that moves one target sees the whole expression, turned jaw and eyes included."""
    proxy = make_proxy(model, generator)
    export_glb(tmp_path / "head.glb", proxy, model)
    glb = Glb(tmp_path / "head.glb")
    assert glb.names == list(model.expression_names) and len(glb.primitive["targets"]) == len(glb.names)
    source = sources(glb, model, proxy)
    rest, matrices = glb.places()

    def error(name: str, strength: float) -> float:
        expression = proxy.neutral.clone()
        expression[model.expression_index(name)] += strength
        wanted = model.forward(proxy.identity[None], expression[None], torch.zeros(1, 6, 3))[0] + proxy.source_translation
        found = glb.vertices(rest + strength * (np.array(glb.names) == name), matrices)
        return np.abs(found - wanted.numpy()[source]).max()

    for name in ("jawOpen", "eyeLookOutLeft", "mouthSmileLeft", "tongueOut"):
        assert error(name, 1.0) < 5e-5, name
    assert error("mouthSmileLeft", 0.5) < 5e-5
    assert 1e-4 < error("jawOpen", 0.5) < 3e-3  # a straight line instead of an arc


def test_foreign_parts(tmp_path, model, generator):
    proxy, motion = make_proxy(model, generator), make_motion(model, generator)
    for foreign in (
        (dataclasses.replace(proxy, model_id="smplx-neutral-12345678"), model, motion),
        (proxy, model, dataclasses.replace(motion, model_id="smplx-neutral-12345678")),
    ):
        with pytest.raises(ValueError, match="made with head model smplx-neutral-12345678"):
            export_glb(tmp_path / "head.glb", *foreign)
    with pytest.raises(ValueError, match="displacement of this HeadProxy has 7 vertices"):
        export_glb(tmp_path / "head.glb", dataclasses.replace(proxy, displacement=torch.zeros(7, 3)), model)
    assert os.listdir(tmp_path) == []


def test_one_frame_in_inference_mode(tmp_path, model, generator):
    with torch.inference_mode():
        proxy, motion = make_proxy(model, generator), make_motion(model, generator)
        first = {name: getattr(motion, name)[:1] for name in ("expression", "joints", "translation", "valid")}
        export_glb(tmp_path / "head.glb", proxy, model, dataclasses.replace(motion, **first))
    assert len(Glb(tmp_path / "head.glb").document["animations"][0]["channels"]) == 13
