import torch

from expportrait.proxy import rotation
from expportrait.transfer.smooth import smooth_rotations, smooth_values


def test_zero_sigma_changes_nothing(generator):
    values = torch.randn(9, 4, generator=generator)
    assert torch.equal(smooth_values(values, 0.0), values)
    assert torch.equal(smooth_rotations(values[:, :3], 0.0), values[:, :3])


def test_constants_stay_and_noise_shrinks(generator):
    constant = torch.full((40, 5), 0.3)
    assert torch.allclose(smooth_values(constant, 2.0), constant)
    noise = torch.randn(400, 2, generator=generator)
    # White noise through a Gaussian of sigma s keeps 1 / (2 s sqrt(pi)) of its variance.
    ratio = smooth_values(noise, 3.0)[20:-20].var() / noise.var()
    assert abs(ratio - 1 / (6 * torch.pi**0.5)) < 0.03


def test_blocks_join_without_a_seam(generator):
    values = torch.randn(700, 1, generator=generator, dtype=torch.float64)
    time = torch.arange(700, dtype=torch.float64)
    weight = torch.exp(-0.5 * ((time[:, None] - time) / 2.5) ** 2)
    direct = weight @ values / weight.sum(1, keepdim=True)
    assert torch.allclose(smooth_values(values, 2.5), direct, atol=2e-4)


def test_rotations_smooth_across_half_a_turn():
    angle = torch.linspace(2.6, 3.7, 60)
    turning = torch.zeros(60, 1, 3)
    turning[:, 0, 1] = angle
    wrapped = rotation.to_rotvec(rotation.to_matrix(turning))  # jumps from +pi to -pi on the way
    smooth = rotation.to_matrix(smooth_rotations(wrapped, 2.0))
    assert (smooth - rotation.to_matrix(turning))[8:-8].abs().max() < 1e-4


def test_rotations_commute_with_a_change_of_frame(generator):
    rotvec = 0.4 * torch.randn(30, 3, generator=generator)
    frame = rotation.to_matrix(torch.randn(3, generator=generator))
    there = rotation.to_rotvec(frame @ rotation.to_matrix(rotvec))
    assert torch.allclose(
        rotation.to_matrix(smooth_rotations(there, 1.5)), frame @ rotation.to_matrix(smooth_rotations(rotvec, 1.5)), atol=1e-5
    )
