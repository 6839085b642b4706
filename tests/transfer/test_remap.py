import dataclasses
import logging
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.head_model import JOINTS
from expportrait.transfer.presets import load_preset
from expportrait.transfer.remap import load_motion_for, remap_motion

sys.path.insert(0, str(Path(__file__).parent))
from foreign_head import SCALE, make_foreign  # noqa: E402

POSE = [JOINTS.index(name) for name in ("root", "neck", "head")]


@pytest.fixture(scope="module")
def foreign(model):
    return make_foreign(model, torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def motion(model):
    """Fifteen frames of speech and gaze."""
    return load_preset("speaking", model)[0].select(list(range(0, 150, 10)))


def test_the_other_head_moves_alike(model, foreign, motion):
    moved = remap_motion(motion, model, foreign)
    assert moved.model_id == "foreign-head" and moved.fps == motion.fps
    assert torch.equal(moved.joints[:, POSE], motion.joints[:, POSE]) and torch.equal(moved.translation, motion.translation)
    none = torch.zeros(1, model.identity_basis.shape[0])
    wanted = model.forward(none, motion.expression, motion.joints)
    shown = foreign.forward(none, moved.expression, moved.joints) / SCALE
    seen = (model.regions["face"] > 0.5) | (model.regions["eyes"] > 0.5)
    assert (shown - wanted).norm(dim=-1)[:, seen].max() < 5e-4
    low, high = foreign.expression_bounds.unbind(-1)
    assert (moved.expression >= low).all() and (moved.expression <= high).all()


def test_there_and_back(model, foreign, motion):
    again = remap_motion(remap_motion(motion, model, foreign), foreign, model)
    assert again.model_id == model.model_id
    assert (again.expression - motion.expression).abs().max() < 0.06
    turned, wanted = (model.joint_rotations(m.expression, m.joints) for m in (again, motion))
    assert (turned - wanted).abs().max() < 0.01


def test_detail_stays_behind(model, foreign, motion, generator):
    wrinkled = dataclasses.replace(motion, detail=torch.randn(len(motion), 2, generator=generator), detail_id="0123456789abcdef")
    moved = remap_motion(wrinkled, model, foreign)
    assert moved.detail is None and moved.detail_id is None
    assert remap_motion(wrinkled, model, model) is wrinkled


def test_loading_remaps_what_the_embedded_head_made(model, foreign, motion, tmp_path, caplog):
    motion.save(tmp_path / "m.safetensors")
    assert torch.equal(load_motion_for(tmp_path / "m.safetensors", model).expression, motion.expression)
    assert not caplog.records
    with caplog.at_level(logging.INFO, "expportrait"), torch.inference_mode():
        loaded = load_motion_for(tmp_path / "m.safetensors", foreign)
    torch.testing.assert_close(loaded.expression, remap_motion(motion, model, foreign).expression)
    (record,) = caplog.records
    for word in (model.model_id, "foreign-head", "does not show tongueOut"):
        assert word in record.getMessage()


def test_loading_refuses_an_unknown_head_unless_it_is_given(model, foreign, motion, tmp_path):
    remap_motion(motion, model, foreign).save(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=f"made with head model foreign-head, but {model.model_id} is loaded; load the matching"):
        load_motion_for(tmp_path / "m.safetensors", model)
    loaded = load_motion_for(tmp_path / "m.safetensors", model, foreign)
    assert loaded.model_id == model.model_id
    with pytest.raises(ValueError, match="made with head model"):
        remap_motion(motion, foreign, model)
    with pytest.raises(ValueError, match="no landmark table|nor a landmark table"):
        remap_motion(motion, model, dataclasses.replace(foreign, landmarks=None))
