"""Pairs of small random networks, written here and read back bit for bit; and damaged ones."""

import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.ncnn.pairs import Style, random_state, write_pair
from upscaled_models.errors import WeightsError
from upscaled_models.families import Family, Shape
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.families.rrdb import rrdb_shape
from upscaled_models.families.span import span_shape
from upscaled_models.ncnn.graph import MAX_CHANNELS
from upscaled_models.ncnn.pair import read_pair, to_safetensors
from upscaled_models.ncnn.param import MAX_LAYERS, MAX_PARAM_BYTES
from upscaled_models.ncnn.patterns import Tensors

PARAM, BIN = Path("net.param"), Path("net.bin")
RRDB = rrdb_shape(scale=4, num_block=2, num_feat=6, num_grow_ch=3)
COMPACT = srvgg_shape(upscale=4, num_conv=2, num_feat=5)
SPAN = span_shape(scale=2, features=4)

SHAPES: list[tuple[Family, Shape]] = [
    ("rrdb", RRDB),
    ("rrdb", rrdb_shape(scale=2, num_block=1, num_feat=4, num_grow_ch=2)),
    ("rrdb", rrdb_shape(scale=1, num_block=1, num_feat=4, num_grow_ch=2)),
    ("srvgg", COMPACT),
    ("srvgg", srvgg_shape(upscale=2, num_conv=0, num_feat=3)),
    ("srvgg", srvgg_shape(upscale=3, num_conv=1, num_feat=3, act_type="leakyrelu")),
    ("srvgg", srvgg_shape(upscale=4, num_conv=1, num_feat=3, act_type="relu")),
    ("span", SPAN),
    ("span", span_shape(scale=4, features=3)),
]
STYLES = [
    Style(bits=bits, fuses=fuses, swaps=swaps, nests=swaps, raw_tag=fuses, seed=bits + swaps)
    for bits, fuses, swaps in product((16, 32), (True, False), (True, False))
]


def read(param: bytes, weights: bytes) -> tuple[Family, Shape, Tensors]:
    return read_pair(param, weights, param_shown_as=PARAM, weights_shown_as=BIN)


def refusal(param: bytes, weights: bytes) -> str:
    with pytest.raises(WeightsError) as refused:
        read(param, weights)
    return str(refused.value)


@pytest.fixture(scope="module")
def rrdb_pair() -> tuple[bytes, bytes]:
    return write_pair("rrdb", RRDB, random_state("rrdb", RRDB))


@pytest.fixture(scope="module")
def compact_pair() -> tuple[bytes, bytes]:
    return write_pair("srvgg", COMPACT, random_state("srvgg", COMPACT))


@pytest.mark.parametrize("style", STYLES, ids=str)
@pytest.mark.parametrize(("family", "shape"), SHAPES)
def test_a_pair_gives_its_networks_weights_bit_for_bit(
    family: Family, shape: Shape, style: Style
) -> None:
    state = random_state(family, shape)
    found_family, found_shape, tensors = read(*write_pair(family, shape, state, style))
    assert (found_family, found_shape) == (family, shape)
    assert tensors.keys() == state.keys()
    for key, value in tensors.items():
        assert value.shape == state[key].shape
        assert np.array_equal(value.astype(np.float32), state[key])
        is_kernel = value.ndim == 4
        assert value.dtype == (np.float16 if is_kernel and style.bits == 16 else np.float32)


def test_lines_may_end_as_on_windows(compact_pair: tuple[bytes, bytes]) -> None:
    param, weights = compact_pair
    assert read(param.replace(b"\n", b"\r\n"), weights)[1] == COMPACT


def test_options_that_change_nothing_are_passed_over(compact_pair: tuple[bytes, bytes]) -> None:
    param, weights = compact_pair
    hinted = param.replace(b" 1=3 4=1", b" 1=3 11=3 2=1 12=1 3=1 13=1 4=1 14=1 18=0.0 19=0")
    hinted = hinted.replace(b"PReLU ", b"PReLU   ").replace(b"0=5\n", b"0=5 -23330=3,5,9,9 31=1\n")
    assert hinted.count(b"-23330") == 3
    assert read(hinted, weights)[1] == COMPACT


