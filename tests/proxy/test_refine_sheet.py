import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.build import build_proxy
from expportrait.proxy.frames import Frames
from expportrait.proxy.refine import Fields, Refined
from expportrait.proxy.refine.sheet import refine_sheet
from expportrait.proxy.sheet import GAP, LABEL

sys.path.insert(0, str(Path(__file__).parent))
from displaced_head import displace  # noqa: E402
from painted_head import make_track, paint, skin_paint  # noqa: E402

YAWS = (0.0, 0.2, 0.4, -0.2, -0.4)
SIDE = 160


@pytest.fixture(scope="module")
def clip(model):
    """Five frames of the painted head, each darker than the one before, their track and a plain proxy."""
    track = make_track(model, SIDE, SIDE, YAWS)
    colours = skin_paint(model)
    shots = [dataclasses.replace(track, joints=track.joints[i : i + 1]) for i in range(len(YAWS))]
    pictures = torch.stack([(1 - 0.1 * i) * paint(model, shot, colours) for i, shot in enumerate(shots)])
    frames = Frames.from_images(pictures.permute(0, 2, 3, 1))
    proxy = build_proxy(pictures[0], track, model, 0, texture_size=64, person=torch.ones(SIDE, SIDE))
    return frames, track, proxy


def refined(proxy, static, dynamic=None) -> Refined:
    """A hand-made refinement: the static field, and one detail field that is strongest in the last frame."""
    proxy = dataclasses.replace(proxy, displacement=static)
    if dynamic is not None:
        proxy = dataclasses.replace(proxy, detail_basis=dynamic[None], detail=torch.linspace(0, 1, len(YAWS))[:, None])
    fields = Fields(static, torch.zeros(len(YAWS), *static.shape))
    return Refined(proxy, fields, colours=torch.zeros(0, 3), log={})


def cells(sheet: torch.Tensor, rows: int) -> torch.Tensor:
    """Cells [rows, 5, h, w, 3] of a sheet [3, H, W]."""
    sheet = sheet.permute(1, 2, 0)[LABEL:]
    height, width = (len(sheet) + GAP) // rows, (sheet.shape[1] + GAP) // 5
    assert (height * rows - GAP, width * 5 - GAP) == sheet.shape[:2]
    rows = [[sheet[r * height :, c * width :][: height - GAP, : width - GAP] for c in range(5)] for r in range(rows)]
    return torch.stack([torch.stack(row) for row in rows])


def outward(model) -> torch.Tensor:
    """Unit normals [V, 3] of the head at rest."""
    points = model.canonical(*(torch.zeros(1, len(basis)) for basis in (model.identity_basis, model.expression_basis)))
    return model.vertex_normals(points)[0]


def test_each_row_shows_its_frame_with_the_head_filling_it(model, clip):
    frames, track, proxy = clip
    sheet = refine_sheet(frames, track, model, refined(proxy, torch.zeros(model.vertex_count, 3)), count=3)
    shown = cells(sheet, 3)
    brightness = shown[:, 0].mean((1, 2, 3))
    assert (brightness.diff() < -0.02).all(), "frames 0, 2 and 4 are darker one by one"
    drawn = shown[:, 2].sum(-1) > 0
    for edge in (drawn.any(2)[:, :2].any(), drawn.any(2)[:, -2:].any(), drawn.any(1)[:, :2].any(), drawn.any(1)[:, -2:].any()):
        assert edge
    level = torch.tensor([0.3, 0.24, 0.18])[:, None, None, None]  # of the grey behind the painted head
    painted = (shown[:, 0] - level).abs().amax(-1) > 0.02
    assert ((painted == drawn).float().mean((1, 2)) > 0.985).all(), "the head lies over its picture"
    assert torch.equal(shown[:, 2], shown[:, 3]), "without a displacement nothing changes"
    assert ((shown[:, 4].amin(-1) > 0.999) == drawn).float().mean() > 0.99, "no displacement is white"


