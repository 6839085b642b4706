import dataclasses
import math

import pytest
import torch

from expportrait.proxy.frames import Frames
from expportrait.proxy.head_model import PARTS, HeadModel
from expportrait.proxy.head_track import HeadTrack
from expportrait.proxy.lighting import shade
from expportrait.proxy.posing import Stage
from expportrait.proxy.refine import QUALITIES, OutsideMaps, RefineSettings, refine_head, solve_dynamic
from expportrait.proxy.refine.observe import Observer

SIDE, FRAMES = 160, 4
# The painted spots are no skin that changes slowly: relief from shading has tests of its own.
FAST = RefineSettings(levels=(2.0, 1.0), normal_rounds=3, shading_rounds=0, position_frames=0, texture_frames=1, texture_size=64)


@dataclasses.dataclass
class Scene:
    """A painted head that nods, its true relief, and the track of a fit that does not know the relief."""

    frames: Frames
    normals: torch.Tensor  # [T, H, W, 3] encoded
    track: HeadTrack
    relief: torch.Tensor  # [V] metres along the resting normals


def bump(model: HeadModel, points: torch.Tensor, height: float) -> torch.Tensor:
    """A round hill [V] on the forehead, 12 mm wide."""
    face = model.regions["face"] > 0.5
    top = points[face][points[face][:, 1].argmax()]
    centre = top + torch.tensor([0.0, -0.03, 0.0])
    return height * torch.exp(-0.5 * ((points[:, :2] - centre[:2]).norm(dim=1) / 0.012) ** 2) * face


def painted(points: torch.Tensor) -> torch.Tensor:
    """A skin with spots [V, 3], fine enough to be followed."""
    waves = torch.sin(points * 200 + torch.tensor([0.0, 1.0, 2.0])) @ torch.tensor([[1.0, 0.6, 0.2], [0.3, 1.0, 0.5], [0.2, 0.4, 1.0]])
    return (0.5 + 0.12 * waves).clamp(0.05, 1)


@pytest.fixture(scope="module")
def scene(model):
    return make_scene(model)


