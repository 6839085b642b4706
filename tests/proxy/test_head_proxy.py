import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.head_proxy import HeadProxy
from expportrait.proxy.head_track import HeadTrack

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "transfer")]
from displaced_head import displace  # noqa: E402
from heads import make_proxy, make_track  # noqa: E402
from toy_head import make_model  # noqa: E402


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


def test_displacement_round_trip_is_within_a_hundredth_of_a_millimetre(generator, tmp_path):
    toy = make_model(generator)
    proxy = displace(make_proxy(toy, generator), toy, generator, count=8)
    wide = torch.linspace(-0.031, 0.031, 3 * toy.vertex_count).view(-1, 3)
    proxy = dataclasses.replace(proxy, displacement=wide)
    proxy.save(tmp_path / "proxy.safetensors")
    again = HeadProxy.load(tmp_path / "proxy.safetensors", "toy")
    assert again.displacement.dtype == again.detail_basis.dtype == torch.float32
    assert (again.displacement - proxy.displacement).abs().max() < 1e-5
    expression = torch.rand(20, len(toy.expression_names), generator=generator)
    assert 0 < (again.displaced(expression) - proxy.displaced(expression)).abs().max() < 1e-5
    assert torch.equal(again.detail, proxy.detail) and torch.equal(again.detail_by_expression, proxy.detail_by_expression)
    assert again.detail_kept == proxy.detail_kept and again.detail_id == proxy.detail_id
    again.save(tmp_path / "twice.safetensors")
    assert torch.equal(HeadProxy.load(tmp_path / "twice.safetensors").displacement, again.displacement)


def test_a_thousand_frames_stay_under_20_megabytes(model, generator, tmp_path):
    proxy = dataclasses.replace(
        make_proxy(model, generator), albedo=torch.rand(3, 1024, 1024, generator=generator), albedo_confidence=torch.ones(1, 1024, 1024)
    )
    proxy = displace(proxy, model, generator, count=32, frames=1000)
    proxy.save(tmp_path / "proxy.safetensors")
    assert (tmp_path / "proxy.safetensors").stat().st_size < 20e6
    again = HeadProxy.load(tmp_path / "proxy.safetensors", model.model_id)
    error = again.displaced(again.source_expression[None], again.detail) - proxy.displaced(proxy.source_expression[None], proxy.detail)
    assert error.abs().max() < 1e-5


def test_files_without_displacement_load_as_before(model, generator, tmp_path):
    make_proxy(model, generator).save(tmp_path / "proxy.safetensors")
    again = HeadProxy.load(tmp_path / "proxy.safetensors")
    assert again.displacement is again.detail_basis is again.detail_kept is None
    assert again.displaced(again.neutral[None]) is None


def test_displaced_is_static_plus_detail(generator):
    toy = make_model(generator)
    bare = make_proxy(toy, generator)
    proxy = displace(bare, toy, generator)
    expression = torch.rand(3, len(toy.expression_names), generator=generator)
    given = torch.randn(3, 4, generator=generator)
    follow = torch.einsum("te,ek,kvx->tvx", expression - proxy.neutral, proxy.detail_by_expression, proxy.detail_basis)
    dynamic = torch.einsum("tk,kvx->tvx", given, proxy.detail_basis)
    assert torch.allclose(proxy.displaced(expression), proxy.displacement + follow, atol=1e-7)
    assert torch.allclose(proxy.displaced(expression, given), proxy.displacement + dynamic, atol=1e-7)
    assert torch.equal(proxy.displaced(proxy.neutral[None])[0], proxy.displacement)
    alone = dataclasses.replace(proxy, displacement=None)
    assert torch.allclose(alone.displaced(expression), follow, atol=1e-7)
    static = dataclasses.replace(bare, displacement=proxy.displacement)
    assert torch.equal(static.displaced(expression), proxy.displacement[None])
    assert dataclasses.replace(bare, detail_basis=proxy.detail_basis).displaced(expression) is None