def test_the_safetensors_file_of_a_pair_holds_the_same_tensors(
    rrdb_pair: tuple[bytes, bytes],
) -> None:
    tensors = read(*rrdb_pair)[2]
    data = to_safetensors(tensors)
    loaded = safetensors.numpy.load(data)
    assert loaded.keys() == tensors.keys()
    for key, value in tensors.items():
        assert loaded[key].dtype == value.dtype
        assert np.array_equal(loaded[key], value)
    assert to_safetensors(dict(reversed(list(tensors.items())))) == data
    assert len(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])) == len(tensors)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"7767517", b"7767518", "does not begin with 7767517"),
        (b"7767517\n", b"\xdd\x85\x76\x00\n", "binary form; only the text form"),
        (b"7767517\n", b"7767517\n\xff", "it is no text"),
        (b"7767517\n", b"7767517\nx", "line 2 must be two whole numbers"),
        (b"\nInput", b"\nNoop n 0 0\nInput", "holds 13 layers, and says it has 12"),
        (b"PReLU", b"TanH", "TanH prelu_.* no network has whose ncnn pairs"),
        (b"Convolution ", b"ConvolutionDepthWise ", "ConvolutionDepthWise .* no network has"),
        (b"6=135", b"6=136", r"136 weights \(option 6\), but 5 times 3 channels in 3x3 are 135"),
        (b"6=135", b"6=135 8=102", "number of bits"),
        (b"6=135", b"6=135 6=135", "has option 6 twice"),
        (b"6=135", b"6=135 77=1", "option 77 is not known"),
        (b"6=135", b"6=135 9=3 -23310=2,0.1,1.0", "activation 3"),
        (b"6=135", b"6=135 9=2", r"activation 2 \(option 9\) with 0 numbers"),
        (b"6=135", b"6=135 -23310=2,0.1", "an array of 1 numbers says it has 2"),
        (b"6=135", b"6=1e999", "no number"),
        (b"6=135", b"6=0x87", "0x87 is no number"),
        (b"6=135", b"6", "6 is no option"),
        (b"1=3", b"1=5", r"kernel size is 5 \(option 1\), in networks here 1 or 3"),
        (b"1=3", b"1=1", r"padding is 1 \(option 4\), in networks here 0"),
        (b"1=3", b"1=3 11=1", r"kernel size is 1 \(option 11\)"),
        (b"1=3", b"1=3 3=2", "stride is 2"),
        (b"1=3", b"1=3 2=2", "dilation is 2"),
        (b"4=1", b"4=0", "padding is 0"),
        (b"4=1", b"4=1 16=0", r"padding is 0 \(option 16\)"),
        (b"5=1", b"5=0", "whether it has biases is 0"),
        (b"0=5\n", b"0=6\n", "6 slopes for 5 channels"),
        (b"PixelShuffle", b"PixelShuffle  ", None),
        (b" 0=4\n", b" 0=4 1=1\n", "the order of pixels is 1"),
        (b" 0=4\n", b" 0=5\n", "48 channels are no 5x5"),
        (b" 0=4\n", b" 0=2\n", "different numbers of channels"),
        (b"Interp", b"Interp ", None),
        (b"0=1 1=4.0", b"0=3 1=4.0", "way to resize .* is 3"),
        (b"2=4.000000e+00", b"2=2.000000e+00", r"resizes 2\.0 by 4\.0 times"),
        (
            b"1=4.000000e+00 2=4.000000e+00",
            b"1=2.0 2=2.0",
            "an enlargement by 2, in a compact network by 4",
        ),
        (b"1=4.000000e+00 2=4.000000e+00", b"1=.5 2=.5", r"\.5 is no number"),
        (b"BinaryOp", b"Eltwise", "the operation .* is 0"),
        (b"Input", b"Split", "Split .*: 0 inputs, must be 1 to 1"),
        (b"Split split", b"Split\xc3\xa9\x1b[31m split", r"Split\\xe9\\x1b\[31m split"),
    ],
)
def test_a_changed_text_is_refused_with_the_reason(
    old: bytes, new: bytes, reason: str | None, compact_pair: tuple[bytes, bytes]
) -> None:
    check_change(compact_pair, COMPACT, old, new, reason)


