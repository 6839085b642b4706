import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.build import build_proxy
from expportrait.proxy.camera import Camera
from expportrait.proxy.posing import SourcePose, Stage, camera_space, output_camera
from expportrait.proxy.render import MAPS, render_maps
from expportrait.proxy.render_depth import depth_range
from expportrait.proxy.render_lines import IRISES, LINES
from expportrait.proxy.render_regions import REGION_COLOURS
from expportrait.proxy.sheet import contact_sheet

sys.path.insert(0, str(Path(__file__).parent))
from displaced_head import displace  # noqa: E402
from painted_head import make_track, move, paint, skin_paint  # noqa: E402

SIZE = 192


@pytest.fixture(scope="module")
def proxy(model):
    track = make_track(model, SIZE, SIZE)
    return build_proxy(paint(model, track, skin_paint(model)), track, model, texture_size=128, person=torch.ones(SIZE, SIZE))


def render(proxy, motion, model, *maps, **options):
    """All frames of each map, and the number of chunks."""
    chunks = list(render_maps(proxy, motion, model, maps, **options))
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in maps}


def colour_of(name):
    return torch.tensor(REGION_COLOURS[name]) / 255


def has_region(image, name):
    return bool(((image - colour_of(name)).abs().amax(-1) < 1e-3).any())


@pytest.mark.parametrize(("width", "height"), [(512, 512), (384, 640), (640, 384)])
def test_every_map_at_every_size(model, proxy, width, height):
    motion = make_track(model, SIZE, SIZE, yaws=(0.0, 0.3))
    out = render(proxy, motion, model, *MAPS, width=width, height=height, chunk=1)
    assert list(out) == list(MAPS)
    for name, images in out.items():
        assert images.shape == (2, height, width, 1 if name == "mask" else 3)
        assert images.dtype == torch.float32
        assert images.min() >= 0 and images.max() <= 1 and images.max() > 0.5
        assert not images[:, 0, 0].any()  # black where there is no head


def test_chunks_do_not_change_the_result(model, proxy):
    motion = make_track(model, SIZE, SIZE, yaws=(0.0, 0.2, -0.2))
    done = []
    one = render(proxy, motion, model, *MAPS, chunk=1, progress=lambda *at: done.append(at))
    all_at_once = render(proxy, motion, model, *MAPS, chunk=8)
    assert done == [(1, 3), (2, 3), (3, 3)]
    for name in MAPS:
        assert (one[name] - all_at_once[name]).abs().mean() < 1e-4


def test_normals_point_at_the_camera_and_turn_with_the_head(model, proxy):
    motion = make_track(model, SIZE, SIZE, yaws=(0.0, 0.5))
    normals = render(proxy, motion, model, "normals")["normals"] * 2 - 1
    mask = render(proxy, motion, model, "mask")["mask"][..., 0] == 1
    assert abs(normals[mask].norm(dim=-1).mean() - 1) < 0.02
    assert normals[0][mask[0]][:, 2].mean() > 0.6
    vertices = camera_space(model, proxy.identity, motion)
    forehead = model.landmarks.points(vertices, model.faces)[:, 151]
    x, y = proxy.camera.project(forehead).long().unbind(-1)
    at_forehead = normals[torch.arange(2), y, x]
    assert at_forehead[0, 2] > 0.85 and abs(at_forehead[0, 0]) < 0.1
    assert abs(at_forehead[1, 0] - torch.tensor(0.5).sin()) < 0.12  # to the subject's left, the picture's right


def test_directx_turns_the_green_channel_only(model, proxy):
    motion = make_track(model, SIZE, SIZE)
    opengl = render(proxy, motion, model, "normals")["normals"]
    directx = render(proxy, motion, model, "normals", directx=True)["normals"]
    inside = render(proxy, motion, model, "mask")["mask"][..., 0] == 1
    assert torch.allclose(opengl[inside][:, [0, 2]], directx[inside][:, [0, 2]], atol=1e-5)
    assert torch.allclose(opengl[inside][:, 1] + directx[inside][:, 1], torch.ones(int(inside.sum())), atol=0.15)
    assert (opengl[inside][:, 1] + directx[inside][:, 1] - 1).abs().mean() < 0.01


