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