def check_change(
    pair: tuple[bytes, bytes], shape: Shape, old: bytes, new: bytes, reason: str | None
) -> None:
    """Check that a pair with one change is refused, or, without a reason, read as it was."""
    param, weights = pair
    assert old in param
    changed = param.replace(old, new, 1)
    if reason is None:
        assert read(changed, weights)[1] == shape
        return
    said = refusal(changed, weights)
    assert said.startswith("net.param: ")
    assert re.search(reason, said), said


def test_a_text_of_the_largest_size_is_read_and_one_byte_more_is_not(
    compact_pair: tuple[bytes, bytes],
) -> None:
    param, weights = compact_pair
    largest = param + b" " * (MAX_PARAM_BYTES - len(param))
    assert read(largest, weights)[1] == COMPACT
    assert "more than any network's .param" in refusal(largest + b" ", weights)


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        (0x000D4B38, "line 5, Convolution .*: its weights are in 8 bits, which are not read here"),
        (0x12345678, "at byte 0 is the tag 0x12345678, neither 16 nor 32 bits"),
        (0x0002C056, "has weights up to"),
    ],
)
def test_weights_of_another_kind_are_refused_by_their_tag(
    tag: int, reason: str, compact_pair: tuple[bytes, bytes]
) -> None:
    param, weights = compact_pair
    short = weights[:200] if tag == 0x0002C056 else weights
    said = refusal(param, tag.to_bytes(4, "little") + short[4:])
    assert said.startswith("net.bin: ")
    assert re.search(reason.replace("line 5", r"line \d"), said), said


