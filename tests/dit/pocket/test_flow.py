import pytest
import torch

from expportrait.dit.pocket.flow import add_noise, noise_levels, one_noise, random_levels, sample, velocity, velocity_weight


def test_a_perfect_prediction_is_reached_whatever_the_steps(generator):
    picture, noise = torch.rand(2, 3, 8, 8, generator=generator), torch.randn(2, 3, 8, 8, generator=generator)
    for steps in (1, 2, 4, 7):
        assert torch.equal(sample(lambda x, sigma: picture, noise, steps), picture)


def test_steps_follow_the_straight_line_between_noise_and_picture(generator):
    picture, noise = torch.rand(2, 3, 8, 8, generator=generator), torch.randn(2, 3, 8, 8, generator=generator)
    seen = []

    def model(x, sigma):
        seen.append((sigma, x))
        return picture

    sample(model, noise, 4)
    assert [float(sigma[0]) for sigma, _ in seen] == noise_levels(4)[:-1]
    assert all(torch.allclose(x, add_noise(picture, noise, sigma), atol=1e-6) for sigma, x in seen)


def test_levels_are_shifted_towards_noise():
    assert noise_levels(4) == pytest.approx([1, 18 / 19, 6 / 7, 2 / 3, 0])  # 6 s / (1 + 5 s) of 1, 3/4, 1/2, 1/4, 0
    assert noise_levels(1) == [1, 0]


def test_velocity_is_noise_less_picture(generator):
    picture, noise = torch.rand(2, 3, 4, 4, generator=generator), torch.randn(2, 3, 4, 4, generator=generator)
    noisy = add_noise(picture, noise, torch.tensor([0.3, 0.3]))
    assert torch.allclose(velocity(noisy, picture, 0.3), noise - picture, atol=1e-5)


def test_an_error_of_the_picture_counts_as_one_of_the_velocity(generator):
    sigma, error = torch.tensor([0.6, 0.8, 1.0]), torch.randn(3, generator=generator)
    assert torch.allclose(velocity_weight(sigma) * error**2, (error / sigma) ** 2)
    assert velocity_weight(torch.tensor([0.0])).isfinite()


def test_noise_is_that_of_its_seed():
    assert torch.equal(one_noise(8, 8, 3), one_noise(8, 8, 3)) and not torch.equal(one_noise(8, 8, 3), one_noise(8, 8, 4))


def test_levels_cover_the_way_and_often_its_beginning(generator):
    levels = random_levels(4000, generator)
    assert 0 < levels.min() < 0.1 and levels.max() == 1 and 0.17 < (levels == 1).float().mean() < 0.23


def test_no_steps_are_told():
    with pytest.raises(ValueError, match="at least 1"):
        sample(lambda x, sigma: x, torch.zeros(1, 3, 8, 8), 0)