def make_scene(model: HeadModel, shift: float = 0.0, height: float = 0.003) -> Scene:
    """`shift`: metres by which the skin's paint slides sideways in the second half of the clip."""
    expressions = model.expression_basis.shape[0]
    joints = torch.zeros(FRAMES, 6, 3)
    joints[:, 0, 1] = torch.linspace(-0.25, 0.25, FRAMES)
    expression = torch.zeros(FRAMES, expressions)
    identity = torch.zeros(model.identity_basis.shape[0])
    rest = model.canonical(identity[None], expression[:1])[0]
    translation = (torch.tensor([0.0, 0.0, -0.8]) - rest[model.regions["face"] > 0.5].mean(0)).expand(FRAMES, 3)
    landmarks = torch.zeros(FRAMES, 478, 2)
    track = HeadTrack(
        model_id=model.model_id, identity=identity, expression=expression, joints=joints, translation=translation, focal=2.6 * SIDE,
        width=SIDE, height=SIDE, fps=25.0, valid=torch.ones(FRAMES, dtype=torch.bool), confidence=torch.ones(FRAMES),
        landmarks=landmarks, landmarks_fit=landmarks,
    )  # fmt: skip
    relief = bump(model, rest, height)
    raised = relief[:, None] * model.vertex_normals(rest[None])[0]
    posed = model.forward(identity[None], expression, joints, raised[None]) + translation[:, None]
    shot = Stage(model, track.camera).shot(posed)
    slid = rest[None] + torch.tensor([0.0] * (FRAMES // 2) + [shift] * (FRAMES - FRAMES // 2))[:, None, None] * torch.tensor([1.0, 0, 0])
    light = torch.zeros(9, 3)
    light[0], light[2], light[3] = 0.8, 0.3, 0.15
    normal, place = shot.pixels(shot.normals, slid)
    normal = torch.nn.functional.normalize(normal, dim=-1)
    image = shot.raster.scatter((painted(place) * shade(light, normal)).clamp(0, 1), 0.2)
    return Scene(Frames.from_images(image), shot.raster.scatter((normal + 1) / 2), track, relief)


def skin_relief(model: HeadModel, field: torch.Tensor) -> torch.Tensor:
    rest = model.canonical(torch.zeros(1, model.identity_basis.shape[0]), torch.zeros(1, model.expression_basis.shape[0]))
    return (field * model.vertex_normals(rest)[0]).sum(-1)


def test_outside_normals_raise_the_relief_that_they_show(model, scene):
    refined = refine_head(scene.frames, scene.track, model, FAST, OutsideMaps(scene.normals))
    found = skin_relief(model, refined.fields.static)
    hill = scene.relief > 0.0015
    assert float(found[hill].mean() / scene.relief[hill].mean()) == pytest.approx(1, abs=0.35)
    angles = refined.log["normals"]
    assert all(b < a for a, b in zip(angles, angles[1:]))


def test_the_dynamic_field_has_zero_mean_and_moves_neither_eyes_nor_teeth(model, scene):
    refined = refine_head(scene.frames, scene.track, model, FAST, OutsideMaps(scene.normals))
    assert refined.fields.dynamic.mean(0).abs().max() < 1e-6
    moved = model.faces[(model.parts == PARTS.index("skin")) | (model.parts == PARTS.index("mouth"))]
    other = torch.ones(model.vertex_count, dtype=torch.bool)
    other[moved] = False
    assert refined.fields.static[other].abs().max() == 0 and refined.fields.dynamic[:, other].abs().max() == 0


def test_skin_that_slides_is_followed(model):
    scene = make_scene(model, shift=0.002, height=0.0)
    settings = dataclasses.replace(FAST, levels=(2.0, 1.0, 1.0), shift=0.02)
    refined = refine_head(scene.frames, scene.track, model, settings)
    found = refined.fields.dynamic[:, model.regions["face"] > 0.9, 0]  # paint that came from further left lies further left
    slide = (found[: FRAMES // 2].mean(0) - found[FRAMES // 2 :].mean(0)).median()
    assert float(slide) == pytest.approx(0.002, rel=0.5)
    assert refined.log["photometric"][-1] < 0.7 * refined.log["photometric"][-2]


def test_other_frames_are_registered_to_the_known_person(model):
    scene = make_scene(model, shift=0.002, height=0.0)
    refined = refine_head(scene.frames, scene.track, model, FAST)
    again = solve_dynamic(refined, scene.frames, scene.track, model, FAST)
    assert again.shape == (FRAMES, model.vertex_count, 3)
    first, second = (field[:, model.regions["face"] > 0.9].flatten() for field in (refined.fields.dynamic, again))
    assert torch.corrcoef(torch.stack([first, second]))[0, 1] > 0.8


def test_one_photo_stays_the_plain_fit(model, scene):
    alone = {name: getattr(scene.track, name)[:1] for name in ("expression", "joints", "translation", "valid", "confidence", "landmarks")}
    track = dataclasses.replace(scene.track, landmarks_fit=scene.track.landmarks_fit[:1], **alone)
    with torch.inference_mode():
        refined = refine_head(Frames.from_images(scene.frames.frame(0).permute(1, 2, 0)[None]), track, model, FAST)
    assert refined.fields.static.abs().max() == 0 and refined.proxy.detail_basis.shape[0] == 0


def test_frames_without_a_face_have_no_say(model, scene):
    valid = torch.tensor([True, False, True, True])
    refined = refine_head(scene.frames, dataclasses.replace(scene.track, valid=valid), model, FAST)
    assert refined.fields.dynamic[1].abs().max() == 0


def test_a_refined_proxy_survives_its_file(model, scene, tmp_path):
    refined = refine_head(scene.frames, scene.track, model, FAST, OutsideMaps(scene.normals))
    refined.proxy.save(tmp_path / "p.safetensors")
    loaded = type(refined.proxy).load(tmp_path / "p.safetensors")
    assert torch.allclose(loaded.displacement, refined.proxy.displacement, atol=1e-5)
    assert loaded.detail_id == refined.proxy.detail_id


def test_progress_counts_up_to_its_total(model, scene):
    steps = []
    maps = OutsideMaps(scene.normals)
    refine_head(scene.frames, scene.track, model, FAST, maps, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1] and all(a[0] <= b[0] for a, b in zip(steps, steps[1:]))


def test_bad_input_is_told_in_one_sentence(model, scene):
    short = Frames.from_images(scene.frames.frame(0).permute(1, 2, 0)[None])
    with pytest.raises(ValueError, match="the track has 4 frames of 160 x 160, the images 1 of"):
        refine_head(short, scene.track, model, FAST)
    with pytest.raises(ValueError, match="no frame of the track has a face"):
        refine_head(scene.frames, dataclasses.replace(scene.track, valid=torch.zeros(FRAMES, dtype=torch.bool)), model, FAST)
    large = Frames.from_images(torch.zeros(FRAMES, SIDE, SIDE + 2, 3))
    with pytest.raises(ValueError, match="160 x 160, the images 4 of 162 x 160"):
        refine_head(large, scene.track, model, FAST)
    with pytest.raises(ValueError, match="no quality 'best'"):
        RefineSettings.of("best")
    assert all(RefineSettings.of(quality).levels for quality in QUALITIES)


def test_turns_of_the_skin_carry_normals_to_the_camera(model, scene):
    observer = Observer(model, scene.track)
    view = observer.view(slice(0, FRAMES), torch.zeros(1, len(observer.skin.vertices), 3))
    carried = (view.turns @ observer.skin.normals[..., None])[..., 0]
    assert float((carried * view.normals).sum(-1).mean()) > math.cos(math.radians(2))