def test_depth_is_nearer_whiter_with_one_range(model, proxy):
    motion = make_track(model, SIZE, SIZE, yaws=(0.0, 0.0))
    nearer = motion.translation + torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.1]])
    motion = dataclasses.replace(motion, translation=nearer)
    depth = render(proxy, motion, model, "depth")["depth"][..., 0]
    low, high = depth_range(proxy, motion, model)
    vertices = camera_space(model, proxy.identity, motion)
    shot = Stage(model, proxy.camera).shot(vertices)
    inverse = proxy.camera.inverse_depth(shot.raster.zw)
    expected = ((inverse - low) / (high - low)).clamp(0, 1)
    core = -torch.nn.functional.max_pool2d(-shot.raster.mask[:, None].float(), 3, 1, 1)[:, 0] == 1
    assert (depth - expected)[core].abs().median() < 1e-3
    assert depth[1].max() > depth[0].max() + 0.1  # the same range for both frames
    assert 0.85 < depth[1].max() <= 1 and depth[core].min() < 0.35
    middle = SIZE // 2
    assert depth[0, middle, middle] > depth[0, middle, middle - 25]  # the nose is nearer than the cheek


def test_mask_is_the_covered_pixels(model, proxy):
    motion = make_track(model, SIZE, SIZE, yaws=(0.0, 0.4))
    mask = render(proxy, motion, model, "mask")["mask"][..., 0]
    shot = Stage(model, proxy.camera).shot(camera_space(model, proxy.identity, motion))
    covered = shot.raster.mask
    assert ((mask > 0.5) == covered).float().mean() > 0.995  # outlines are antialiased
    assert mask[covered].mean() > 0.98 and mask[~covered].mean() < 0.01
    assert ((mask > 0) & (mask < 1)).any()


def test_regions_show_eyes_and_the_inside_of_the_mouth(model, proxy):
    rest = make_track(model, SIZE, SIZE, focal=3 * SIZE)
    images = [
        render(proxy, pose, model, "regions", width=512, height=512)["regions"][0]
        for pose in (rest, move(rest, model, jawOpen=0.8), move(rest, model, eyeBlinkLeft=1.0, eyeBlinkRight=1.0))
    ]
    for name in ("face", "nose", "lips", "brows", "iris", "eyes", "ears", "neck"):
        assert has_region(images[0], name), name
    for name in ("teeth", "tongue"):
        assert has_region(images[1], name), name
    assert not has_region(images[0], "tongue")
    assert not has_region(images[2], "iris")
    palette = torch.tensor([*REGION_COLOURS.values(), (0, 0, 0)]) / 255
    assert torch.cdist(images[0].reshape(-1, 3), palette).amin(1).max() < 1e-3  # labels, not blends


def test_closed_eyes_have_no_iris_in_lines(model, proxy):
    rest = make_track(model, SIZE, SIZE, focal=3 * SIZE)
    colours = torch.tensor([colour for _, colour in IRISES]) / 255

    def irises(pose):
        image = render(proxy, pose, model, "landmarks", width=512, height=512)["landmarks"][0]
        return (torch.cdist(image.reshape(-1, 3), colours).amin(1) < 1e-3).any()

    assert irises(rest)
    assert not irises(move(rest, model, eyeBlinkLeft=1.0, eyeBlinkRight=1.0))


def test_lines_lie_on_the_landmarks_and_not_behind_the_head(model, proxy):
    track = make_track(model, 512, 512)
    image = render(proxy, track, model, "landmarks", width=512, height=512)["landmarks"][0]
    points = track.camera.project(model.landmarks.points(camera_space(model, track.identity, track), model.faces))[0]
    nose = next(line for line, _ in LINES if line[0] == 168)
    for index in nose[1:-1]:
        x, y = points[index].long().tolist()
        assert image[y - 2 : y + 3, x - 2 : x + 3].amax() > 0.5, index
    away = render(proxy, make_track(model, 512, 512, yaws=(3.14159,)), model, "landmarks")["landmarks"]
    grey = (away - away[..., :1]).abs().amax(-1) == 0
    assert grey.all() and (away > 0).float().mean() < 0.004  # corners of the jaw may still be seen


