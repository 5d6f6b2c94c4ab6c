"""The compiler as a whole: what it writes, what it tells, what it refuses."""

import dataclasses

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import CapacityError, ModelError, UnsupportedError
from shiftwright.hw.arch.image import DESCRIPTOR_WORDS, HEADER_WORDS, LENGTH_WORDS, MODEL_MAGIC, POSITION_WORDS, Flag
from shiftwright.sw.compiler.checks import tensor_ranges
from shiftwright.sw.compiler.compile import compile_, compile_detailed
from shiftwright.sw.compiler.layout import locate
from shiftwright.sw.network import QuantizedNetwork, Residual, Term
from tests.networks import Arithmetic, conv, join, linear, pool, random_network, tensor

ROOMY = AcceleratorConfig(act_depth=16384, max_shift=7, map_bits=12, positions=512)


def configurations(seed: int, count: int) -> list[tuple[int, AcceleratorConfig]]:
    rng = np.random.default_rng(seed)
    return [(seed + n, ROOMY.replace(lanes_y=int(rng.choice([1, 2, 4, 8])), lanes_x=int(rng.choice([1, 2, 4, 8])),
                                     streams=int(rng.integers(1, 9)), interleave=int(rng.choice([1, 2, 4])),
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
        result = compile_detailed(random_network(number, config), config)
        words = result.image.words.astype(int)
        at, starts = HEADER_WORDS, {len(result.layers): 0}
        for n, (layer, compiled, view) in enumerate(zip(result.network.layers, result.layers, result.image.layers,
                                                        strict=True)):
            starts[n] = at
            at += view.words
            assert {name: part.size for name, part in view.parts.items()} == compiled.words
            assert compiled.name == layer.name
            assert compiled.words["descriptor"] == DESCRIPTOR_WORDS
            assert compiled.words["lengths"] == LENGTH_WORDS * config.streams
            loaded = view.fields["positions"] & 1023
            assert compiled.words["positions"] == POSITION_WORDS * loaded
            assert view.positions == loaded + (view.fields["positions"] >> 10)
            assert [part.size == 0 for part in view.codewords] == [s >= layer.target.channels
                                                                   for s in range(config.streams)]
            assert [part.size == 0 for part in view.parameters if Flag.SHARED_SCALE in view.flags] in (
                [], [s >= layer.target.channels for s in range(config.streams)])
            assert (Flag.SHARED_ROW in view.flags) == (layer.op != "conv")
            assert (Flag.MAX in view.flags) == (layer.op == "maxpool")
            assert (Flag.X_SIGNED in view.flags) == layer.source.signed
            assert (Flag.RAW in view.flags) == layer.raw
            assert int(view.code_table.sum()) == compiled.entries
            assert compiled.same_code == (Flag.SAME_CODE in view.flags) == (not view.parts["code_table"].size)
        tail = next((n for n, view in enumerate(result.image.layers) if Flag.BATCH in view.flags), len(result.layers))
        assert words[:HEADER_WORDS].tolist() == [
            MODEL_MAGIC, len(result.layers), words.size & 0xFFFF, words.size >> 16, tail, starts[tail] & 0xFFFF,
            starts[tail] >> 16]


def test_placements_of_image_and_compilation_agree(seed: int) -> None:
    for number, config in configurations(seed, 30):
        network = random_network(number, config)
        result = compile_detailed(network, config)
        assert result.image.input == result.placements[network.input.name]
        assert result.image.output == result.placements[network.output.name] == result.image.placements[-1]
        for layer, compiled, view in zip(result.network.layers, result.layers, result.image.layers, strict=True):
            expected = result.placements[layer.target.name]
            assert compiled.target == expected
            assert view.target == dataclasses.replace(expected, exponent=0, signed=layer.raw or layer.qmin < 0,
                                                      bits=32 if layer.raw else config.act_bits)


def test_watchdog_leaves_room(seed: int) -> None:
    for number, config in configurations(seed, 10):
        result = compile_detailed(random_network(number, config), config)
        for compiled, view in zip(result.layers, result.image.layers, strict=True):
            assert (view.fields["watchdog"] + 1) * 4096 >= 2 * compiled.cycles.total + 4096
            if Flag.BATCH in view.flags:  # a full batch drains all lanes
                assert (view.fields["watchdog"] + 1) * 4096 > 2 * view.fields["rows"] * config.lanes // config.streams


def test_more_lanes_take_fewer_cycles(rng: np.random.Generator) -> None:
    network = small(rng, padding=(1, 1, 1, 1), channels=64)
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
    other = dataclasses.replace(conv(rng, source, "other", channels=3, bits=8, signed=True), qmin=-7, qmax=9)
    other = dataclasses.replace(other, target=dataclasses.replace(other.target, exponent=one.target.exponent))
    both = join("both", one.target, other.target)
    network = QuantizedNetwork(input=source, layers=(one, other, two), concats=(both,))
    ranges = tensor_ranges(network)
    assert [ranges[name] for name in ("input", "one.out", "other.out", "both")] == [(-16, 15), (0, 100), (-7, 9),
                                                                                  (-7, 100)]


FIELDS = ("channels", "rows", "group_rows", "group_step", "stream_step")


@pytest.mark.parametrize(("streams", "groups", "expected"), [
    (1, 1, (6, 8, 8, 0, 0)), (4, 1, (6, 8, 8, 0, 0)), (1, 2, (3, 8, 4, 3, 0)), (2, 2, (3, 8, 2, 3, 0)),
    (4, 2, (3, 8, 1, 3, 0)), (3, 2, (6, 8, 8, 0, 0)),
])
def test_convolution_is_described(rng: np.random.Generator, streams: int, groups: int,
                                  expected: tuple[int, ...]) -> None:
    source = tensor("input", 6, 8, 8)
    layer = conv(rng, source, "grouped", channels=8, groups=groups)
    network = QuantizedNetwork(input=source, layers=(layer,))
    fields = compile_(network, ROOMY.replace(streams=streams)).layers[0].fields
    assert tuple(fields[name] for name in FIELDS) == expected


def test_pooling_is_described(rng: np.random.Generator) -> None:
    source = tensor("input", 5, 8, 8)
    network = QuantizedNetwork(input=source, layers=(pool(rng, source, "pool"),))
    view = compile_(network, ROOMY.replace(streams=2)).layers[0]
    assert view.flags == Flag.MAX | Flag.SHARED_ROW | Flag.SHARED_SCALE
    assert tuple(view.fields[name] for name in FIELDS) == (1, 5, 1, 2, 1)


def test_output_steps_walk_the_planes(rng: np.random.Generator) -> None:
    """The steps of the document, taken one pixel after another, meet every pixel where it is placed."""
    source = tensor("input", 2, 14, 13)
    first = conv(rng, source, "first", channels=3)
    second = conv(rng, first.target, "second", channels=3, stride=(2, 3))
    config = ROOMY.replace(lanes_y=2, lanes_x=2)
    image = compile_(QuantizedNetwork(input=source, layers=(first, second)), config)
    fields, place = image.layers[0].fields, image.layers[0].target
    assert (place.phases_y, place.phases_x) == (2, 3)

    def walk(axis: str, phases: int, lanes: int, size: int) -> list[int]:
        found, address, phase, bank = [], 0, 0, 0
        for _ in range(size):
            found.append(address)
            phase = (phase + 1) % phases
            bank = bank if phase else (bank + 1) % lanes
            kind = "plane" if phase else "turn" if bank else "wrap"
            address = (address + fields[f"out_{kind}_{axis}"]) & 0xFFFF
        return found

    rows, columns = walk("y", 2, 2, place.height), walk("x", 3, 2, place.width)
    _, addresses = locate(place, config)
    for y, x in np.ndindex(place.height, place.width):
        assert (place.base + rows[y] + columns[x]) & 0xFFFF == addresses[0, y, x]


def test_batch_tail_is_described(rng: np.random.Generator) -> None:
    source = tensor("input", 3, 8, 8)
    one = conv(rng, source, "one", channels=4, bias=0.0, scale_terms=1)
    two = linear(rng, one.target, "two", features=7)
    three = linear(rng, two.target, "three", features=5, raw=True)
    result = compile_detailed(QuantizedNetwork(input=source, layers=(one, two, three)), ROOMY.replace(lanes_x=8))
    head, *tail = result.image.layers
    assert Flag.FLATTEN in head.flags and Flag.BATCH not in head.flags
    steps = [head.fields[f"out_{step}_{axis}"] for axis in "xy" for step in ("plane", "turn", "wrap")]
    assert steps == [4, 0, 0, 24, 0, 0]
    for view, channels in zip(tail, (6 * 6 * 4, 7), strict=True):
        assert Flag.BATCH in view.flags and Flag.FLATTEN not in view.flags
        assert [view.fields[name] for name in ("channels", "out_h", "out_w")] == [channels, 4, 8]
        assert view.positions == 1
    # The first one's table comes with it, as a run may begin there; the second one has the same.
    assert [view.parts["positions"].tolist() for view in tail] == [[0, 0, 0], []]
    assert Flag.SAME_CODE not in tail[0].flags
    assert result.image.output.vector and not result.image.input.vector


def test_residual_is_encoded_as_a_tap(rng: np.random.Generator) -> None:
    source = tensor("input", 2, 6, 6)
    layer = dataclasses.replace(conv(rng, source, "layer", channels=2, kernel=(1, 1), scale_terms=1),
                                codebook=((),), indices=np.zeros((2, 2, 1, 1), np.uint8),
                                scale=((Term(False, 0),), (Term(True, 0),)))
    plain = compile_detailed(QuantizedNetwork(input=source, layers=(layer,)), ROOMY).layers[0]
    joined = dataclasses.replace(layer, residuals=(Residual(source=source, terms=(Term(False, 3),)),))
    result = compile_detailed(QuantizedNetwork(input=source, layers=(joined,)), ROOMY)
    assert (plain.cycles.terms, result.layers[0].cycles.terms) == (0, 2 * 4)
    assert result.image.layers[0].positions == 2


def test_row_that_is_replayed_must_fit_the_row_buffer(rng: np.random.Generator) -> None:
    source = tensor("input", 70, 5, 5)
    indices = rng.integers(0, 250, size=(1, 70, 1, 1)).astype(np.uint8)
    codebook = tuple((Term(bool(n & 1), n >> 1 & 7), Term(bool(n >> 4 & 1), n >> 5)) for n in range(250))
    layer = dataclasses.replace(conv(rng, source, "layer", channels=1, kernel=(1, 1)), indices=indices,
                                codebook=codebook)
    network = QuantizedNetwork(input=source, layers=(layer,))
    compile_(network, ROOMY.replace(lanes_y=8, lanes_x=8, row_depth=64))
    with pytest.raises(CapacityError, match=r"layer layer: a row that is replayed must fit the row buffer "
                                            r"\(row_depth\) of 64 codewords, but has \d+; raise row_depth"):
        compile_(network, ROOMY.replace(row_depth=64))


def test_too_many_positions_are_refused(rng: np.random.Generator) -> None:
    source = tensor("input", 1, 8, 8)
    layer = conv(rng, source, "layer", channels=1, kernel=(5, 4))
    with pytest.raises(CapacityError, match="layer layer: kernel and residuals take 20 positions, more than the "
                                            "accelerator's 16; raise positions"):
        compile_(QuantizedNetwork(input=source, layers=(layer,)), ROOMY.replace(positions=16))


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


def test_other_rounding_is_refused_where_it_makes_a_difference(rng: np.random.Generator) -> None:
    network, even = small(rng, bias=1.0), ROOMY.replace(rounding="half_even")
    network = dataclasses.replace(network, input=(source := dataclasses.replace(network.input, exponent=-8)), layers=(
        dataclasses.replace(network.layers[0], source=source),))
    assert network.layers[0].shift.any()
    with pytest.raises(ModelError, match="layer one: its output is rounded 'half_up' .* accelerator rounds "
                                         "'half_even'; generate the accelerator with rounding='half_up', or"):
        compile_(network, even)
    other = dataclasses.replace(network, rounding="half_even")
    with pytest.raises(ModelError, match="rounded 'half_even' .* generate the accelerator with rounding='half_even'"):
        compile_(other, ROOMY)
    assert compile_(other, even).config == even
    plain = with_layer(network, shift=np.zeros(4, np.int64), scale=((Term(False, 0),),) * 4)
    assert np.array_equal(compile_(plain, even).words, compile_(plain, ROOMY).words)
    with pytest.raises(ModelError, match="the network's input is rounded 'half_up'"):
        compile_(dataclasses.replace(plain, input=(source := dataclasses.replace(source, exponent=-7)), layers=(
            dataclasses.replace(plain.layers[0], source=source),)), even)


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

    monkeypatch.setattr("shiftwright.sw.compiler.weights.encode_layers", refuse)
    with pytest.raises(CapacityError, match="^layer one: too many different weights$"):
        compile_(small(rng), ROOMY)


@pytest.mark.parametrize(("config", "options", "message"), [
    ({"act_bits": 4}, {}, "layer one: its input input has 8 bits, more than the accelerator's act_bits of 4"),
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