@pytest.mark.parametrize("bits", [16, 32])
def test_weights_that_are_missing_or_left_over_are_refused(bits: int) -> None:
    state = random_state("srvgg", COMPACT)
    param, weights = write_pair("srvgg", COMPACT, state, Style(bits=bits))
    for size in {0, 1, 4, 5, len(weights) // 2, len(weights) - 4, len(weights) - 1}:
        assert re.search(r"^net\.bin: it ends after \d+ bytes", refusal(param, weights[:size]))
    said = refusal(param, weights + b"\0")
    assert (
        f"it has {len(weights) + 1} bytes, and the layers of the .param file {len(weights)}" in said
    )


def test_weights_that_are_not_finite_are_refused(compact_pair: tuple[bytes, bytes]) -> None:
    param, weights = compact_pair
    for value in (np.inf, np.nan):
        half = np.float16(value).tobytes()
        assert "not finite" in refusal(param, weights[:4] + half + weights[6:])
        single = np.float32(value).tobytes()
        assert "not finite" in refusal(param, weights[:-4] + single)


def swap_blobs(param: bytes, line: int, first: int, second: int) -> bytes:
    """Return the text with two words of one line exchanged."""
    lines = param.split(b"\n")
    words = lines[line].split()
    words[first], words[second] = words[second], words[first]
    lines[line] = b" ".join(words)
    return b"\n".join(lines)


@pytest.mark.parametrize(
    ("features", "kernel_px", "reason"),
    [
        (6, 3, "has 6 channels, in a compact network 5"),
        (5, 1, "has 1 pixels as its kernel's side, in a compact network 3"),
    ],
)
def test_a_convolution_of_another_size_is_no_compact_networks(
    features: int, kernel_px: int, reason: str
) -> None:
    state = random_state("srvgg", COMPACT)
    state["body.2.weight"] = np.zeros((features, 5, kernel_px, kernel_px), np.float32)
    state["body.2.bias"] = state["body.3.weight"] = np.zeros(features, np.float32)
    state["body.4.weight"] = np.zeros((5, features, 3, 3), np.float32)
    said = refusal(*write_pair("srvgg", COMPACT, state))
    assert re.search(rf"^net\.param: line \d+, Convolution .*: {reason}", said), said


def test_values_joined_in_another_order_are_no_rrdb_network(rrdb_pair: tuple[bytes, bytes]) -> None:
    """Same layers, same sizes, same names: only the graph differs."""
    param, weights = rrdb_pair
    joins = [
        index
        for index, line in enumerate(param.split(b"\n"))
        if line.startswith(b"Concat") and int(line.split()[2]) >= 3
    ]
    assert len(joins) == 3 * 2 * 3
    for line in joins:
        said = refusal(swap_blobs(param, line, 5, 6), weights)
        assert said.startswith("net.param: line "), said


def test_a_residual_at_another_factor_is_no_rrdb_network(rrdb_pair: tuple[bytes, bytes]) -> None:
    param, weights = rrdb_pair
    for old, new in (
        (b"2.000000e-01,1.000000e+00", b"3.000000e-01,1.000000e+00"),
        (b"2.000000e-01,1.000000e+00", b"2.000000e-01,2.000000e+00"),
        (b"-23310=1,2.000000e-01", b"-23310=1,1.000000e-01"),
        (b"9=2 -23310=1,2.000000e-01", b"9=1"),
    ):
        for count in (1, param.count(old)):
            assert "RRDB network" in refusal(param.replace(old, new, count), weights)


@pytest.fixture(scope="module")
def span_pair() -> tuple[bytes, bytes]:
    return write_pair("span", SPAN, random_state("span", SPAN))


def test_a_picture_that_is_not_normalised_has_a_mean_of_0_and_a_gain_of_1() -> None:
    state = random_state("span", SPAN)
    state["mean"], state["gain"] = np.zeros(3, np.float32), np.ones(1, np.float32)
    tensors = read(*write_pair("span", SPAN, state))[2]
    assert tensors["mean"].tolist() == [0, 0, 0]
    assert tensors["gain"].tolist() == [1]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"Swish", b"Sigmoid", "a SPAN network has a swish here"),
        (b"Sigmoid", b"Swish", "a SPAN network has a sigmoid here"),
        (b"2=5.000000e-01", b"2=2.500000e-01", "by -0.25, in a SPAN network by -0.5"),
        (b"0=1 1=1 2=5", b"0=2 1=1 2=5", "a SPAN network has another product here"),
        (b"0=1 1=1 2=5", b"0=3 1=1 2=5", "operation 3"),
        (b"PixelShuffle", b"Reorg", "this is none of them"),
        (b"0=1 1=1 2=3", b"0=1 1=3 2=1", "the height of the constants is 3"),
        (b"0=1 1=1 2=3", b"0=1 1=1 2=3 21=0", "how the constants are stored"),
        (b"Concat", b"Concat ", None),
    ],
)
def test_a_changed_span_network_is_refused_with_the_reason(
    old: bytes, new: bytes, reason: str | None, span_pair: tuple[bytes, bytes]
) -> None:
    check_change(span_pair, SPAN, old, new, reason)


def test_values_joined_in_another_order_are_no_span_network(span_pair: tuple[bytes, bytes]) -> None:
    param, weights = span_pair
    (line,) = (n for n, text in enumerate(param.split(b"\n")) if text.startswith(b"Concat"))
    for first, second in ((4, 5), (5, 6), (6, 7), (4, 7)):
        said = refusal(swap_blobs(param, line, first, second), weights)
        assert "SPAN network" in said, said


def test_a_layer_that_leads_nowhere_is_refused(compact_pair: tuple[bytes, bytes]) -> None:
    param, weights = compact_pair
    lines = param.decode().splitlines()
    source = lines[2].split()[4]
    lines[1] = f"{len(lines) - 1} {int(lines[1].split()[1]) + 1}"
    lines.append(f"ReLU aside 1 1 {source} nowhere")
    assert "has one result, and this has 2" in refusal("\n".join(lines).encode(), weights)