def test_mouth_is_darker_inside_and_the_iris_is_seen(model, proxy):
    wide = move(make_track(model, SIZE, SIZE, focal=3 * SIZE), model, jawOpen=0.8)
    out = render(proxy, wide, model, "shaded", "regions", width=512, height=512)
    grey, regions = out["shaded"][0, ..., 0], out["regions"][0]
    mean = {name: grey[(regions - colour_of(name)).abs().amax(-1) < 1e-3].mean() for name in ("face", "tongue", "iris", "eyes")}
    assert mean["tongue"] < 0.7 * mean["face"]
    assert mean["iris"] < 0.6 * mean["eyes"]


def test_textured_map_shows_the_painted_skin(model, proxy):
    track = make_track(model, SIZE, SIZE)
    painted = paint(model, track, skin_paint(model), background=0.0)
    textured = render(proxy, track, model, "textured")["textured"][0].permute(2, 0, 1)
    cheek = (slice(None), slice(SIZE // 2, SIZE // 2 + 10), slice(SIZE // 2 - 25, SIZE // 2 - 15))
    assert (textured[cheek] - painted[cheek]).abs().mean() < 0.06


def test_same_aspect_keeps_the_framing(model, proxy):
    track = make_track(model, SIZE, SIZE)
    small = render(proxy, track, model, "mask")["mask"]
    large = render(proxy, track, model, "mask", width=2 * SIZE, height=2 * SIZE)["mask"]
    shrunk = torch.nn.functional.avg_pool2d(large.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    assert (shrunk - small).abs().mean() < 0.01


def test_other_aspects_hold_the_whole_source_frame():
    camera = Camera.centred(500, 200, 100)
    corners = torch.tensor([[-0.2, 0.1, -1.0], [0.2, -0.1, -1.0]])  # corners of the source frame at one metre
    for width, height in ((400, 100), (100, 400), (300, 150), (64, 64)):
        pixels = output_camera(camera, width, height).project(corners)
        assert (pixels > -1e-3).all() and (pixels <= torch.tensor([width, height]) + 1e-3).all()
        assert torch.allclose(pixels.mean(0), torch.tensor([width, height]) / 2)
    assert output_camera(camera) == camera
    assert output_camera(camera, height=50).width == 100


@pytest.mark.parametrize("size", [(0, 64), (-5, 64), (8, 8), (64, 9000)])
def test_bad_sizes_are_named(model, proxy, size):
    with pytest.raises(ValueError, match=f"cannot render {size[0]} x {size[1]} pixels"):
        render_maps(proxy, make_track(model, SIZE, SIZE), model, ["mask"], *size)


def test_bad_input_is_named(model, proxy):
    track = make_track(model, SIZE, SIZE)
    with pytest.raises(ValueError, match="there is no map 'edges'"):
        render_maps(proxy, track, model, ["mask", "edges"])
    with pytest.raises(ValueError, match="HeadTrack was made with head model another"):
        render_maps(proxy, dataclasses.replace(track, model_id="another"), model, ["mask"])
    with pytest.raises(ValueError, match="HeadProxy was made with head model another"):
        render_maps(dataclasses.replace(proxy, model_id="another"), track, model, ["mask"])
    with pytest.raises(ValueError, match="displacement of this HeadProxy has 7 vertices"):
        render_maps(dataclasses.replace(proxy, displacement=torch.zeros(7, 3)), track, model, ["mask"])
    with pytest.raises(ValueError, match="no frames"):
        render_maps(proxy, make_track(model, SIZE, SIZE, yaws=()), model, ["mask"])
    with pytest.raises(ValueError, match="no landmark table"):
        next(render_maps(proxy, track, dataclasses.replace(model, landmarks=None), ["landmarks"]))


def test_zero_displacement_changes_no_pixel(model, proxy, generator):
    motion = move(make_track(model, SIZE, SIZE, yaws=(0.0, 0.3)), model, jawOpen=0.4)
    displaced = displace(proxy, model, generator)
    nothing = {name: torch.zeros_like(getattr(displaced, name)) for name in ("displacement", "detail_basis")}
    before, after = (render(who, motion, model, *MAPS) for who in (proxy, dataclasses.replace(displaced, **nothing)))
    assert all(torch.equal(before[name], after[name]) for name in MAPS)


def test_displacement_moves_the_rendered_surface_by_that_much(model, proxy):
    """Moving every vertex is moving the head, while no joint turns: all maps agree, their range of depth included."""
    motion = move(make_track(model, SIZE, SIZE, yaws=(0.0, 0.0)), model, mouthSmileLeft=0.6)
    motion = dataclasses.replace(motion, expression=motion.expression * torch.tensor([[0.0], [1.0]]))
    shift = torch.tensor([0.006, -0.004, 0.03])
    displaced = dataclasses.replace(proxy, displacement=shift.repeat(model.vertex_count, 1))
    moved = dataclasses.replace(motion, translation=motion.translation + shift)
    found, expected = render(displaced, motion, model, *MAPS), render(proxy, moved, model, *MAPS)
    still = render(proxy, motion, model, *MAPS)
    for name in MAPS:
        assert (found[name] - expected[name]).abs().mean() < 2e-4, name
        assert (found[name] - still[name]).abs().mean() > 2e-3, name


def test_wrinkles_come_with_the_expression(model, proxy, generator):
    """A proxy whose detail answers to one expression is its plain self without it."""
    wrinkled = displace(proxy, model, generator, count=1)
    answer = torch.zeros_like(wrinkled.detail_by_expression)
    answer[model.expression_index("browInnerUp")] = 1
    wrinkled = dataclasses.replace(wrinkled, displacement=None, detail_by_expression=answer)
    track = make_track(model, SIZE, SIZE)
    smile, brow = move(track, model, mouthSmileLeft=1.0), move(track, model, browInnerUp=1.0)
    assert torch.equal(*(render(who, smile, model, "normals")["normals"] for who in (proxy, wrinkled)))
    plain, changed = (render(who, brow, model, "normals")["normals"] for who in (proxy, wrinkled))
    assert (plain - changed).abs().mean() > 2e-3


def test_works_in_inference_mode_and_leaves_the_proxy_alone(model, proxy, generator):
    before = {f.name: getattr(proxy, f.name) for f in dataclasses.fields(proxy)}
    copies = {name: value.clone() for name, value in before.items() if isinstance(value, torch.Tensor)}
    with torch.inference_mode():
        out = render(proxy, make_track(model, SIZE, SIZE), model, *MAPS)
        assert set(render(displace(proxy, model, generator), make_track(model, SIZE, SIZE), model, *MAPS)) == set(MAPS)
    assert set(out) == set(MAPS)
    for name, value in copies.items():
        assert torch.equal(getattr(proxy, name), value)


def test_progress_may_cancel(model, proxy):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render(proxy, make_track(model, SIZE, SIZE), model, "mask", progress=stop)


def test_visibility_sees_the_near_side_only(model, proxy):
    stage = Stage(model, output_camera(proxy.camera, 512, 512))
    shot = stage.shot(camera_space(model, proxy.identity, SourcePose.of(proxy)))
    visible = shot.visibility[0]
    points = shot.vertices[0]
    assert visible.min() >= 0 and visible.max() <= 1
    assert visible[model.regions["nose"] > 0.9].median() > 0.9
    back = (model.regions["scalp"] > 0.5) & (points[:, 2] < points[:, 2].mean() - 0.05)
    assert visible[back].max() < 0.05
    assert visible[stage.vertex_parts == 7].max() < 0.05  # the tongue, behind closed lips


def test_contact_sheet_lays_out_rows():
    tall, wide = torch.rand(40, 20, 3), torch.rand(20, 40, 1)
    sheet = contact_sheet([[tall, wide], [wide]], ["a", "b"], height=20)
    assert sheet.shape == (14 + 20 + 4 + 20, 10 + 4 + 40, 3)
    assert torch.allclose(sheet[14:34, 14:54], wide.expand(-1, -1, 3), atol=1e-5)
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([])


def test_large_pictures_are_rendered_in_fewer_frames_at_once(model, proxy):
    assert output_camera(Camera.centred(4000, 4000, 3000)) == Camera.centred(2048, 2048, 1536)
    motion = make_track(model, SIZE, SIZE, yaws=(0.0, 0.1, 0.2))
    chunks = list(render_maps(proxy, motion, model, ["mask"], width=1600, height=1600, chunk=8))
    assert [len(chunk["mask"]) for chunk in chunks] == [1, 1, 1]
