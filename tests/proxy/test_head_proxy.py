import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.head_proxy import HeadProxy
from expportrait.proxy.head_track import HeadTrack

sys.path.insert(0, str(Path(__file__).parents[1] / "transfer"))
from heads import make_proxy, make_track  # noqa: E402


def test_proxy_round_trip_keeps_identity_exactly_and_the_texture_to_8_bits(model, generator, tmp_path):
    proxy = make_proxy(model, generator)
    proxy.save(tmp_path / "proxy.safetensors")
    again = HeadProxy.load(tmp_path / "proxy.safetensors", model.model_id)
    for name in ("identity", "neutral", "source_expression", "source_joints", "source_translation"):
        assert torch.equal(getattr(again, name), getattr(proxy, name))
    assert (again.albedo - proxy.albedo).abs().max() <= 0.5 / 255 + 1e-6
    assert (again.focal, again.width, again.height, again.crop) == (proxy.focal, proxy.width, proxy.height, proxy.crop)
    again.save(tmp_path / "twice.safetensors")
    assert torch.equal(HeadProxy.load(tmp_path / "twice.safetensors").albedo, again.albedo)


def test_track_round_trip(model, generator, tmp_path):
    track = make_track(model, generator)
    track.save(tmp_path / "track.safetensors")
    again = HeadTrack.load(tmp_path / "track.safetensors", model.model_id)
    assert len(again) == len(track) and again.fps == track.fps and again.camera == track.camera
    for name in ("identity", "expression", "joints", "translation", "valid", "confidence", "landmarks", "landmarks_fit"):
        assert torch.equal(getattr(again, name), getattr(track, name))


def test_a_track_is_no_proxy(model, generator, tmp_path):
    make_track(model, generator).save(tmp_path / "track.safetensors")
    with pytest.raises(ValueError, match="has format expportrait.head_track, expected expportrait.head_proxy"):
        HeadProxy.load(tmp_path / "track.safetensors")
