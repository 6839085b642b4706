import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.head_model import load_head_model
from expportrait.proxy.plain_head import plain_head
from expportrait.proxy.posing import Stage, camera_space
from expportrait.proxy.texture import Atlas
from expportrait.transfer.expression_edit import edit_expression, resting_motion
from expportrait.transfer.expression_view import BACKGROUND, ExpressionView
from expportrait.transfer.skin_detail import with_edited_detail

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "proxy")]
from heads import make_proxy, refine  # noqa: E402
from smplx_file import write_smplx_file  # noqa: E402

SIDE = 160
EDITS = [{}, {"smile": 1.0, "headYaw": 12.0}, {"eyeBlink": 1.0, "jawOpen": 0.4}, {"jawOpen": 2.0, "U": -0.5, "gazePitch": 8.0}]


@pytest.fixture(scope="module")
def person(model):
    generator = torch.Generator().manual_seed(3)
    plain = plain_head(model)
    return dataclasses.replace(
        plain,
        identity=0.7 * torch.randn(plain.identity.shape, generator=generator),
        neutral=0.1 * torch.rand(plain.neutral.shape, generator=generator),
    )


@pytest.fixture(scope="module")
def view(model, person):
    return ExpressionView(person, model)


def picture(view, amounts=None, *angles, **options):
    return view.picture(amounts or {}, *angles, side=SIDE, **options).int()


def background():
    return torch.tensor([round(255 * c) for c in BACKGROUND])


def changed(view, amounts, rows):
    """Mean change of the picture's rows, as shares of its height, by an edit."""
    difference = (picture(view, amounts) - picture(view)).abs().float()
    return float(difference[round(rows[0] * SIDE) : round(rows[1] * SIDE)].mean())


@pytest.mark.parametrize("amounts", EDITS)
def test_settled_it_is_what_an_edit_of_the_resting_face_gives(model, person, view, amounts):
    rest = resting_motion(person, 0.04, 25)
    expected = with_edited_detail(edit_expression(rest, amounts, person, model), rest, person, model)
    found = view.motion(amounts)
    assert torch.equal(found.expression, expected.expression)
    assert torch.allclose(found.joints, expected.joints, atol=1e-6)
    assert torch.allclose(camera_space(model, person, found), camera_space(model, person, expected), atol=2e-6)


@pytest.mark.parametrize("amounts", EDITS)
def test_a_refined_head_shows_its_own_detail(model, person, generator, amounts):
    refined = refine(person, model, generator)
    rest = resting_motion(refined, 0.04, 25)
    expected = with_edited_detail(edit_expression(rest, amounts, refined, model), rest, refined, model)
    found = ExpressionView(refined, model).motion(amounts)
    assert torch.allclose(camera_space(model, refined, found), camera_space(model, refined, expected), atol=2e-6)


def test_moving_only_contact_is_left_out(model, person, view):
    for amounts in EDITS:
        moving, settled = (camera_space(model, person, view.motion(amounts, settled)) for settled in (False, True))
        away = (moving - settled).norm(dim=-1)[0]
        near = torch.maximum(model.regions["lips"], model.regions["lids"]) > 0
        assert away.max() < 0.006
        assert away[near].square().sum() > 0.5 * away.square().sum() or away.max() < 1e-6


def test_a_slider_changes_its_own_part_of_the_picture(view):
    upper, lower = (0.2, 0.5), (0.62, 0.9)
    assert changed(view, {"jawOpen": 1.0}, lower) > 8 * changed(view, {"jawOpen": 1.0}, upper)
    assert changed(view, {"browInnerUp": 1.0}, upper) > 8 * changed(view, {"browInnerUp": 1.0}, lower)
    left, right = ((picture(view, {f"eyeBlink{side}": 1.0}) - picture(view)).abs().sum((0, 2)) for side in ("Left", "Right"))
    middle = SIDE // 2
    assert left[middle:].sum() > 20 * left[:middle].sum()  # the person's left is on the right
    assert right[:middle].sum() > 20 * right[middle:].sum()


def test_looking_from_elsewhere_keeps_the_head_in_place(view):
    front = picture(view)
    for angles in ((40.0, 0.0), (-90.0, 0.0), (0.0, 40.0), (180.0, -60.0)):
        turned = picture(view, {}, *angles)
        assert (turned - front).abs().float().mean() > 5
        columns = ((turned - background()).abs().sum(-1) > 30).any(0).nonzero()
        assert 0.3 * SIDE < columns.float().mean() < 0.7 * SIDE