def test_no_detail_fields_are_a_detail_too(generator, tmp_path):
    """A single photo has a static displacement and an empty dynamic one."""
    toy = make_model(generator)
    proxy = displace(make_proxy(toy, generator), toy, generator, count=0, frames=1)
    proxy.save(tmp_path / "proxy.safetensors")
    again = HeadProxy.load(tmp_path / "proxy.safetensors")
    assert again.detail.shape == (1, 0) and again.detail_id == proxy.detail_id
    assert torch.equal(again.displaced(again.neutral.repeat(3, 1)), again.displacement.expand(3, -1, -1))


def test_detail_id_tells_heads_without_a_basis_apart(model, generator, tmp_path):
    bare = make_proxy(model, generator)
    bare.save(tmp_path / "proxy.safetensors")
    assert HeadProxy.load(tmp_path / "proxy.safetensors").detail_id == bare.detail_id
    moved = dataclasses.replace(bare, displacement=torch.full((model.vertex_count, 3), 1e-3))
    empty = dataclasses.replace(bare, detail_basis=torch.zeros(0, model.vertex_count, 3))
    other = dataclasses.replace(bare, identity=bare.identity + 1e-3)
    assert empty.detail_id == bare.detail_id
    assert len({bare.detail_id, moved.detail_id, other.detail_id}) == 3


def test_detail_on_another_basis(generator):
    toy = make_model(generator)
    bare = make_proxy(toy, generator)
    proxy = displace(bare, toy, generator)
    given, basis = torch.randn(3, 2, generator=generator), torch.randn(2, toy.vertex_count, 3, generator=generator)
    dynamic = torch.einsum("tk,kvx->tvx", given, basis)
    expression = torch.rand(3, len(toy.expression_names), generator=generator)
    assert torch.allclose(bare.displaced(expression, given, basis), dynamic, atol=1e-6)
    assert torch.allclose(proxy.displaced(expression, given, basis), proxy.displacement + dynamic, atol=1e-6)
    with pytest.raises(ValueError, match="basis has 2 fields"):
        proxy.displaced(expression, given[:, :1], basis)


def test_detail_id_tells_bases_apart(generator):
    toy = make_model(generator)
    proxy = displace(make_proxy(toy, generator), toy, generator)
    assert dataclasses.replace(proxy, detail=None, displacement=None).detail_id == proxy.detail_id
    assert proxy.to("cpu").detail_id == proxy.detail_id
    assert dataclasses.replace(proxy, detail_basis=proxy.detail_basis.flip(0)).detail_id != proxy.detail_id
    with torch.inference_mode():
        assert dataclasses.replace(proxy, detail_basis=proxy.detail_basis * 1).detail_id == proxy.detail_id


def test_displacements_of_wrong_shape_are_named(generator):
    toy = make_model(generator)
    proxy = displace(make_proxy(toy, generator), toy, generator)
    for name, value, message in (
        ("displacement", proxy.displacement[:, :2], r"displacement of the head proxy has shape \[576, 2\], expected \[V"),
        ("displacement", proxy.displacement[None], r"displacement of the head proxy has shape \[1, 576, 3\], expected"),
        ("detail_basis", proxy.detail_basis[:, 5:], r"detail_basis of the head proxy has shape \[4, 571, 3\], expected \[K.*V = 576, 3\]"),
        ("detail", proxy.detail[:, 1:], r"detail of the head proxy has shape \[5, 3\], expected \[T.*K = 4\]"),
        ("detail_by_expression", proxy.detail_by_expression[1:], r"has shape \[9, 4\], expected \[E = 10, K = 4\]"),
        ("detail_basis", None, "no detail_basis"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(proxy, **{name: value})
    with pytest.raises(ValueError, match=r"the detail has shape \[2, 3\], but the head proxy's basis has 4 fields"):
        proxy.displaced(proxy.neutral.repeat(2, 1), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="the head proxy has no detail; leave them out"):
        make_proxy(toy, generator).displaced(proxy.neutral[None], torch.zeros(1, 3))
