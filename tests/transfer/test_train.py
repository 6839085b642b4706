import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch

from expportrait.cli import main
from expportrait.transfer.deformation_transfer import DeformationTransfer
from expportrait.transfer.network import TransferNetwork, load_transfer_network
from expportrait.transfer.train import TrainSettings, Truth, evaluate, train_network
from expportrait.transfer.training_data import SubjectMaker, make_subjects, random_drivers

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "proxy"))
from displaced_head import displace  # noqa: E402
from heads import make_proxy  # noqa: E402
from smplx_file import write_smplx_file  # noqa: E402

SMALL = {"width": 48, "driver_width": 32, "place": 8, "whole": 8, "anchors": 48, "products": 32}


@pytest.fixture(scope="module")
def subjects(model):
    return make_subjects(model, 2, torch.Generator().manual_seed(1))


def drivers_of(model, count):
    return random_drivers(model, count, torch.Generator().manual_seed(2))


def test_truth_is_what_deformation_transfer_says(model, subjects):
    expression, index = drivers_of(model, 6).expression, torch.arange(0, model.vertex_count, 7)
    missing = DeformationTransfer(model).fields(subjects[0].neutral) - model.expression_basis
    dense = torch.sparse.mm(model.stencil, missing.transpose(0, 1).flatten(1)).unflatten(1, (-1, 3))  # [V, E, 3]
    solved = 1000 * torch.einsum("te,vex->tvx", expression, dense)[:, index]
    truth = Truth(model, subjects).displacement(0, index, expression)
    assert solved.norm(dim=-1).max() > 0.5
    assert torch.allclose(truth, solved, atol=0.02)


def test_drivers_stay_in_bounds_and_cover_every_expression(model, generator):
    drivers = random_drivers(model, 600, generator)
    expression, joints = drivers.expression, drivers.joints
    low, high = model.expression_bounds.unbind(1)
    assert (expression >= low).all() and (expression <= high).all()
    assert (expression > 0.3 * high).any(0).all()
    assert ((expression[:200] != 0).sum(1) == 1).all()
    assert joints[:, 3].abs().max() > 0.1 and joints[:, [0, 1, 2, 4, 5]].abs().max() == 0


def test_training_lowers_the_error_on_subjects_it_has_seen(model, subjects):
    generator = torch.Generator().manual_seed(0)
    steps = []
    network = train_network(model, subjects, TrainSettings(150), generator, lambda *state: steps.append(state), **SMALL)
    assert steps[0] == (1, 150) and steps[-1] == (150, 150)
    measured = evaluate(network, model, subjects, drivers_of(model, 24))
    assert measured["network"]["face"] < 0.7 * measured["blend_shapes"]["face"]
    assert measured["network"]["face"] < 0.8 * measured["other_neutral"]["face"]


def test_training_repeats_itself_and_works_inside_inference_mode(model, subjects):
    def weights():
        generator = torch.Generator().manual_seed(3)
        return train_network(model, subjects, TrainSettings(3), generator, **SMALL).free.weight

    with torch.inference_mode():
        first = weights()
    assert torch.equal(first, weights()) and first.abs().max() > 0


def test_an_untrained_network_is_as_good_as_the_blend_shapes(model, subjects, generator):
    network = TransferNetwork.create(model, generator, **SMALL)
    measured = evaluate(network, model, subjects, drivers_of(model, 8))
    assert measured["network"] == pytest.approx(measured["blend_shapes"])


def test_wrinkles_of_a_refined_head_are_learned(model, generator):
    proxy = displace(make_proxy(model, generator), model, generator, count=2)
    proxy = dataclasses.replace(proxy, detail_by_expression=0.5 * proxy.detail_by_expression)
    (refined,) = make_subjects(model, 0, generator, (proxy,))
    truth = Truth(model, [dataclasses.replace(refined, wrinkles=None), refined])
    index, expression = truth.moving[::9], drivers_of(model, 6).expression
    added = truth.displacement(1, index, expression) - truth.displacement(0, index, expression)
    wanted = torch.einsum("tk,kvc->tvc", expression @ proxy.detail_by_expression, 1000 * proxy.detail_basis)[:, index]
    assert torch.allclose(added, wanted * truth.surface.share[index, None], atol=1e-3)
    network = train_network(model, [refined], TrainSettings(60), torch.Generator().manual_seed(0), **SMALL)
    measured = evaluate(network, model, [refined, refined], drivers_of(model, 16))
    assert measured["network"]["face"] < 0.9 * measured["blend_shapes"]["face"]


def test_smplx_trains_its_own_network(generator, tmp_path):
    pytest.importorskip("smplx")
    from expportrait.proxy.smplx_model import load_smplx

    write_smplx_file(tmp_path / "SMPLX_NEUTRAL.npz")
    smplx = load_smplx(tmp_path / "SMPLX_NEUTRAL.npz")
    subjects = make_subjects(smplx, 2, generator)
    network = train_network(smplx, subjects, TrainSettings(8), generator, **SMALL)
    measured = evaluate(network, smplx, subjects, drivers_of(smplx, 6))
    assert network.sizes.model_id == smplx.model_id
    assert 0 < measured["network"]["face"] < 1.2 * measured["blend_shapes"]["face"]


def test_refuses_what_it_cannot_learn_from(model, subjects, generator):
    with pytest.raises(ValueError, match="no detail to learn from"):
        SubjectMaker(model).refined(make_proxy(model, generator))
    with pytest.raises(ValueError, match="no subject"):
        train_network(model, [], TrainSettings(1), generator)
    with pytest.raises(ValueError, match="at least 2"):
        evaluate(TransferNetwork.create(model, generator, **SMALL), model, subjects[:1], drivers_of(model, 2))
    with pytest.raises(ValueError, match="at least 1 step"):
        TrainSettings(0)


def test_the_command_writes_a_network_and_a_report(model, tmp_path, capsys):
    out, report = tmp_path / "network.safetensors", tmp_path / "report.json"
    arguments = ["train-transfer", "--out", str(out), "--report", str(report), "--identities", "1", "--steps", "2"]
    assert main(arguments) == 0
    network = TransferNetwork.load(out, model.model_id)
    assert network.fields(torch.sparse.mm(model.stencil, model.template), model).isfinite().all()
    errors = json.loads(report.read_text())["error_mm"]
    assert set(errors) == {"blend_shapes", "copied_offsets", "network", "other_neutral"}
    assert json.loads(capsys.readouterr().out)["error_mm"] == errors
    assert main(["train-transfer", "--out", str(out), "--identities", "0"]) == 1
    assert "give at least 1" in capsys.readouterr().err


def test_the_shipped_network_beats_blend_shapes_and_copied_offsets_on_strangers(model):
    with torch.inference_mode():
        strangers = make_subjects(model, 5, torch.Generator().manual_seed(987654))
        measured = evaluate(load_transfer_network(model), model, strangers, drivers_of(model, 64))
    for region in ("face", "lids", "lips"):
        error = measured["network"][region]
        assert error < 0.65 * measured["blend_shapes"][region]
        assert error < 0.5 * measured["copied_offsets"][region]
        assert error < 0.5 * measured["other_neutral"][region]
