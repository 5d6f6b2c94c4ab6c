"""The compiler as a whole: what it writes, what it tells, what it refuses."""

import dataclasses

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import CapacityError, ModelError, UnsupportedError
from shiftwright.hw.arch.image import DESCRIPTOR_WORDS, HEADER_WORDS, MODEL_MAGIC, Flag
from shiftwright.sw.compiler.checks import input_ranges
from shiftwright.sw.compiler.compile import compile_, compile_detailed
from shiftwright.sw.compiler.cycles import predict
from shiftwright.sw.image import Image
from shiftwright.sw.network import QuantizedNetwork, Term
from tests.networks import Arithmetic, conv, linear, pool, random_network, tensor

ROOMY = AcceleratorConfig(act_depth=16384, max_shift=7, map_bits=12)


def configurations(seed: int, count: int) -> list[tuple[int, AcceleratorConfig]]:
    rng = np.random.default_rng(seed)
    return [(seed + n, ROOMY.replace(lanes_y=int(rng.integers(1, 9)), lanes_x=int(rng.integers(1, 9)),
                                     guard_bits=[None, 0, 3][n % 3])) for n in range(count)]


def small(rng: np.random.Generator, **options: object) -> QuantizedNetwork:
    source = tensor("input", 2, 8, 8)
    one = conv(rng, source, "one", **{"channels": 4, **options})  # type: ignore[arg-type]
    return QuantizedNetwork(input=source, layers=(one,), parameters=76)


def with_layer(network: QuantizedNetwork, **changes: object) -> QuantizedNetwork:
    return dataclasses.replace(network, layers=(dataclasses.replace(network.layers[0], **changes),))


def test_image_accounts_for_every_byte(seed: int) -> None:
    for number, config in configurations(seed, 30):
        result = compile_detailed(random_network(number, config), config)
        data = result.image.to_bytes()
        assert result.size == len(data)
        assert result.overhead + sum(layer.bytes for layer in result.layers) == len(data)
        assert HEADER_WORDS + sum(sum(layer.words.values()) for layer in result.layers) == result.image.words.size
        assert result.ratio == pytest.approx(4 * result.parameters / len(data))
        if result.parameters:
            assert result.bits_per_weight == pytest.approx(8 * len(data) / result.parameters)


def test_sections_stand_where_the_descriptor_says(seed: int) -> None:
    for number, config in configurations(seed, 30):
        network = random_network(number, config)
        result = compile_detailed(network, config)
        words = result.image.words
        assert words[:4].tolist() == [MODEL_MAGIC, len(network.layers), words.size & 0xFFFF, words.size >> 16]
        for layer, compiled, view in zip(network.layers, result.layers, result.image.layers, strict=True):
            assert {name: part.size for name, part in view.parts.items()} == compiled.words
            assert compiled.words["descriptor"] == DESCRIPTOR_WORDS
            assert view.kernel == layer.kernel
            assert Flag.SHARED_ROW in view.flags or layer.op == "conv"
            assert (Flag.MAX in view.flags) == (layer.op == "maxpool")
            assert (Flag.X_SIGNED in view.flags) == layer.source.signed
            assert (Flag.RAW in view.flags) == layer.raw
            assert int(view.parts["code_table"].sum()) == compiled.entries


def test_placements_of_image_and_compilation_agree(seed: int) -> None:
    for number, config in configurations(seed, 30):
        network = random_network(number, config)
        result = compile_detailed(network, config)
        assert result.image.input == result.placements[network.input.name]
        assert result.image.output == result.placements[network.output.name] == result.image.placements[-1]
        for layer, compiled, place in zip(network.layers, result.layers, result.image.placements, strict=True):
            expected = result.placements[layer.target.name]
            assert compiled.target == expected
            assert (place.base, place.shape, place.raw, place.phases_y, place.phases_x) == (
                expected.base, expected.shape, expected.raw, expected.phases_y, expected.phases_x)
            assert place.signed == (layer.raw or layer.qmin < 0) or place is result.image.placements[-1]


def test_cycles_are_predicted_alike_from_image_and_compiler(seed: int) -> None:
    for number, config in configurations(seed, 30):
        result = compile_detailed(random_network(number, config), config)
        assert predict(Image.from_bytes(result.image.to_bytes())) == tuple(layer.cycles for layer in result.layers)
        layers = sum(layer.cycles.load + layer.cycles.compute for layer in result.layers)
        assert layers < result.cycles < layers + 16


