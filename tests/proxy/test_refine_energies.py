import math
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.refine import energies
from expportrait.proxy.refine.surface import Skin

sys.path.insert(0, str(Path(__file__).parent))
from toy_head import make_model  # noqa: E402


@pytest.fixture
def skin(generator):
    model = make_model(generator)
    return Skin.of(model, model.stencil @ model.template)


def test_depth_is_the_mean_absolute_offset_where_there_is_weight():
    offset = torch.tensor([[0.01, -0.03, 9.0]])
    assert float(energies.depth(offset, torch.tensor([[1.0, 1.0, 0.0]]))) == pytest.approx(0.02)
    assert float(energies.depth(offset, torch.tensor([[3.0, 1.0, 0.0]]))) == pytest.approx(0.015)
    assert float(energies.depth(offset, torch.zeros(1, 3))) == 0


def test_silhouette_counts_both_sides_of_the_edge_alike():
    offset, weight = torch.tensor([[0.004, -0.002, 0.02]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert float(energies.silhouette(offset, weight)) == pytest.approx(0.003)


def test_high_pass_normals_sum_over_the_axes():
    expected = torch.tensor([[[0.0, 0.6, 0.8], [1.0, 0.0, 0.0]]])
    found = torch.tensor([[[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]]])
    assert float(energies.high_pass_normals(expected - found, torch.tensor([[1.0, 0.0]]))) == pytest.approx(0.8)
    assert float(energies.high_pass_normals(expected - found, torch.ones(1, 2))) == pytest.approx(1.4)


def test_landmarks_are_distances_in_pixels():
    detected = torch.tensor([[[10.0, 10.0], [20.0, 20.0]]])
    projected = detected + torch.tensor([[[3.0, 4.0], [100.0, 0.0]]])
    assert float(energies.landmarks(projected, detected, torch.tensor([[0.5, 0.0]]))) == pytest.approx(5.0)


def test_temporal_is_blind_to_what_stays_and_to_frames_without_weight():
    still = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(1)).expand(4, -1, -1)
    assert float(energies.temporal(still, torch.ones(4, 5))) == 0
    steps = torch.arange(4.0)[:, None, None] * torch.tensor([0.0, 0.003, 0.004])
    assert float(energies.temporal(still + steps, torch.ones(4, 5))) == pytest.approx(0.005, rel=1e-4)
    jump = still + steps
    jump[2] += 1.0
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0])[:, None].expand(-1, 5)
    assert float(energies.temporal(jump, weight)) == pytest.approx(0.005, rel=1e-4)
    assert float(energies.temporal(still[:1], torch.ones(1, 5))) == 0


def test_symmetry_compares_each_vertex_with_its_partner():
    relief, pairs = torch.tensor([0.001, 0.004, 0.002]), torch.tensor([1, 0, 2])
    assert float(energies.symmetry(relief, pairs, torch.tensor([1.0, 0.0, 0.0]))) == pytest.approx(0.003)
    assert float(energies.symmetry(relief, pairs, torch.ones(3))) == pytest.approx(0.003 * math.sqrt(2 / 3))


def test_roughness_is_the_slope_of_a_ramp(skin, generator):
    assert float(energies.roughness(skin, torch.full((2, len(skin.vertices), 3), 0.01))) < 1e-5
    relief = 0.001 * torch.randn(2, len(skin.vertices), 3, generator=generator)
    stiffness = skin.stiffness(torch.ones(len(skin.faces)))
    energy = sum(float(relief[t, :, c].numpy() @ (stiffness @ relief[t, :, c].numpy())) for t in range(2) for c in range(3))
    expected = math.sqrt(energy / (2 * float(skin.area.sum())))
    assert float(energies.roughness(skin, relief)) == pytest.approx(expected, rel=1e-4)
    assert float(energies.roughness(skin, 2 * relief)) == pytest.approx(2 * expected, rel=1e-4)


def test_zero_mean_is_that_of_the_valid_frames_alone():
    dynamic = torch.zeros(3, 4, 3)
    dynamic[0, :, 0], dynamic[1, :, 0], dynamic[2, :, 0] = 0.002, -0.002, 0.5
    valid = torch.tensor([True, True, False])
    assert float(energies.zero_mean(dynamic, valid, torch.ones(4))) == pytest.approx(0, abs=1e-9)
    dynamic[0, :, 1] = 0.006
    assert float(energies.zero_mean(dynamic, valid, torch.ones(4))) == pytest.approx(0.003)
    assert float(energies.zero_mean(dynamic, torch.zeros(3, dtype=torch.bool), torch.ones(4))) == 0
