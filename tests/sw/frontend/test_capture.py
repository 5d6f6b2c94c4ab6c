"""The captured graph computes what the module computes; everything else is refused by name."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from shiftwright.hw.arch.errors import ModelError, UnsupportedError
from shiftwright.sw.frontend.capture import capture
from shiftwright.sw.frontend.graph import Clamp, FloatResidual
from shiftwright.sw.frontend.operators import BY_TARGET, HOST, OPERATORS, markdown
from shiftwright.sw.zoo import network_info
from tests.graphs import execute

SEED = 7
SHAPE = (3, 9, 8)


class Forward(nn.Module):
    """A convolution, then whatever a function does."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 4, 2), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


class Two(nn.Module):
    """Two convolutions, then whatever a function does with the image, and with the outputs of both."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor], **options: Any) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1, **options), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.function = nn.BatchNorm2d(4), function

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x).relu()
        return self.function(x, a, self.norm(self.b(a)))


class Shared(nn.Module):
    """Calls one module twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.relu(self.conv(x)))


SUPPORTED: dict[str, Callable[[], nn.Module]] = {
    "conv_attributes": lambda: nn.Sequential(nn.Conv2d(3, 4, (3, 2), (2, 1), (1, 2), (1, 2), bias=False)),
    "same": lambda: nn.Sequential(nn.Conv2d(3, 4, (4, 3), padding="same", dilation=(1, 2))),
    "valid": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding="valid")),
    "zero_pad": lambda: nn.Sequential(nn.ZeroPad2d((1, 2, 3, 0)), nn.Conv2d(3, 4, 3, padding=1)),
    "batch_norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
    "batch_norm_plain": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)),
    "vector": lambda: nn.Sequential(nn.Flatten(), nn.Linear(216, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)),
    "map_to_linear": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(inplace=True), nn.Flatten(), nn.Dropout(),
                                           nn.Linear(168, 5, bias=False)),
    "clamps": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardtanh(-0.1, 0.2), nn.Hardtanh(-0.3, 0.1), nn.ReLU()),
    "max_pool": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d((3, 2), (2, 1), (1, 0), (2, 1)), nn.ReLU()),
    "max_pool_ceil": lambda: nn.Sequential(nn.MaxPool2d(2, 2, ceil_mode=True), nn.Conv2d(3, 4, 1), nn.Dropout2d()),
    "avg_pool": lambda: nn.Sequential(nn.AvgPool2d(3, 2, 1), nn.ReLU()),
    "avg_pool_divisor": lambda: nn.Sequential(nn.AvgPool2d((2, 3), 2, 1, count_include_pad=False, divisor_override=5,
                                                           ceil_mode=True)),
    "avg_pool_ceil_same": lambda: nn.Sequential(nn.AvgPool2d((3, 2), (3, 2), ceil_mode=True)),
    "pad_before_avg_pool": lambda: nn.Sequential(nn.ZeroPad2d((1, 0, 2, 1)), nn.AvgPool2d(3, 2)),
    "pad_before_max_pool": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConstantPad2d((0, 1, 0, 1), -np.inf),
                                                 nn.MaxPool2d(2, 1)),
    "adaptive": lambda: nn.Sequential(nn.AdaptiveAvgPool2d((3, 2)), nn.Conv2d(3, 4, 2), nn.AdaptiveAvgPool2d(1)),
    "adaptive_none": lambda: nn.Sequential(nn.Conv2d(3, 4, 2), nn.AdaptiveAvgPool2d((None, None)), nn.Identity()),
    "mean": lambda: nn.Sequential(Forward(lambda x: x.mean((-1, -2))), nn.Linear(4, 2)),
    "mean_keepdim": lambda: nn.Sequential(Forward(lambda x: x.mean((2, 3), keepdim=True)), nn.Conv2d(4, 2, 1)),
    "functional": lambda: Forward(
        lambda x: functional.max_pool2d(functional.relu(x), 2).clamp(max=0.4).view(x.size(0), -1)),
    "relu6": lambda: Forward(lambda x: functional.relu6(x).contiguous().detach()),
    "shared": Shared,
    "grouped": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.Conv2d(6, 4, (1, 5), groups=2, padding=(0, 2))),
    "depthwise": lambda: nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.BatchNorm2d(3), nn.ReLU6(), nn.Conv2d(3, 5, 1)),
    "residual": lambda: Two(lambda x, a, b: torch.relu(b + a)),
    "residual_before": lambda: Two(lambda x, a, b: (a + b).relu_()),
    "residual_in_place": lambda: Two(lambda x, a, b: b.add_(a).relu_()),
    "residual_of_input": lambda: Two(lambda x, a, b: b + functional.pad(x, (0, 0, 0, 0, 1, 0))),
    "residual_sliced": lambda: Two(lambda x, a, b: torch.relu(
        functional.conv2d(b.relu(), torch.ones(8, 4, 1, 1).double(), stride=2)
        + functional.pad(a[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))),
    "residual_twice": lambda: Two(lambda x, a, b: b + a + functional.pad(x, (0, 0, 0, 0, 0, 1))),
    "added_after_clamps": lambda: Two(lambda x, a, b: (a + b.clamp(-0.3, 0.4)).relu()),
    "added_to_itself": lambda: Two(lambda x, a, b: b + b),
    "added_twice_read": lambda: Two(lambda x, a, b: (b + a) + torch.relu(b)),
    "added_input": lambda: Two(lambda x, a, b: functional.pad(x, (0, 0, 0, 0, 0, 1)) + b.clamp(-1, 1)),
    "shortcut_convolution": lambda: Two(lambda x, a, b: torch.relu(b + functional.conv2d(
        x, torch.ones(4, 3, 1, 1).double()))),
    "cat": lambda: Two(lambda x, a, b: functional.max_pool2d(torch.cat([a, b], 1), 2)),
    "cat_of_input_and_pool": lambda: Two(lambda x, a, b: torch.cat([x, a, functional.max_pool2d(b, 1), a], 1).sub(0.1)),
    "cat_grows": lambda: Two(lambda x, a, b: functional.avg_pool2d(torch.cat([torch.cat([a, b], 1), functional.conv2d(
        torch.cat([a, b], 1), torch.ones(2, 8, 1, 1).double())], 1), 2)),
    "cat_shared_part": lambda: Two(lambda x, a, b: torch.cat([a, b], 1) + torch.cat([b, a], 1)),
    "cat_last": lambda: Two(lambda x, a, b: torch.cat([a, b], 1)),
    "cat_vectors": lambda: Two(lambda x, a, b: torch.cat([a.mean((2, 3)), b.mean((2, 3))], 1)),
    "norm_first": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3)),
    "norm_after_relu": lambda: nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.BatchNorm2d(3), nn.ReLU()),
    "norm_after_residual": lambda: Two(lambda x, a, b: functional.batch_norm(
        b + a, torch.ones(4).double(), torch.arange(1, 5).double())),
    "scaled_sum": lambda: Two(lambda x, a, b: a / 3 + -0.5 * b),
    "constants": lambda: Forward(lambda x: 2 * ((x - 0.5) / torch.tensor([[[1.0]], [[2.0]], [[3.0]], [[-4.0]]]) + 1)),
    "constants_of_input": lambda: Two(lambda x, a, b: x.sub(torch.tensor([0.2, 0.3, 0.4])[:, None, None]).div(0.25)),
    "parametrized": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3))),
    "unused": lambda: Two(lambda x, a, b: torch.relu(a * 2)),
    "wide": lambda: nn.Sequential(nn.Conv2d(3, 2, (1, 7), padding=(0, 3), dilation=(1, 2), stride=(3, 2))),
}


