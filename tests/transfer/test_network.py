import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from expportrait.transfer.motion import HeadMotion
from expportrait.transfer.moving_skin import moving_share
from expportrait.transfer.network import JAW, SHIPPED, TransferNetwork, load_transfer_network

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "proxy"))
from heads import make_proxy  # noqa: E402
from smplx_file import write_smplx_file  # noqa: E402

SMALL = {"code": 12, "width": 16, "driver_width": 16, "place": 4, "whole": 4, "anchors": 8, "products": 8}


def neutral_of(model, identity):
    return model.canonical(identity[None], torch.zeros(1, len(model.expression_names)))[0]


def random_network(model, generator, **sizes):
    """A small network with all weights random, so that nothing is zero by initialisation."""
    network = TransferNetwork.create(model, generator, **SMALL | sizes)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network


def test_rest_has_no_detail(model, generator):
    network = random_network(model, generator)
    code = network.encode(torch.zeros(3, 52), torch.zeros(3, 6, 3))
    assert code.shape == (3, 12) and bool((code == 0).all())
    moved = network.encode(torch.rand(3, 52, generator=generator), torch.zeros(3, 6, 3))
    assert moved.abs().amin(1).max() > 1e-3


def test_the_jaw_drives_and_other_joints_do_not(model, generator):
    network = random_network(model, generator)
    expression, joints = torch.zeros(1, 52), torch.zeros(1, 6, 3)
    turned = torch.randn(1, 6, 3, generator=generator)
    turned[:, JAW] = 0
    assert torch.equal(network.encode(expression, turned), network.encode(expression, joints))
    joints[:, JAW, 0] = 0.3
    assert network.encode(expression, joints).abs().max() > 1e-3


def test_frames_are_coded_one_by_one(model, generator):
    network = random_network(model, generator)
    expression, joints = torch.rand(5, 52, generator=generator), 0.1 * torch.randn(5, 6, 3, generator=generator)
    single = torch.cat([network.encode(expression[k : k + 1], joints[k : k + 1]) for k in range(5)])
    assert torch.allclose(network.encode(expression, joints), single, atol=1e-6)


def test_fields_depend_on_the_neutral_and_leave_rigid_parts_alone(model, generator):
    network = random_network(model, generator)
    one, other = (neutral_of(model, torch.randn(120, generator=generator)) for _ in range(2))
    fields = network.fields(one, model)
    assert fields.shape == (12, model.vertex_count, 3) and fields.isfinite().all()
    assert (fields - network.fields(other, model)).norm() > 0.01 * fields.norm()
    assert bool((fields[:, moving_share(model) == 0] == 0).all())
    for part in ("teeth", "eyes"):
        assert bool((fields[:, model.regions[part] > 0.99] == 0).all())


def test_gradients_reach_every_weight(model, generator):
    network = random_network(model, generator)
    fields = network.fields(neutral_of(model, torch.randn(120, generator=generator)), model)
    code = network.encode(torch.rand(2, 52, generator=generator), 0.1 * torch.rand(2, 6, 3, generator=generator))
    (code @ fields.flatten(1)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_an_untrained_network_adds_nothing(model, generator):
    network = TransferNetwork.create(model, generator, **SMALL)
    assert bool((network.fields(neutral_of(model, torch.zeros(120)), model) == 0).all())


def test_saved_and_loaded(model, generator, tmp_path):
    network = random_network(model, generator)
    network.save(tmp_path / "network.safetensors")
    loaded = TransferNetwork.load(tmp_path / "network.safetensors", model.model_id)
    assert loaded.sizes == network.sizes and not any(p.requires_grad for p in loaded.parameters())
    neutral = neutral_of(model, torch.randn(120, generator=generator))
    fields = network.fields(neutral, model).detach()
    assert (loaded.fields(neutral, model) - fields).norm() < 0.005 * fields.norm()


def test_refuses_foreign_files(model, generator, tmp_path):
    path = tmp_path / "network.safetensors"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        TransferNetwork.load(path)
    path.write_bytes(b"no network")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        TransferNetwork.load(path)
    proxy = make_proxy(model, generator)
    proxy.save(path)
    with pytest.raises(ValueError, match="has format expportrait.head_proxy"):
        TransferNetwork.load(path)
    network = random_network(model, generator)
    network.save(path)
    with pytest.raises(ValueError, match="trained for head model expportrait-head-1, but other is loaded"):
        TransferNetwork.load(path, "other")
    tensors = load_file(path)
    save_file(tensors, path, metadata={"format": "expportrait.transfer_network", "version": "99", "model_id": model.model_id})
    with pytest.raises(ValueError, match="version 99"):
        TransferNetwork.load(path)
    save_file(tensors, path, metadata={"format": "expportrait.transfer_network", "version": "1", "model_id": model.model_id})
    with pytest.raises(ValueError, match="is damaged"):
        TransferNetwork.load(path)


def test_refuses_what_does_not_belong_together(model, generator):
    network = random_network(model, generator)
    neutral = neutral_of(model, torch.zeros(120))
    with pytest.raises(ValueError, match="trained for head model expportrait-head-1, but other is loaded"):
        network.fields(neutral, dataclasses.replace(model, model_id="other"))
    with pytest.raises(ValueError, match="take it from the same head model"):
        network.fields(neutral[:100], model)


def test_runs_inside_inference_mode(model, generator):
    network = random_network(model, generator)
    neutral = neutral_of(model, torch.randn(120, generator=generator))
    with torch.inference_mode():
        inside = network.fields(neutral.clone(), model)
    assert torch.allclose(inside, network.fields(neutral, model).detach(), atol=1e-7)


def test_smplx_has_networks_of_its_own(generator, tmp_path):
    pytest.importorskip("smplx")
    from expportrait.proxy.smplx_model import load_smplx

    write_smplx_file(tmp_path / "SMPLX_NEUTRAL.npz")
    smplx = load_smplx(tmp_path / "SMPLX_NEUTRAL.npz")
    network = random_network(smplx, generator)
    fields = network.fields(neutral_of(smplx, torch.randn(len(smplx.identity_names), generator=generator)), smplx)
    assert fields.shape == (12, smplx.vertex_count, 3) and fields.isfinite().all() and fields.abs().max() > 0
    assert network.encode(torch.zeros(2, len(smplx.expression_names)), torch.zeros(2, 6, 3)).shape == (2, 12)
    assert load_transfer_network(smplx) is None


def test_the_shipped_network_is_small_and_fits_a_motion(model, generator):
    assert SHIPPED.stat().st_size < 3_000_000
    network, proxy = load_transfer_network(model), make_proxy(model, generator)
    expression, joints = torch.rand(4, 52, generator=generator), torch.zeros(4, 6, 3)
    motion = HeadMotion(
        model.model_id,
        expression,
        joints,
        torch.zeros(4, 3),
        torch.ones(4, dtype=torch.bool),
        25.0,
        network.encode(expression, joints),
        "0123456789abcdef",
        network.fields(neutral_of(model, proxy.identity), model),
    )
    moved = torch.einsum("tk,kvc->tvc", motion.detail, motion.detail_basis).norm(dim=-1)
    assert 2e-4 < moved.max() < 0.02
