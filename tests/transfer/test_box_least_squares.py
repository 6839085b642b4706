import pytest
import torch
from scipy.optimize import lsq_linear

from expportrait.transfer.box_least_squares import box_least_squares


@pytest.mark.parametrize("spread", [1.0, 300.0])
def test_agrees_with_scipy(generator, spread):
    count, rows = 20, 12
    scale = torch.logspace(0, 1, count, base=1 / spread, dtype=torch.float64)
    mix = torch.linalg.qr(torch.randn(count, count, generator=generator, dtype=torch.float64)).Q
    design = mix @ (torch.randn(count, 60, generator=generator, dtype=torch.float64) * scale[:, None])
    target = torch.randn(rows, 60, generator=generator, dtype=torch.float64)
    low = -0.05 * torch.rand(rows, count, generator=generator, dtype=torch.float64)
    high = low + 0.1 * torch.rand(rows, count, generator=generator, dtype=torch.float64)
    found = box_least_squares(design @ design.mT, target @ design.mT, low, high)
    assert (found >= low).all() and (found <= high).all() and (found == low).any() and (found == high).any()
    for row in range(rows):
        bounds = low[row].numpy(), high[row].numpy()
        wanted = lsq_linear(design.mT.numpy(), target[row].numpy(), bounds, tol=1e-14, max_iter=1000).x
        torch.testing.assert_close(found[row], torch.from_numpy(wanted), atol=1e-6, rtol=0)


def test_variables_between_equal_bounds_stay(generator):
    matrix = torch.eye(3, dtype=torch.float64) + 0.5
    bound = torch.tensor([[0.2, -1.0, -1.0]], dtype=torch.float64)
    found = box_least_squares(matrix, torch.zeros(1, 3, dtype=torch.float64), bound, torch.tensor([[0.2, 1.0, 1.0]]).double())
    # The others make up for the one that is held: (1.5 x + 0.5 x) = -0.5 * 0.2.
    torch.testing.assert_close(found, torch.tensor([[0.2, -0.05, -0.05]], dtype=torch.float64))