def test_watchdog_leaves_room(seed: int) -> None:
    for number, config in configurations(seed, 10):
        result = compile_detailed(random_network(number, config), config)
        for compiled, view in zip(result.layers, result.image.layers, strict=True):
            assert (view.fields["watchdog"] + 1) * 4096 >= 2 * compiled.cycles.total + 4096


def test_more_lanes_take_fewer_cycles(rng: np.random.Generator) -> None:
    network = small(rng, padding=(1, 1, 1, 1), channels=16)
    cycles = [compile_detailed(network, ROOMY.replace(lanes_y=n, lanes_x=n)).cycles for n in (1, 2, 4)]
    assert cycles[0] > 2 * cycles[1] > 2 * cycles[2]


def test_equal_arguments_give_equal_bytes(seed: int) -> None:
    config = ROOMY
    one, two = (compile_(random_network(seed, config), config).to_bytes() for _ in range(2))
    assert one == two


def test_ranges_come_from_the_clamp_before(rng: np.random.Generator) -> None:
    source = tensor("input", 1, 8, 8, bits=5, signed=True)
    one = dataclasses.replace(conv(rng, source, "one", channels=2, bits=8, signed=True), qmin=0, qmax=100)
    two = conv(rng, one.target, "two", channels=2)
    assert input_ranges(QuantizedNetwork(input=source, layers=(one, two))) == ((-16, 15), (0, 100))


def test_grouped_convolution_is_described(rng: np.random.Generator) -> None:
    source = tensor("input", 6, 8, 8)
    layer = conv(rng, source, "grouped", channels=4, groups=2)
    fields = compile_(QuantizedNetwork(input=source, layers=(layer,)), ROOMY).layers[0].fields
    assert (fields["channels"], fields["rows"], fields["group_rows"], fields["group_step"]) == (3, 4, 2, 3)


def test_pooling_is_described(rng: np.random.Generator) -> None:
    source = tensor("input", 5, 8, 8)
    view = compile_(QuantizedNetwork(input=source, layers=(pool(rng, source, "pool"),)), ROOMY).layers[0]
    assert view.flags == Flag.MAX | Flag.SHARED_ROW | Flag.SHARED_SCALE
    fields = view.fields
    assert (fields["channels"], fields["rows"], fields["group_rows"], fields["group_step"]) == (1, 5, 1, 1)


def test_too_many_words_name_the_largest_layer(rng: np.random.Generator) -> None:
    source = tensor("input", 40, 4, 4)
    small_one = conv(rng, source, "small", channels=2)
    large = linear(rng, small_one.target, "large", features=200, raw=True)
    network = QuantizedNetwork(input=source, layers=(small_one, large))
    needed = compile_(network, ROOMY).words.size
    assert compile_(network, ROOMY.replace(weight_depth=needed)).words.size == needed
    with pytest.raises(CapacityError, match=rf"model memory \(weight_depth\) must hold {needed} words .* has "
                                            rf"{needed - 1}; the largest layer is large .* weight_depth to {needed}"):
        compile_(network, ROOMY.replace(weight_depth=needed - 1))


@pytest.mark.parametrize(("guard_bits", "config", "message"), [
    (0, AcceleratorConfig(), r"lose 7 low bits \(max_shift 7, guard_bits 0\), but the accelerator drops 0 .*generate "
                             r"the accelerator with guard_bits=0"),
    (7, AcceleratorConfig(guard_bits=3), r"lose 0 low bits .* drops 4 \(max_shift 7, guard_bits 3\)"),
    (0, AcceleratorConfig(max_shift=5, guard_bits=2), "generate the accelerator with max_shift=7 and guard_bits=0"),
])
def test_other_arithmetic_is_refused(rng: np.random.Generator, guard_bits: int, config: AcceleratorConfig,
                                     message: str) -> None:
    with pytest.raises(ModelError, match=message):
        compile_(dataclasses.replace(small(rng), guard_bits=guard_bits), config)


def test_smaller_max_shift_of_the_network_is_accepted(rng: np.random.Generator) -> None:
    network = small(rng, arithmetic=Arithmetic(max_shift=3, guard_bits=3))
    compile_(dataclasses.replace(network, max_shift=3, guard_bits=3), ROOMY)


def test_codebook_beyond_max_shift_is_refused(rng: np.random.Generator) -> None:
    network = with_layer(small(rng), codebook=((Term(False, 9),),), indices=np.zeros((4, 2, 3, 3), np.uint8))
    with pytest.raises(CapacityError, match="layer one: codebook entry 0 shifts by 9, but .* max_shift is 7; raise "
                                            "max_shift to 9"):
        compile_(dataclasses.replace(network, max_shift=9, guard_bits=9), AcceleratorConfig())