def test_angles_turn_the_same_way_as_those_of_the_head(model, person):
    """Positive yaw takes the nose to the right of the picture, positive pitch down."""
    atlas = Atlas.of(Stage(model, person.camera), 256)
    (nose,) = atlas.pixels(torch.stack([model.regions["nose"], *2 * [torch.zeros_like(model.regions["nose"])]], -1))
    view = ExpressionView(dataclasses.replace(person, albedo=atlas.image(nose)[0]), model)

    def place(amounts, *angles):
        red = picture(view, amounts, *angles)[..., 0].float() - picture(view, amounts, *angles)[..., 1].float()
        rows, columns = (red > 60).nonzero().unbind(1)
        return columns.float().mean(), rows.float().mean()

    x, y = place({})
    assert place({}, 25.0)[0] > x + 5 and place({"headYaw": 25.0})[0] > x + 5
    assert place({}, -25.0)[0] < x - 5 and place({"headYaw": -25.0})[0] < x - 5
    assert place({}, 0.0, 25.0)[1] > y + 5 and place({"headPitch": 25.0})[1] > y + 5
    assert place({}, 0.0, -25.0)[1] < y - 5 and place({"headPitch": -25.0})[1] < y - 5


def test_pictures_are_the_same_each_time_and_in_inference_mode(model, person, view):
    first = picture(view, {"smile": 1.0}, 20.0, 5.0)
    assert torch.equal(first, picture(view, {"smile": 1.0}, 20.0, 5.0))
    with torch.inference_mode():
        again = ExpressionView(person, model)
        assert torch.equal(first, picture(again, {"smile": 1.0}, 20.0, 5.0))
        picture(again, {"smile": 1.0}, settled=False)
    assert torch.equal(first, picture(again, {"smile": 1.0}, 20.0, 5.0))
    assert first.shape == (SIDE, SIDE, 3) and first.float().std() > 10


def test_the_texture_is_what_is_seen(model, person, view):
    blue = person.albedo * torch.tensor([0.2, 0.2, 1.0])[:, None, None]
    other = ExpressionView(dataclasses.replace(person, albedo=blue), model)
    middle = slice(SIDE // 3, 2 * SIDE // 3)
    red, _, blueness = picture(other)[middle, middle].float().mean((0, 1))
    assert blueness > 2 * red
    assert picture(view)[middle, middle, 0].float().mean() > 2 * red


def test_it_works_for_a_head_anywhere_in_its_picture(model, generator):
    view = ExpressionView(make_proxy(model, generator), model)
    shown = picture(view)
    assert ((shown[SIDE // 2 - 20 : SIDE // 2 + 20, SIDE // 2 - 20 : SIDE // 2 + 20] - background()).abs().sum(-1) > 30).all()


def test_a_smplx_head_without_landmarks_is_drawn(tmp_path, generator):
    pytest.importorskip("smplx")
    write_smplx_file(tmp_path / "SMPLX_NEUTRAL.npz")
    smplx = load_head_model(str(tmp_path / "SMPLX_NEUTRAL.npz"))
    head = plain_head(smplx, 64)
    view = ExpressionView(head, smplx)
    rest = resting_motion(head, 0.04, 25)
    edited = edit_expression(rest, {"headYaw": 30.0}, head, smplx)
    expected = camera_space(smplx, head, with_edited_detail(edited, rest, head, smplx))
    assert torch.allclose(camera_space(smplx, head, view.motion({"headYaw": 30.0})), expected, atol=2e-6)
    assert (picture(view, {"headYaw": 30.0}, settled=False) - picture(view)).abs().float().mean() > 0.1


@pytest.mark.parametrize(
    ("amounts", "options", "words"),
    [
        ({"grin": 1.0}, {}, "no expression 'grin'"),
        ({"smile": float("nan")}, {}, "smile is nan"),
        ({"smile": float("inf")}, {}, "smile is inf"),
        ({"jawOpen": 2.5}, {}, "jawOpen is 2.5"),
        ({}, {"yaw": float("nan")}, "yaw is nan"),
        ({}, {"yaw": 181.0}, "yaw is 181"),
        ({}, {"pitch": 75.0}, "pitch is 75"),
        ({}, {"side": 100_000}, "side is 100000"),
        ({}, {"side": 0}, "side is 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(view, amounts, options, words):
    with pytest.raises(ValueError, match=words):
        view.picture(amounts, **options)


def test_another_head_model_is_refused(model, person):
    with pytest.raises(ValueError, match="made with head model other"):
        ExpressionView(dataclasses.replace(person, model_id="other"), model)
