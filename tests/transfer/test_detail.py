import torch

from expportrait.transfer.detail import Detail


def test_shortened_detail_is_the_same_displacement(generator):
    fields = torch.randn(3, 50, 3, generator=generator)
    many = Detail(torch.cat([fields, fields @ torch.randn(3, 3, generator=generator)]), torch.randn(9, 6, generator=generator))
    few = (many * 0.5 + many).shortened()
    expected = 1.5 * torch.einsum("tk,kvx->tvx", many.coefficients, many.fields)
    assert len(few.fields) <= 6 and torch.allclose(torch.einsum("tk,kvx->tvx", few.coefficients, few.fields), expected, atol=1e-2)
    assert torch.allclose(few.coefficients.square().mean(0), torch.ones(len(few.fields)), atol=1e-4)
    for none in (Detail(fields[:0], torch.zeros(9, 0)), Detail(fields, torch.zeros(9, 3))):
        assert len(none.shortened().fields) == 0 and none.shortened().coefficients.shape == (9, 0)