def test_refusal_of_the_codec_names_the_layer(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise CapacityError("too many different weights")

    monkeypatch.setattr("shiftwright.sw.compiler.compile.encode_layer", refuse)
    with pytest.raises(CapacityError, match="^layer one: too many different weights$"):
        compile_(small(rng), ROOMY)


@pytest.mark.parametrize(("config", "options", "message"), [
    ({"act_bits": 4}, {}, "layer one: its input input has 8 bits, more than the accelerator's act_bits of 4"),
    ({"kernel_max": 2}, {}, "layer one: kernel height must be 1 to the accelerator's kernel_max of 2, not 3"),
])
def test_layer_beyond_the_configuration_is_refused(rng: np.random.Generator, config: dict[str, int],
                                                   options: dict[str, object], message: str) -> None:
    with pytest.raises(CapacityError, match=message):
        compile_(small(rng, **options), ROOMY.replace(**config))


def test_raw_output_needs_bytes(rng: np.random.Generator) -> None:
    source = tensor("input", 2, 8, 8, bits=4)
    network = QuantizedNetwork(input=source, layers=(conv(rng, source, "one", channels=2, raw=True),))
    with pytest.raises(CapacityError, match="layer one: its output one.out is stored with 8 bits .* act_bits to 8"):
        compile_(network, ROOMY.replace(act_bits=4))


def test_raw_tensor_can_only_be_the_last(rng: np.random.Generator) -> None:
    source = tensor("input", 2, 8, 8)
    one = conv(rng, source, "one", channels=2, raw=True)
    two = conv(rng, one.target, "two", channels=2, arithmetic=Arithmetic())
    with pytest.raises(CapacityError, match="layer two: its input one.out has 32 bits.*a raw output can only be the "):
        compile_(QuantizedNetwork(input=source, layers=(one, two)), ROOMY)


def test_clamp_outside_the_tensor_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ModelError, match="layer one: the clamp must be inside its output's range 0 to 255, not -1 "):
        compile_(with_layer(small(rng), qmin=-1), ROOMY)


def test_wide_map_is_refused(rng: np.random.Generator) -> None:
    source = tensor("input", 1, 1, 5000)
    network = QuantizedNetwork(input=source, layers=(conv(rng, source, "one", channels=1, kernel=(1, 1)),))
    with pytest.raises(CapacityError, match="layer one: an output map is 1 to 4095 wide .* not 5000; raise map_bits"):
        compile_(network, ROOMY)


def test_map_of_4095_is_accepted(rng: np.random.Generator) -> None:
    source = tensor("input", 1, 1, 4095)
    network = QuantizedNetwork(input=source, layers=(conv(rng, source, "one", channels=1, kernel=(1, 2),
                                                          padding=(0, 1, 0, 0)),))
    assert compile_(network, ROOMY).layers[0].fields["out_w"] == 4095


def test_many_rows_are_refused(rng: np.random.Generator) -> None:
    source = tensor("input", 1)
    network = QuantizedNetwork(input=source, layers=(linear(rng, source, "wide", features=65_536, bias=0.0,
                                                            per_channel=False),))
    with pytest.raises(CapacityError, match="layer wide: "):
        compile_(network, AcceleratorConfig(act_depth=65_536, weight_depth=1 << 22))


def test_max_pooling_over_padding_only_is_refused(rng: np.random.Generator) -> None:
    source = tensor("input", 1, 6, 6)
    network = QuantizedNetwork(input=source, layers=(pool(rng, source, "pool", padding=(0, 2, 0, 0)),))
    with pytest.raises(UnsupportedError, match="layer pool: output column 0 of a max pooling sees only padding"):
        compile_(network, ROOMY)


def test_empty_network_is_refused() -> None:
    with pytest.raises(ModelError, match="at least one layer, not 0"):
        compile_(QuantizedNetwork(input=tensor("input", 1), layers=()), ROOMY)


def test_groups_that_do_not_divide_are_refused(rng: np.random.Generator) -> None:
    source = tensor("input", 6, 8, 8)
    layer = conv(rng, source, "grouped", channels=4, groups=3)
    with pytest.raises(ModelError, match="layer grouped: groups must divide the 6 input and 4 output channels, not 3"):
        compile_(QuantizedNetwork(input=source, layers=(layer,)), ROOMY)
