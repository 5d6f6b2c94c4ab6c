"""Networks with branches: the training's forward pass equals the integer golden model, bit for bit."""

import functools
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from shiftwright.hw.arch.errors import ModelError
from shiftwright.sim import golden
from shiftwright.sw.compress.bqnet import BQNet
from shiftwright.sw.compress.calibrate import calibrate
from shiftwright.sw.compress.fakequant import ConvLayer, FakeQuantized
from shiftwright.sw.compress.lower import lower
from shiftwright.sw.compress.scales import power_sum
from shiftwright.sw.frontend.capture import capture
from shiftwright.sw.frontend.graph import Graph
from shiftwright.sw.network import QuantizedNetwork, Term
from shiftwright.sw.terms import power_terms

SEED = 31
SHAPE = (3, 8, 7)

pytestmark = pytest.mark.usefixtures("one_thread")


class Branches(nn.Module):
    """Convolutions with batch norms whose channels differ much, what a function makes of them, and a classifier."""

    def __init__(self, function: Callable[["Branches", Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.a, self.norm_a = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.b, self.norm_b = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.c, self.norm_c = nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12)
        self.depthwise, self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 12, (1, 3), groups=2)
        self.fc = nn.LazyLinear(5)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.norm_a(self.a(x)))
        return self.fc(self.function(self, x, a, self.norm_b(self.b(a))).mean((2, 3)))


def shortened(self: Branches, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """A block that halves the map, as in ResNet's option A."""
    a = torch.relu(b + a)
    return torch.relu(self.norm_c(self.c(a)) + functional.pad(a[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))


STRUCTURES: dict[str, Callable[[Branches, Tensor, Tensor, Tensor], Tensor]] = {
    "residual": lambda self, x, a, b: torch.relu(b + a),
    "shortened": shortened,
    "signed_and_unsigned": lambda self, x, a, b: torch.relu(self.depthwise(a) + b),
    "added_clamped": lambda self, x, a, b: b.clamp(-1, 1) + a,
    "to_itself": lambda self, x, a, b: b + b,
    "depthwise": lambda self, x, a, b: torch.relu(self.grouped(functional.relu6(self.depthwise(torch.relu(b))))),
    "concatenated": lambda self, x, a, b: torch.cat([a, b, functional.max_pool2d(a * 3, 3, 1, 1)], 1),
    "grown": lambda self, x, a, b: functional.avg_pool2d(
        torch.cat([torch.cat([a, x], 1), self.grouped(functional.pad(b.relu(), (1, 1)))], 1), 2),
    "arithmetic": lambda self, x, a, b: torch.cat([(x - 0.4) / 0.23, 0.77 * torch.relu(b) - 1.3], 1),
}


@functools.cache
def captured(name: str) -> Graph:
    """The graph of a network with random statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = Branches(STRUCTURES[name])
        model.eval()(torch.zeros(2, *SHAPE))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.05, 1)
                nn.init.normal_(module.weight, 0, 2)
                nn.init.normal_(module.bias, 0, 0.3)
    return capture(model, SHAPE)


def lowered(name: str, images: Tensor, recipe: BQNet) -> tuple[FakeQuantized, QuantizedNetwork]:
    graph = captured(name)
    fake = FakeQuantized(graph, recipe)
    calibrate(fake, images, recipe)
    return fake, lower(fake, graph, recipe, {})


@pytest.mark.parametrize("options", [
    {}, {"levels": 5, "act_bits": 6}, {"levels": 3, "guard_bits": 4}, {"levels": 4, "guard_bits": 2, "max_shift": 9},
    {"levels": 2, "raw_output": False, "calibration": "percentile"}], ids=str)
@pytest.mark.parametrize("name", STRUCTURES)
def test_fake_quantized_equals_golden(name: str, options: dict[str, object]) -> None:
    images = torch.randint(0, 256, (30, *SHAPE), generator=torch.Generator().manual_seed(SEED)) / 256
    fake, network = lowered(name, images, BQNet(**options))  # type: ignore[arg-type]
    outputs = golden.run(network, network.quantize_input(images.numpy()), layers=True)
    expected = outputs[network.layers[-1].name]
    with torch.no_grad():
        found = fake(images).double().numpy().reshape(expected.shape) * 2.0**-network.output.exponent
    assert np.array_equal(found, expected), f"seed {SEED}: {np.abs(found - expected).max()} apart"
    assert all(len(np.unique(values)) > 5 for values in outputs.values())  # not all clamped away
    for layer in network.layers:
        assert all(term.shift <= network.max_shift for terms in layer.codebook for term in terms)
        assert all(term.shift <= network.max_shift for residual in layer.residuals for term in residual.terms)


def test_gradients_reach_every_weight() -> None:
    recipe = BQNet(levels=3)
    images = torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(SEED))
    fake, _ = lowered("shortened", images, recipe)
    fake(images).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in fake.parameters())


def test_joined_layers_share_a_scale_that_fits_all() -> None:
    images = torch.randint(0, 256, (30, *SHAPE), generator=torch.Generator().manual_seed(SEED)) / 256
    _, network = lowered("concatenated", images, BQNet(levels=4))
    parts = network.concats[0].parts
    assert {part.signed for part in parts} == {True} and len({part.exponent for part in parts}) == 1
    outputs = golden.run(network, network.quantize_input(images.numpy()), layers=True)
    clipped = [np.mean(np.isin(outputs[part.name], part.range)) for part in parts]
    assert max(clipped) < 0.05


def test_an_addition_that_would_round_is_refused() -> None:
    images = torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(SEED))
    fake, _ = lowered("residual", images, BQNet())
    layer = next(layer for layer in fake.chain if isinstance(layer, ConvLayer) and layer.layer.residuals)
    layer.residual_exponents = (-40,)
    x = torch.zeros(1, 8, 8, 7)
    with pytest.raises(ModelError, match=r"layer b: adding a would round it: its values are multiples of 2\^-40, the "):
        layer.accumulate(x, x)
    layer.residual_exponents = (20,)
    with pytest.raises(ModelError, match=r"layer b: adding a takes 2\^\d+ terms, more than 64; raise max_shift"):
        layer.accumulate(x, x)


def test_shifts_beyond_the_largest_take_equal_terms() -> None:
    assert power_terms(5, 7) == (Term(False, 5),)
    assert power_terms(9, 7) == (Term(False, 7),) * 4


@pytest.mark.parametrize("value", [1.0, 0.75, 4.4247, 0.003, 117.3])
def test_factors_as_short_sums(value: float) -> None:
    terms, shift = power_sum(Fraction(value))
    total = sum(-(1 << term.shift) if term.neg else 1 << term.shift for term in terms)
    assert total * 2.0**-shift == pytest.approx(value, rel=0.004)
    assert terms[0].shift == 0 and len(terms) <= 4