def test_displacement_is_red_outwards_and_blue_inwards_and_saturates_at_three_millimetres(model, clip):
    frames, track, proxy = clip
    for millimetres, expected in ((3, (1, 0, 0)), (1.5, (1, 0.5, 0.5)), (-3, (0, 0, 1)), (-9, (0, 0, 1))):
        shown = cells(refine_sheet(frames, track, model, refined(proxy, outward(model) * millimetres / 1000), count=1), 1)[0]
        drawn = shown[3].sum(-1) > 0
        assert torch.allclose(shown[4][drawn].median(0).values, torch.tensor(expected, dtype=torch.float32), atol=0.06)


def test_the_detail_is_that_of_the_frames_shown(model, clip):
    frames, track, proxy = clip
    static, dynamic = torch.zeros(model.vertex_count, 3), outward(model) * 0.003
    red = cells(refine_sheet(frames, track, model, refined(proxy, static, dynamic), count=3), 3)[:, 4]
    drawn = red[..., 0] > 0.9
    strength = torch.stack([1 - red[i][drawn[i]][:, 1].median() for i in range(3)])  # of frames 0, 2 and 4
    assert torch.allclose(strength, torch.tensor([0, 0.5, 1]), atol=0.06)


def test_refined_normals_and_overlay_follow_the_displacement(model, clip, generator):
    frames, track, proxy = clip
    shown = cells(refine_sheet(frames, track, model, refined(proxy, displace(proxy, model, generator).displacement), count=2), 2)
    drawn = shown[:, 2].sum(-1) > 0
    assert (shown[:, 2] - shown[:, 3])[drawn].abs().mean() > 0.01
    assert (shown[:, 0] - shown[:, 1])[drawn].abs().mean() > 0.05


def test_frames_without_a_face_are_not_shown(model, clip):
    frames, track, proxy = clip
    some = dataclasses.replace(track, valid=torch.tensor([False, True, False, False, True]))
    flat = refined(proxy, torch.zeros(model.vertex_count, 3))
    sheet = refine_sheet(frames, some, model, flat, count=2)
    assert torch.equal(sheet, refine_sheet(frames, some, model, flat, count=4))
    shown = cells(sheet, 2)
    first, last = (photo[normals.sum(-1) > 0].mean() for photo, normals in shown[:, [0, 2]])
    assert last / first == pytest.approx(0.6 / 0.9, abs=0.02), "frames 1 and 4"


def test_cells_of_large_frames_are_384_pixels_high(model):
    track = make_track(model, 700, 700)
    picture = paint(model, track, skin_paint(model))
    proxy = build_proxy(picture, track, model, texture_size=64, person=torch.ones(700, 700))
    proxy = dataclasses.replace(proxy, displacement=torch.zeros(model.vertex_count, 3))
    one = Refined(proxy, Fields(proxy.displacement, proxy.displacement[None]), colours=torch.zeros(0, 3), log={})
    sheet = refine_sheet(Frames.from_images(picture.permute(1, 2, 0)[None]), track, model, one)
    assert sheet.shape[1] == LABEL + 384


def test_what_cannot_be_shown_is_one_sentence(model, clip):
    frames, track, proxy = clip
    flat = refined(proxy, torch.zeros(model.vertex_count, 3))
    with pytest.raises(ValueError, match="give the images that the track was fitted to"):
        refine_sheet(Frames.from_images(torch.zeros(2, SIDE, SIDE, 3)), track, model, flat)
    with pytest.raises(ValueError, match="no frame of the track has a face"):
        refine_sheet(frames, dataclasses.replace(track, valid=torch.zeros(5, dtype=torch.bool)), model, flat)
    with pytest.raises(ValueError, match="at least 1"):
        refine_sheet(frames, track, model, flat, count=0)
    with pytest.raises(ValueError, match="refine it first"):
        refine_sheet(frames, track, model, dataclasses.replace(flat, proxy=proxy))
