import dataclasses

import pytest
import torch

from expportrait.transfer.motion import HeadMotion
from expportrait.transfer.presets import load_preset


def test_round_trip(model, tmp_path):
    motion, _ = load_preset("speaking", model)
    motion.save(tmp_path / "m.safetensors")
    again = HeadMotion.load(tmp_path / "m.safetensors", model.model_id)
    assert again.fps == motion.fps and again.model_id == motion.model_id
    for name in ("expression", "joints", "translation", "valid"):
        assert torch.equal(getattr(again, name), getattr(motion, name))
    with pytest.raises(ValueError, match="another-head is loaded"):
        HeadMotion.load(tmp_path / "m.safetensors", "another-head")


def test_select_keeps_order(model):
    motion, _ = load_preset("speaking", model)
    few = motion.select([5, 2])
    assert len(few) == 2 and torch.equal(few.expression, motion.expression[[5, 2]]) and few.fps == motion.fps


def test_detail_is_selected_and_saved(model, generator, tmp_path):
    motion, _ = load_preset("speaking", model)
    detail = torch.randn(len(motion), 3, generator=generator)
    motion = dataclasses.replace(motion, detail=detail, detail_id="0123456789abcdef")
    assert torch.equal(motion.select([5, 2]).detail, detail[[5, 2]]) and motion.select([5, 2]).detail_id == motion.detail_id
    motion.save(tmp_path / "m.safetensors")
    again = HeadMotion.load(tmp_path / "m.safetensors", model.model_id)
    assert torch.equal(again.detail, detail) and again.detail_id == motion.detail_id


def test_detail_that_does_not_fit_is_named(model, generator):
    motion, _ = load_preset("speaking", model)
    detail = torch.randn(len(motion), 3, generator=generator)
    for wrong in (dict(detail=detail), dict(detail_id="0123456789abcdef")):
        with pytest.raises(ValueError, match="needs both detail and detail_id"):
            dataclasses.replace(motion, **wrong)
    for wrong in (detail[1:], detail[0]):
        with pytest.raises(ValueError, match=r"expected \[T, K\] with T = 150"):
            dataclasses.replace(motion, detail=wrong, detail_id="0123456789abcdef")
