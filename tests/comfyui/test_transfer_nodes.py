"""Transfer, edits and motion tools as a user's graph puts them together."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.head_model import JOINTS
from expportrait.transfer.arkit_bridge import ARKIT_NAMES
from expportrait.transfer.arkit_files import read_arkit
from expportrait.transfer.motion import HeadMotion

sys.path.insert(0, str(Path(__file__).parent))
from graphs import node, one_sentence, portrait  # noqa: E402

NECK, HEAD, JAW = (JOINTS.index(name) for name in ("neck", "head", "jaw"))
TURNING, ACTING = 12, 4  # frames of the two performers


@pytest.fixture
def person(media) -> dict:
    return portrait(media)


@pytest.fixture
def performers(media) -> dict:
    """Two fitted pieces of the clip, unlike in length and frame rate: `turning` and `acting`."""
    graph = {"video": node("LoadVideo", file=media.clip), "parts": node("GetVideoComponents", video=["video", 0])}
    for name, start, count, fps in (("turning", 0, TURNING, 30.0), ("acting", TURNING, ACTING, 15.0)):
        graph[f"{name}_frames"] = node("ImageFromBatch", image=["parts", 0], batch_index=start, length=count)
        graph[name] = node("ExpPortraitFit", images=[f"{name}_frames", 0], fps=fps)
    return graph


def run_motions(comfyui, graph: dict, *names: str) -> list[HeadMotion]:
    """Motions that the named nodes of a graph give."""
    saving = {f"save_{name}": node("ExpPortraitSaveMotion", head_motion=[name, 0], filename_prefix="transferred/motion") for name in names}
    outputs = comfyui.run(graph | saving)
    return [HeadMotion.load(comfyui.base / "output" / outputs[f"save_{name}"]["text"][0]) for name in names]


def fails(comfyui, graph: dict, name: str, *words: str) -> None:
    """Saving what node `name` gives fails in that node, with one sentence that has these words."""
    saving = {"never": node("ExpPortraitSaveMotion", head_motion=[name, 0], filename_prefix="never")}
    error = comfyui.failure(graph | saving)
    assert error["node_id"] == name, error
    one_sentence(error, *words)


def transfer(**inputs) -> dict:
    return node("ExpPortraitTransfer", head_proxy=["build", 0], **inputs)


def test_expression_of_another_driver(comfyui, person, performers):
    graph = person | performers | {
        "both": transfer(driver=["turning", 0], other_driver=["acting", 0], expression_from="other driver"),
        "turned": transfer(driver=["turning", 0], expression_from="source"),
        "acted": transfer(driver=["acting", 0], pose_from="source"),
        "preview": node("ExpPortraitPreview", source_image=["build", 1], head_proxy=["build", 0], head_motion=["both", 0], width=128),
        "show": node("PreviewImage", images=["preview", 0]),
    }  # fmt: skip
    both, turned, acted = run_motions(comfyui, graph, "both", "turned", "acted")
    assert len(both) == TURNING and both.fps == 30 and len(acted) == ACTING and acted.fps == 15
    torch.testing.assert_close(both.joints[:, [NECK, HEAD]], turned.joints[:, [NECK, HEAD]])
    torch.testing.assert_close(both.translation, turned.translation)
    last = 2 * (ACTING - 1)
    torch.testing.assert_close(both.expression[: last + 1 : 2], acted.expression, atol=1e-4, rtol=0)
    torch.testing.assert_close(both.expression[last:], acted.expression[-1:].expand(TURNING - last, -1), atol=1e-4, rtol=0)
    assert (acted.expression - acted.expression[0]).abs().max() > 0.05, "the performer does not act"
    assert both.detail_basis is not None and len(both.detail) == TURNING


def test_other_driver_has_to_be_there_and_a_neutral_frame_too(comfyui, person, performers):
    graph = person | performers
    fails(comfyui, graph | {"t": transfer(driver=["turning", 0], expression_from="other driver")}, "t", "other driver")
    fails(comfyui, graph | {"t": transfer(driver=["turning", 0], neutral_frame=TURNING)}, "t", "neutral_frame", f"0 to {TURNING - 1}")


def test_wrinkles_of_a_refined_performer(comfyui, person, performers):
    refine = node("ExpPortraitRefine", images=["acting_frames", 0], head_track=["acting", 0], quality="draft", detail=1.0)
    graph = person | performers | {"refine": refine}
    for name, detail in (("predicted", 0.0), ("half", 0.5), ("performed", 1.0)):
        graph[name] = transfer(driver=["acting", 0], performer=["refine", 0], detail=detail, contact=False)
    graph["unrefined"] = transfer(driver=["acting", 0], contact=False)
    moved = run_motions(comfyui, graph, "predicted", "half", "performed", "unrefined")
    predicted, half, performed, unrefined = (torch.einsum("tk,kvx->tvx", m.detail, m.detail_basis) for m in moved)
    for motion in moved[1:]:
        torch.testing.assert_close(motion.expression, moved[0].expression)
    torch.testing.assert_close(half, (predicted + performed) / 2, atol=2e-5, rtol=0)
    torch.testing.assert_close(unrefined, predicted, atol=2e-5, rtol=0)
    assert 2e-4 < (performed - predicted).norm(dim=-1).max() < 0.02


def test_gains_hold_regions_and_axes_still(comfyui, person, model):
    graph = person | {
        "gains": node("ExpPortraitTransferGains", mouth=0.0, jaw=0.0, brows=0.5, yaw=0.0, pitch=0.0, roll=0.0),
        "held": transfer(preset="expressions", gains=["gains", 0], contact=False),
        "free": transfer(preset="expressions", contact=False),
        "resting": node("ExpPortraitEditExpression", head_proxy=["build", 0], seconds=0.04),
    }
    held, free, resting = run_motions(comfyui, graph, "held", "free", "resting")
    neutral = resting.expression[0]
    mouth, brows = ([k for k, name in enumerate(model.expression_names) if name.startswith(part)] for part in ("mouth", "brow"))
    turning = [NECK, HEAD]
    for still, moving in ((held.expression[:, mouth], free.expression[:, mouth]), (held.joints[:, turning], free.joints[:, turning])):
        torch.testing.assert_close(still, still[:1].expand_as(still), atol=1e-5, rtol=0)
        assert (moving - moving[:1]).abs().max() > 0.05
    torch.testing.assert_close(held.joints[:, JAW], held.joints[:1, JAW].expand(len(held), -1), atol=1e-5, rtol=0)
    high, low = model.expression_bounds[brows, 1], model.expression_bounds[brows, 0]
    raised = free.expression[:, brows]
    within = (raised > low + 1e-4) & (raised < high - 1e-4)
    assert within.any(0).all() and (raised - neutral[brows])[within].abs().max() > 0.1
    halved = held.expression[:, brows] - neutral[brows]
    torch.testing.assert_close(halved[within], (raised - neutral[brows])[within] / 2, atol=1e-4, rtol=0)


def test_absolute_pose_of_none_looks_straight_ahead(comfyui, person):
    graph = person | {"straight": transfer(preset="speaking", mode="absolute", pose_from="none", match_amplitude=True)}
    (motion,) = run_motions(comfyui, graph, "straight")
    assert motion.joints[:, : HEAD + 1].abs().max() < 1e-5
    assert motion.expression.std(0).max() > 0.05


def test_edit_alone_and_on_top_of_a_motion(comfyui, person, model):
    keys = "0: neutral; 10: neutral\n1s: smile 0.5, headYaw 10\n40: neutral"
    graph = person | {
        "alone": node(
            "ExpPortraitEditExpression", head_proxy=["build", 0], expression="surprise", seconds=1.0, fps=20.0, ease_in=0.5, ease_out=0.5
        ),
        "speaking": transfer(preset="speaking"),
        "edited": node("ExpPortraitEditExpression", head_proxy=["build", 0], head_motion=["speaking", 0], keyframes=keys),
        "preview": node("ExpPortraitPreview", source_image=["build", 1], head_proxy=["build", 0], head_motion=["alone", 0], width=128),
        "show": node("PreviewImage", images=["preview", 0]),
    }
    alone, speaking, edited = run_motions(comfyui, graph, "alone", "speaking", "edited")
    assert len(alone) == 20 and alone.fps == 20
    raised = alone.expression[:, model.expression_names.index("browInnerUp")]
    assert raised[10] - raised[0] > 0.3 and raised[10] - raised[19] > 0.3
    torch.testing.assert_close(alone.joints[:, [NECK, HEAD]], alone.joints[:1, [NECK, HEAD]].expand(20, -1, -1))

    smile = model.expression_names.index("mouthSmileLeft")
    more = edited.expression[:, smile] - speaking.expression[:, smile]
    assert more[:11].abs().max() < 1e-6 and more[40:].abs().max() < 1e-6 and more[25] > 0.2
    assert (edited.joints[25, HEAD] - speaking.joints[25, HEAD]).norm() > 0.05
    torch.testing.assert_close(edited.translation, speaking.translation)


def test_a_mistake_in_the_keyframes_is_one_sentence(comfyui, person):
    edit = node("ExpPortraitEditExpression", head_proxy=["build", 0], keyframes="0: neutral\n24: smiel 0.4")
    fails(comfyui, person | {"edit": edit}, "edit", "line 2", "smiel", "smile")


def test_motion_tools_in_a_row(comfyui, person):
    edit = dict(head_proxy=["build", 0], expression="smile", ease_in=0.2)
    graph = person | {
        "edit": node("ExpPortraitEditExpression", **edit, seconds=2.0, fps=10.0),
        "smooth": node("ExpPortraitSmoothMotion", head_motion=["edit", 0], method="one-euro", expression_strength=0.1),
        "trim": node("ExpPortraitTrimMotion", head_motion=["smooth", 0], start=2, end=-3),  # 16 frames
        "loop": node("ExpPortraitLoopMotion", head_motion=["trim", 0], times=2, blend=4),  # 24
        "more": node("ExpPortraitEditExpression", **edit, seconds=1.0, fps=20.0),  # 10 of the loop's
        "join": node("ExpPortraitJoinMotions", first=["loop", 0], second=["more", 0], blend=2),  # 32
        "retime": node("ExpPortraitRetimeMotion", head_motion=["join", 0], fps=20.0, speed=2.0),  # 32 in half the time
        "preview": node(
            "ExpPortraitPreview", source_image=["build", 1], head_proxy=["build", 0], head_motion=["retime", 0], width=96, height=64
        ),
        "video": node("CreateVideo", images=["preview", 0], fps=["retime", 1]),
        "file": node("SaveVideo", video=["video", 0], filename_prefix="row", format="mp4", codec="h264"),
    }
    names = ("edit", "smooth", "trim", "loop", "more", "join", "retime")
    motions = dict(zip(names, run_motions(comfyui, graph, *names)))
    assert [len(motions[name]) for name in names] == [20, 20, 16, 24, 20, 32, 32]
    assert motions["join"].fps == 10 and motions["retime"].fps == 20
    assert not torch.equal(motions["smooth"].expression, motions["edit"].expression)
    torch.testing.assert_close(motions["trim"].expression, motions["smooth"].expression[2:18])
    torch.testing.assert_close(motions["loop"].expression[:12], motions["loop"].expression[12:])

    for inputs, words in (({"start": 12, "end": 5}, ["frame 12", "frame 5"]), ({"start": 20}, ["20 frames"])):
        wrong = graph | {"trim": node("ExpPortraitTrimMotion", head_motion=["smooth", 0], **inputs)}
        fails(comfyui, {k: v for k, v in wrong.items() if k in ("photo", "fit", "build", "edit", "smooth", "trim")}, "trim", *words)


@pytest.mark.parametrize("form", ["csv", "json"])
def test_arkit_curves_go_out_and_come_back(comfyui, person, model, form):
    graph = person | {
        "speaking": transfer(preset="speaking", contact=False),
        "curves": node("ExpPortraitSaveArkit", head_motion=["speaking", 0], format=form, filename_prefix="arkit/curves"),
        "save": node("ExpPortraitSaveMotion", head_motion=["speaking", 0], filename_prefix="arkit/motion"),
    }
    outputs = comfyui.run(graph)
    name = f"{outputs['curves']['text'][0]} [output]"
    assert name in json.dumps(comfyui.get("/object_info/ExpPortraitLoadArkit"))
    back = {
        "load": node("ExpPortraitLoadArkit", file=name),
        "curves": node("ExpPortraitSaveArkit", head_motion=["load", 0], format=form, filename_prefix="arkit/again"),
    }
    again = comfyui.run(back)
    first, second = (read_arkit(comfyui.base / "output" / run["curves"]["text"][0]) for run in (outputs, again))
    motion = HeadMotion.load(comfyui.base / "output" / outputs["save"]["text"][0])
    assert len(first) == len(motion) and first.fps == motion.fps
    for part in ("curves", "head", "eyes"):
        torch.testing.assert_close(getattr(second, part), getattr(first, part), atol=2e-3, rtol=0)
    face = [k for k, name in enumerate(ARKIT_NAMES) if name.startswith(("brow", "mouth", "eyeBlink"))]
    curves = [model.expression_names.index(ARKIT_NAMES[k]) for k in face]
    torch.testing.assert_close(first.curves[:, face], motion.expression[:, curves], atol=2e-3, rtol=0)


def test_unknown_columns_are_passed_over_but_not_alone(comfyui):
    header, row = ["JawOpen", "Mood"], [["0.5", "7"], ["0.2", "8"]]
    for name, columns in (("some.csv", [0, 1]), ("none.csv", [1])):
        with open(comfyui.base / "input" / name, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([[line[k] for k in columns] for line in [header, *row]])
    (motion,) = run_motions(comfyui, {"load": node("ExpPortraitLoadArkit", file="some.csv", fps=30.0)}, "load")
    assert len(motion) == 2 and motion.fps == 30
    assert "Mood" in comfyui.log
    fails(comfyui, {"load": node("ExpPortraitLoadArkit", file="none.csv", fps=30.0)}, "load", "none.csv", "ARKit")
    fails(comfyui, {"load": node("ExpPortraitLoadArkit", file="some.csv")}, "load", "frame rate", "fps")