def test_values_joined_with_themselves_again_and_again_are_refused(
    compact_pair: tuple[bytes, bytes],
) -> None:
    """Each joins the last one twice: unbounded, sixty of them would be 2^60 values."""
    lines = ["Input in 0 1 v0"] + [f"Concat c{n} 2 1 v{n} v{n} v{n + 1}" for n in range(60)]
    param = "\n".join(["7767517", f"{len(lines)} {len(lines)}", *lines]).encode()
    assert "joins more than 5 values" in refusal(param, b"")


def test_the_most_channels_are_accepted_and_more_are_refused() -> None:
    """Folded again and again, a picture's channels would be numbers of millions of digits."""
    head = ["7767517", "2 2", "Input in 0 1 v0"]
    assert 3 * 147**2 <= MAX_CHANNELS < 3 * 148**2
    for factor, said in ((147, "this is none of them"), (148, "more than 65536 channels")):
        param = "\n".join([*head, f"Reorg r 1 1 v0 v1 0={factor}"]).encode()
        assert said in refusal(param, b"")


def test_a_network_that_only_splits_its_input_is_refused() -> None:
    lines = ["7767517", "2 3", "Input in 0 1 v0", "Split s 1 2 v0 v1 v2"]
    assert "line 3, Input in: the last layer of an RRDB" in refusal("\n".join(lines).encode(), b"")


def test_the_most_layers_are_walked_without_recursion_and_one_more_is_refused() -> None:
    lines = ["Input in 0 1 v0"]
    lines += [f"ReLU r{n} 1 1 v{n} v{n + 1} 0=0.1" for n in range(MAX_LAYERS)]
    for count, said in (
        (MAX_LAYERS, "this is none of them"),
        (MAX_LAYERS + 1, "20001 layers are more"),
    ):
        param = "\n".join(["7767517", f"{count} {count}", *lines[:count]]).encode()
        assert said in refusal(param, b"")


@st.composite
def damages(draw: st.DrawFn) -> tuple[bool, list[tuple[float, int]], float]:
    """Draw a file, a change of its bytes, and how much of it is kept."""
    changes = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255))
    return (
        draw(st.booleans()),
        draw(st.lists(changes, max_size=8)),
        draw(st.sampled_from((1.0, 1.0, 0.99, 0.5))),
    )


@settings(max_examples=150, deadline=None)
@given(damage=damages(), which=st.integers(0, 2))
def test_a_damaged_pair_is_read_or_refused_and_never_crashes(
    damage: tuple[bool, list[tuple[float, int]], float],
    which: int,
    rrdb_pair: tuple[bytes, bytes],
    compact_pair: tuple[bytes, bytes],
    span_pair: tuple[bytes, bytes],
) -> None:
    in_text, changes, left = damage
    pair = [bytearray(part) for part in (rrdb_pair, compact_pair, span_pair)[which]]
    damaged = pair[0 if in_text else 1]
    for place, byte in changes:
        damaged[int(place * len(damaged))] = byte
    del damaged[int(left * len(damaged)) :]
    try:
        family, shape, tensors = read(bytes(pair[0]), bytes(pair[1]))
    except WeightsError as error:
        said = str(error)
    else:
        assert tensors.keys() == random_state(family, shape).keys()
        return
    assert re.match(r"net\.(param|bin): ", said)
    assert said.isascii()
    assert said.isprintable()


def test_text_with_any_word_removed_or_doubled_is_refused_or_the_same(
    compact_pair: tuple[bytes, bytes],
) -> None:
    param, weights = compact_pair
    whole = read(param, weights)[2]
    words = re.split(rb"(\s+)", param)
    for index in range(0, len(words), 2):
        for changed in (
            words[:index] + words[index + 1 :],
            [*words[:index], words[index], b" ", *words[index:]],
        ):
            try:
                tensors = read(b"".join(changed), weights)[2]
            except WeightsError:
                continue
            assert all(np.array_equal(tensors[key], whole[key]) for key in whole)
