"""Convolutions of 16 bits against exact ones."""

import copy

import pytest
import torch
from torch import nn

from shiftwright.sw.compress.bqnet import BQNet
from shiftwright.sw.compress.coarse import Geometry, Rounding, _limits, coarse_convolution, supported
from shiftwright.sw.compress.fakequant import FakeQuantized
from shiftwright.sw.compress.moments import coarse_twin
from shiftwright.sw.compress.quantizers import ActivationQuantizer
from shiftwright.sw.frontend.capture import capture

needs_bfloat16 = pytest.mark.skipif(not supported(), reason="this processor has no instructions for bfloat16")


@pytest.mark.parametrize(("low", "high", "expected"), [
    (0, 255, (-0.498046875, 255.0)), (0, 3, (-0.498046875, 3.484375)), (-128, 127, (-128.0, 127.0)),
    (-64, 63, (-64.0, 63.25)), (-2, 1, (-2.484375, 1.4921875)),
])
def test_limits_round_to_the_least_and_greatest_value(low: int, high: int, expected: tuple[float, float]) -> None:
    limits = _limits(Rounding(low, high))
    assert limits == expected
    assert [round(limit) for limit in limits] == [low, high]
    assert _limits(Rounding(low, high, active=False)) == (low, high)


@needs_bfloat16
@pytest.mark.parametrize(("stride", "groups", "residuals"), [(1, 1, 0), (2, 1, 1), (1, 4, 2)])
def test_values_are_at_most_one_step_off_and_gradients_alike(seed: int, stride: int, groups: int,
                                                            residuals: int) -> None:
    torch.manual_seed(seed)
    exponent, bits = -3, 6
    x = (torch.randint(0, 64, (2, 8, 9, 7)) / 8).requires_grad_()
    weight = (torch.randint(-12, 13, (4, 8 // groups, 3, 3)) / 16).requires_grad_()
    bias = torch.randn(4, requires_grad=True)
    geometry = Geometry((stride, stride), (1, 1), (1, 1), groups)
    exact = nn.functional.conv2d(x, weight, bias, stride, 1, 1, groups)
    joined = [(torch.randint(0, 64, exact.shape) / 8).requires_grad_() for _ in range(residuals)]
    quantizer = ActivationQuantizer(bits, signed=False, low=0.0)
    quantizer.exponent = exponent
    inputs = [x, weight, bias, *joined]
    found, expected = (
        coarse_convolution(x, weight, bias, geometry, quantizer.limits, *joined).float(),
        quantizer(exact + sum(joined)))
    steps = (found - expected).abs() * 2.0**-exponent
    assert steps.max() <= 1 and (steps > 0).float().mean() < 0.2
    assert found.min() == 0 and found.max() == 63 / 8
    wanted = torch.randn(exact.shape).to(torch.bfloat16).float()
    coarse, fine = (torch.autograd.grad(result, inputs, wanted) for result in (found, expected))
    for one, other in zip(coarse, fine, strict=True):
        assert (one - other).norm() < 0.15 * other.norm()


class Net(nn.Module):
    """Residuals, a stride, uneven padding, poolings, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.two = nn.Conv2d(8, 8, 3, padding=1)
        self.three = nn.Conv2d(8, 16, 3, stride=2)
        self.last = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu(self.norm(self.one(x)))
        x = nn.functional.relu(self.two(x) + x)
        x = nn.functional.relu(self.three(nn.functional.pad(x, (0, 1, 0, 1))))
        return self.last(x.mean((2, 3)))  # type: ignore[no-any-return]


@needs_bfloat16
def test_a_float_twin_computes_what_the_network_computes(seed: int) -> None:
    torch.manual_seed(seed)
    model, images = Net().eval(), torch.rand(6, 3, 8, 8)
    before = copy.deepcopy(model.state_dict())
    twin = coarse_twin(model, images)
    with torch.no_grad():
        found, expected = twin(images), model(images)
    assert (found - expected).abs().max() < 0.03 * expected.abs().max()
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@needs_bfloat16
def test_a_coarse_network_trains_and_its_integers_are_exact(seed: int) -> None:
    torch.manual_seed(seed)
    model, images = Net().eval(), torch.rand(6, 3, 8, 8)
    network = FakeQuantized(capture(model, (3, 8, 8)), BQNet(levels=4))
    exact = network(images)
    network.coarse = True
    coarse = network(images)
    assert (coarse - exact).abs().max() < 0.1 * exact.abs().max()
    coarse.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.dtype == torch.float32
               for parameter in network.parameters())
    layer = network.weighted["two"]
    assert torch.equal(layer.accumulate(torch.ones(1, 8, 8, 8), torch.ones(1, 8, 8, 8)),
                       layer.accumulate(torch.ones(1, 8, 8, 8).bfloat16(), torch.ones(1, 8, 8, 8)))
    network.coarse = False
    assert torch.equal(network(images), exact)
