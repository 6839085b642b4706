import dataclasses

import pytest
import torch

from expportrait.proxy.files import save_dataclass
from expportrait.transfer.motion import FORMAT, HeadMotion
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


def test_fields_of_its_own_are_kept_and_saved(model, generator, tmp_path):
    motion, _ = load_preset("speaking", model)
    detail, basis = torch.randn(len(motion), 3, generator=generator), 1e-3 * torch.randn(3, 7, 3, generator=generator)
    motion = dataclasses.replace(motion, detail=detail, detail_id="0123456789abcdef", detail_basis=basis)
    few = motion.select([5, 2])
    assert torch.equal(few.detail_basis, basis) and torch.equal(few.detail, detail[[5, 2]])
    motion.save(tmp_path / "m.safetensors")
    again = HeadMotion.load(tmp_path / "m.safetensors", model.model_id)
    assert again.detail_basis.dtype == torch.float32 and (again.detail_basis - basis).abs().max() < 4e-6
    with pytest.raises(ValueError, match="K = 3 as its detail"):
        dataclasses.replace(motion, detail_basis=basis[1:])
    with pytest.raises(ValueError, match="K = None as its detail"):
        dataclasses.replace(motion, detail=None, detail_id=None)


def test_files_of_version_1_are_read(model, tmp_path):
    motion, _ = load_preset("speaking", model)
    save_dataclass(tmp_path / "m.safetensors", motion, FORMAT, 1)
    assert torch.equal(HeadMotion.load(tmp_path / "m.safetensors").expression, motion.expression)