def build(name: str) -> nn.Module:
    """A supported network with random statistics, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = SUPPORTED[name]()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_()
                module.running_var.uniform_(0.1, 2)
                if module.affine:
                    nn.init.normal_(module.weight)
                    nn.init.normal_(module.bias)
    return model.double().eval()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", SUPPORTED)
def test_graph_computes_what_the_module_computes(name: str) -> None:
    model = build(name)
    images = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    expected = model(images).detach()
    found = execute(capture(model, SHAPE), images)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().max() > 0.01


def test_structure() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
                          nn.Linear(48, 7))
    model.train()
    graph = capture(model, SHAPE)
    assert model.training
    assert [(layer.name, layer.op, layer.kernel, layer.clamp.low) for layer in graph.layers] == [
        ("0", "conv", (2, 2), 0.0), ("2", "maxpool", (2, 2), -np.inf), ("5", "conv", (4, 3), -np.inf)]
    assert [layer.normalized for layer in graph.layers] == [True, False, False]
    assert [layer.covers_map for layer in graph.layers] == [False, False, True]
    assert graph.parameters == sum(p.numel() for p in model.parameters()) + 8
    assert graph.weights == 48 + 336
    assert graph.input_shape == graph.image_shape == SHAPE


def test_a_flattened_image_is_a_vector() -> None:
    graph = capture(build("vector").float(), SHAPE)
    assert graph.input_shape == (216, 1, 1) and graph.image_shape == SHAPE
    assert [layer.out_shape for layer in graph.layers] == [(6, 1, 1), (2, 1, 1)]


def test_a_module_called_twice_makes_two_layers() -> None:
    graph = capture(Shared(), SHAPE)
    assert [layer.name for layer in graph.layers] == ["conv", "conv@2"]
    assert graph.parameters == 84


def test_residual_networks_need_no_layers_of_their_own() -> None:
    graph = capture(network_info("resnet20").build(), (3, 32, 32))
    assert len(graph.layers) == 22 and not graph.concats
    joined = {layer.name: layer.residuals for layer in graph.layers if layer.residuals}
    assert list(joined) == [f"layer{stage}.{block}.conv2" for stage in (1, 2, 3) for block in (0, 1, 2)]
    assert joined["layer1.0.conv2"] == (FloatResidual(source="conv1"),)
    assert joined["layer3.0.conv2"] == (FloatResidual(source="layer2.2.conv2", stride=(2, 2), channel_offset=16),)
    assert [layer.name for layer in graph.layers if layer.affine] == ["normalize.sub"]
    assert [name for name, signed in graph.signed.items() if signed] == ["normalize.sub", "linear"]


def test_what_is_concatenated_before_is_not_copied() -> None:
    graph = capture(SUPPORTED["cat_grows"](), SHAPE)
    assert [layer.name for layer in graph.layers] == ["a", "b", "conv2d_2", "avg_pool2d"]
    assert [(concat.name, concat.parts) for concat in graph.concats] == [("cat", ("a", "b")),
                                                                         ("cat_2", ("cat", "conv2d_2"))]


@pytest.mark.parametrize(("first", "then", "both"), [
    (Clamp(0), Clamp(0, 6), Clamp(0, 6)), (Clamp(-1, 1), Clamp(2, 3), Clamp(2, 2)),
    (Clamp(-5, 5), Clamp(-9, 1), Clamp(-5, 1))])
def test_clamps_compose(first: Clamp, then: Clamp, both: Clamp) -> None:
    assert first.then(then) == both


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "padding_mode": (lambda: nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")),
                     r"^0 \(Conv2d\): mode='reflect' is not supported, only 'constant'; use zero padding"),
    "constant_pad": (lambda: nn.Sequential(nn.ConstantPad2d(1, 0.5), nn.Conv2d(3, 3, 3)), r"value=0.5 .* pad with 0$"),
    "negative_pad": (lambda: nn.Sequential(nn.ZeroPad2d(-1), nn.Conv2d(3, 3, 3)),
                     r"pad=\[-1, -1, -1, -1\] is not supported"),
    "pad_before_pool": (lambda: nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(2)),
                        r"^1 \(MaxPool2d\): follows padding"),
    "lowest_pad_before_convolution": (
        lambda: nn.Sequential(nn.ConstantPad2d(1, -np.inf), nn.Conv2d(3, 3, 3)),
        r"^1 \(Conv2d\): follows padding with -inf; put the padding right before a max pooling$"),
    "lowest_pad_before_avg_pool": (lambda: nn.Sequential(nn.ConstantPad2d(1, -np.inf), nn.AvgPool2d(3)),
                                   r"^1 \(AvgPool2d\): follows padding with -inf"),
    "padding_alone": (lambda: nn.Sequential(nn.ConstantPad2d(2, -np.inf), nn.MaxPool2d(2)),
                      r"^1 \(MaxPool2d\): has windows of padding alone; pad by less than the kernel$"),
    "pad_last": (lambda: nn.Sequential(nn.Conv2d(3, 3, 3), nn.ZeroPad2d(1)), r"ends in padding"),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(3, 3, 3, output_padding=1, stride=2)),
                   r"^0 \(ConvTranspose2d\): operator aten.conv_transpose2d.input is not supported; use nn.Conv2d"),
    "count_include_pad": (lambda: nn.Sequential(nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
                          r"^0 \(AvgPool2d\): count_include_pad=False with padding .* divisor_override$"),
    "avg_ceil": (lambda: nn.Sequential(nn.AvgPool2d(2, ceil_mode=True)),
                 r"^0 \(AvgPool2d\): ceil_mode=True with a map of 9 x 8 makes windows of different sizes"),
    "return_indices": (lambda: Forward(lambda x: functional.max_pool2d(x, 2, return_indices=True)[0]),
                       r"max_pool2d_with_indices.* set return_indices=False$"),
    "adaptive": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(5)),
                 r"output_size=\[5, 5\] does not divide the map of 9 x 8"),
    "mean_dim": (lambda: Forward(lambda x: x.mean(1)), r"dim=\[1\] is not supported"),
    "product": (lambda: Two(lambda x, a, b: a * b), r"^mul \(Two\): its other is computed from the network's input"),
    "add_alpha": (lambda: Two(lambda x, a, b: torch.add(a, b, alpha=2)), r"alpha=2 is not supported, only 1; multiply"),
    "add_broadcast": (lambda: Two(lambda x, a, b: b + a.mean((2, 3), keepdim=True)),
                      r"^add \(Two\): adds \(N, 4, 9, 8\) and \(N, 4, 1, 1\); both must have the same shape"),
    "add_map_constant": (lambda: Two(lambda x, a, b: b + torch.ones(9, 8)), r"takes a constant of shape \(9, 8\)"),
    "divide_by_zero": (lambda: Two(lambda x, a, b: b / 0), r"divides by zero"),
    "subtract_from_constant": (lambda: Two(lambda x, a, b: torch.tensor(1.0) - b),
                               r"the activation is not the 'self' argument of aten.sub.Tensor"),
    "cat_rows": (lambda: Two(lambda x, a, b: torch.cat([a, b], 2)), r"dim=2 is not supported, only 1; join channels"),
    "cat_constant": (lambda: Two(lambda x, a, b: torch.cat([a, torch.ones(2, 1, 9, 8)], 1)),
                     r"the activation is not the 'tensors' argument"),
    "cat_flattened": (lambda: Two(lambda x, a, b: torch.cat([a.flatten(1), b.flatten(1)], 1)),
                      r"^cat \(Two\): joins flattened maps"),
    "slice_of_channels": (lambda: Two(lambda x, a, b: a[:, 1:]), r"the slice of dimension 1 from 1"),
    "slice_of_rows": (lambda: Two(lambda x, a, b: a[:, :, 1::2]), r"the slice of dimension 2 from 1"),
    "slice_then_pool": (lambda: Two(lambda x, a, b: functional.max_pool2d(a[:, :, ::2], 2)),
                        r"^max_pool2d \(Two\): follows a slice or padding of channels; only an addition takes one"),
    "slice_last": (lambda: Two(lambda x, a, b: a[:, :, ::2]), r"ends in padding or a slice"),
    "in_place_through_a_view": (lambda: Two(lambda x, a, b: (b.flatten(1).relu_(), b * 2)[1]),
                                r"^relu_ \(Two\): changes in place what mul \(Two\) reads later; use the operator"),
    "image_as_map_and_vector": (lambda: Two(lambda x, a, b: functional.linear(
        x.flatten(1), torch.ones(4, 216)) + b.mean((2, 3))), r"reads the network's input as a vector"),
    "norm_of_flattened": (lambda: nn.Sequential(nn.Conv2d(3, 3, 3), nn.Flatten(), nn.ReLU(), nn.BatchNorm1d(126)),
                          r"^3 \(BatchNorm1d\): treats single pixels of a flattened map of 7 x 6"),
    "softmax": (lambda: nn.Sequential(nn.Softmax(1), nn.Conv2d(3, 3, 3)),
                r"^0 \(Softmax\): operator aten.softmax.int is not supported; return the logits: .* may be one"),
    "leaky": (lambda: nn.Sequential(nn.Conv2d(3, 3, 3), nn.LeakyReLU()),
              r"^1 \(LeakyReLU\): negative_slope=0.01 is not supported, .* another power of two$"),
    "unknown": (lambda: Forward(torch.sin), r"aten.sin.default is not supported; see the table"),
    "relu_first": (lambda: nn.Sequential(nn.ReLU(), nn.Conv2d(3, 3, 3)),
                   r"^0 \(ReLU\): clamps the network's input"),
    "norm_batch_statistics": (lambda: nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, track_running_stats=False)),
                              r"^1 \(BatchNorm2d\): training=True is not supported"),
    "dropout": (lambda: Forward(functional.dropout),
                r"^dropout \(Forward\): train=True is not supported, only False; pass training=self.training"),
    "linear_on_map": (lambda: nn.Sequential(nn.Linear(8, 8)),
                      r"^0 \(Linear\): input has shape \(N, 3, 9, 8\); put nn.Flatten\(\) before it"),
    "reshape": (lambda: Forward(lambda x: x.view(x.size(0), 8, 4, 7)), r"reshapes \(N, 4, 8, 7\) to \(N, 8, 4, 7\)"),
    "batch_mixed": (lambda: Forward(lambda x: x.flatten(0, 1)), r"changes the batch dimension"),
    "weight_is_activation": (lambda: Forward(lambda x: functional.conv2d(torch.ones(2, 2, 9, 9), x[:, :2])),
                             r"the activation is not the 'input' argument"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(UnsupportedError, match=message):
        capture(make(), SHAPE)


class Constant(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return functional.max_pool2d(x, 2), torch.ones(2, 3)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(("model", "shape", "message"), [
    (nn.Sequential(nn.Flatten(), nn.Linear(10, 2)), SHAPE,
     r"Sequential: can't be traced with an input of shape \(2, 3, 9, 8\)"),
    (Branching(), SHAPE, "Branching: can't be traced"),
    (Constant(), SHAPE, "must return tensors that are computed from its input, and nothing else"),
    (nn.Sequential(nn.Flatten()), SHAPE, "no layer that the array runs"),
    (nn.Sequential(nn.Conv2d(3, 3, 3)), (3, 1, 2, 2), r"input shape must be channels, height, width, or .*, not \(3, "),
    (nn.Sequential(nn.Conv2d(3, 3, 3)), (), r"input shape must be channels, height, width, or .*, not \(\)"),
])
def test_no_network(model: nn.Module, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        capture(model, shape)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_parameter_that_is_not_finite(value: float) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3))
    with torch.no_grad():
        model[0].weight.view(-1)[5] = value
    with pytest.raises(ModelError, match="parameter 0.weight has 1 of 81 values that are NaN or infinite"):
        capture(model, SHAPE)


@pytest.mark.parametrize("target", BY_TARGET)
def test_the_table_names_every_argument(target: str) -> None:
    """An attribute that the table does not know would be refused when used, or worse, missed."""
    space, name, overload = target.split(".")
    packet = getattr(getattr(torch.ops, space), name, None)
    if packet is None or overload not in packet.overloads():
        pytest.skip(f"this torch has no {target}")
    operator = BY_TARGET[target]
    known = {*operator.operands, *(attribute.name for attribute in operator.attributes)}
    assert {argument.name for argument in getattr(packet, overload)._schema.arguments} <= known


def test_the_table_as_documentation() -> None:
    text = markdown()
    assert text.count("\n") == len(OPERATORS) + len(HOST) + 2
    assert "`dim`: 1" in text
