"""Numbers are rounded once, to the nearest, ties to even, and measured as they were stored."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encagg_cli.rounds.encoding import decode, encode, norm, stored_dtype
from encagg_cli.rounds.layout import STORED_TYPES

floats32 = st.floats(width=32, allow_nan=False)
floats64 = st.floats(allow_nan=False, allow_infinity=False)


def stored(values: np.ndarray, stored_type: str) -> np.ndarray:
    out = np.empty(len(values), dtype=stored_dtype(stored_type))
    encode(values, stored_type, out)
    return out


def decoded(bits: np.ndarray, stored_type: str) -> np.ndarray:
    out = np.empty(bits.shape, dtype=np.float32)
    decode(bits, stored_type, out)
    return out


@given(st.lists(floats32, min_size=1, max_size=50))
def test_bfloat16_is_what_torch_makes_of_float32(values):
    single = np.array(values, dtype=np.float32)
    expected = torch.from_numpy(single).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(decoded(stored(single, "bfloat16"), "bfloat16"), expected)


@given(st.lists(floats32, min_size=1, max_size=50))
def test_float16_is_what_torch_makes_of_float32(values):
    single = np.array(values, dtype=np.float32)
    expected = torch.from_numpy(single).to(torch.float16).float().numpy()
    np.testing.assert_array_equal(decoded(stored(single, "float16"), "float16"), expected)


@given(
    st.one_of(
        floats64,
        st.builds(lambda e, m: (1 + 2.0**-8 + m * 2.0**-52) * 2.0**e, st.integers(-99, 99), st.integers(-2, 2)),
    )
)
def test_a_float64_is_rounded_once_to_bfloat16(value):
    result = float(decoded(stored(np.array([value]), "bfloat16"), "bfloat16")[0])
    assert result == nearest_bfloat16(value)


def nearest_bfloat16(value: float) -> float:
    """By exact arithmetic: of the bfloat16 numbers around the value, the nearest; of two, the even one."""
    limit = Fraction(2) ** 128 - Fraction(2) ** 119  # halfway between the largest and what would come next
    if abs(Fraction(value)) >= limit:
        return float(np.copysign(np.inf, value))
    around = np.float32(value).view(np.uint32) >> 16 if np.isfinite(np.float32(value)) else np.uint32(0x7F7F)
    candidates = [(int(around) & 0x7FFF) + step for step in (-1, 0, 1) if 0 <= (int(around) & 0x7FFF) + step < 0x7F80]
    distance = {
        bits: abs(abs(Fraction(value)) - Fraction(float(np.uint32(bits << 16).view(np.float32)))) for bits in candidates
    }
    best = min(distance.values())
    bits = min((bits for bits in candidates if distance[bits] == best), key=lambda bits: bits & 1)
    return float(np.copysign(np.uint32(bits << 16).view(np.float32), value))


@pytest.mark.parametrize("stored_type", STORED_TYPES)
def test_nan_and_infinity_stay_what_they_are(stored_type):
    values = np.array([np.nan, -np.nan, np.inf, -np.inf, 1.0], dtype=np.float32)
    values = np.append(
        values, np.uint32([0x7F800001, 0xFFFFFFFF]).view(np.float32)
    )  # NaNs whose upper half says little
    result = decoded(stored(values, stored_type), stored_type)
    np.testing.assert_array_equal(result, [np.nan, np.nan, np.inf, -np.inf, 1.0, np.nan, np.nan])


@pytest.mark.parametrize(
    ("stored_type", "largest", "beyond"),
    [
        ("float16", 65_504.0, 65_520.0),
        ("bfloat16", 3.3895313892515355e38, 3.3961775292304601e38),
        ("float32", 3.4e38, 3.5e38),
    ],
)
def test_what_is_out_of_range_becomes_infinite_and_is_reported(stored_type, largest, beyond):
    out = np.empty(2, dtype=stored_dtype(stored_type))
    assert encode(np.array([largest, -largest]), stored_type, out) is False
    assert np.isfinite(decoded(out, stored_type)).all()
    assert encode(np.array([1.0, -beyond]), stored_type, out) is True
    np.testing.assert_array_equal(decoded(out, stored_type), [1.0, -np.inf])


@pytest.mark.parametrize("stored_type", STORED_TYPES)
@pytest.mark.parametrize("size", [1, 65_536, 200_001])
def test_the_norm_is_that_of_the_stored_values(stored_type, size):
    bits = stored(np.random.default_rng(size).standard_normal(size) * 1e3, stored_type)
    exact = np.sqrt(np.sum(decoded(bits, stored_type).astype(np.longdouble) ** 2))
    assert norm(bits, stored_type) == pytest.approx(float(exact), rel=1e-14)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_the_norm_of_a_row_that_is_not_finite_is_not_finite(poison):
    values = np.ones(100_000, dtype=np.float32)
    values[70_000] = poison
    assert not np.isfinite(norm(values, "float32"))


def test_a_norm_beyond_float32_is_measured():
    assert norm(np.full(4, 3e38, dtype=np.float32), "float32") == pytest.approx(6e38, rel=1e-6)


def test_integers_and_truth_values_are_numbers_too():
    np.testing.assert_array_equal(decoded(stored(np.array([True, False]), "bfloat16"), "bfloat16"), [1, 0])
    np.testing.assert_array_equal(decoded(stored(np.array([3, -(2**40)]), "bfloat16"), "bfloat16"), [3, -(2.0**40)])
