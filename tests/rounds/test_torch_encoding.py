"""With torch loaded, 16-bit numbers are made faster, and are the same bits as without."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from encagg_cli.rounds import torch_encoding
from encagg_cli.rounds.encoding import encode, norm, stored_dtype

SIZE = 3 * torch_encoding.PIECE + 1001
TYPES = ("float16", "bfloat16")
MODEST = np.random.default_rng(1).standard_normal(SIZE).astype(np.float32)


def both(monkeypatch: pytest.MonkeyPatch, values: np.ndarray, stored_type: str):
    """Stored bits, whether it was out of range, and the norm: with torch, and without."""
    assert torch_encoding.loaded(stored_type, len(values)) is torch
    found = []
    for _ in range(2):
        out = np.full(len(values), 7, dtype=stored_dtype(stored_type))
        overflowed = encode(values, stored_type, out)
        found.append((out.view(np.uint16), overflowed, norm(out, stored_type)))
        monkeypatch.setattr(torch_encoding, "loaded", lambda *_: None)
    return found


def assert_same(monkeypatch: pytest.MonkeyPatch, values: np.ndarray, stored_type: str) -> None:
    with_torch, without = both(monkeypatch, values, stored_type)
    np.testing.assert_array_equal(with_torch[0], without[0])
    assert with_torch[1] == without[1]
    np.testing.assert_equal(with_torch[2], without[2])


@pytest.mark.parametrize("stored_type", TYPES)
@pytest.mark.parametrize("seed", range(4))
def test_any_bits_are_rounded_alike(monkeypatch: pytest.MonkeyPatch, stored_type: str, seed: int):
    bits = np.random.default_rng(seed).integers(0, 2**32, SIZE, dtype=np.uint32)
    assert_same(monkeypatch, bits.view(np.float32), stored_type)


@pytest.mark.parametrize("stored_type", TYPES)
def test_ties_and_what_is_next_to_them_are_rounded_alike(monkeypatch: pytest.MonkeyPatch, stored_type: str):
    """Around every number of the type, subnormal ones included, and halfway to the next."""
    stored = np.arange(2**16, dtype=np.uint16)
    if stored_type == "bfloat16":
        numbers = (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    else:
        numbers = stored.view(np.float16).astype(np.float32)
    numbers = numbers[np.isfinite(numbers)]
    bits = numbers.view(np.uint32)[:, np.newaxis]
    place = np.uint32(2 ** (15 if stored_type == "bfloat16" else 12))  # half of the last place
    around = np.concatenate([bits + offset for offset in (0, 1, place - 1, place, place + 1)], axis=1).reshape(-1)
    small = np.abs(around.view(np.float32)) < (3e38 if stored_type == "bfloat16" else 6e4)

    assert_same(monkeypatch, around.view(np.float32)[small], stored_type)


@pytest.mark.parametrize("stored_type", TYPES)
@pytest.mark.parametrize("size", [1023, 1024, torch_encoding.PIECE, torch_encoding.PIECE + 1, 2**16, SIZE])
def test_updates_of_any_size_are_rounded_alike(monkeypatch: pytest.MonkeyPatch, stored_type: str, size: int):
    with monkeypatch.context() as patch:
        patch.setattr(torch_encoding, "_WORTH_IT", 1)
        assert_same(patch, MODEST[:size], stored_type)


@pytest.mark.parametrize(
    ("stored_type", "largest", "beyond"),
    [("float16", 65_519.996, 65_520.0), ("bfloat16", 3.396177427e38, 3.3961775292304601e38)],
)
def test_only_what_becomes_infinite_is_reported(
    monkeypatch: pytest.MonkeyPatch, stored_type: str, largest: float, beyond: float
):
    for value, expected in ((largest, False), (beyond, True), (-beyond, True), (np.inf, False), (np.nan, False)):
        values = MODEST.copy()
        values[-1] = value
        with monkeypatch.context() as patch:
            with_torch, without = both(patch, values, stored_type)
        assert with_torch[1] == without[1] == expected
        np.testing.assert_array_equal(with_torch[0], without[0])


@pytest.mark.parametrize("stored_type", TYPES)
def test_arrays_that_torch_does_not_take_are_rounded_alike_and_without_a_warning(
    monkeypatch: pytest.MonkeyPatch, stored_type: str
):
    fixed = MODEST.copy()
    fixed.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for values in (fixed, MODEST[::2], MODEST[::-1], MODEST.astype(">f4"), MODEST.astype(np.float64)):
            with monkeypatch.context() as patch:
                assert_same(patch, values, stored_type)


@pytest.mark.parametrize("stored_type", TYPES)
def test_within_a_mode_of_torch_that_only_pretends_all_is_done_without_it(stored_type: str):
    plain, pretended = (np.zeros(SIZE, dtype=stored_dtype(stored_type)) for _ in range(2))
    assert not encode(MODEST, stored_type, plain)
    with FakeTensorMode():
        assert not encode(MODEST, stored_type, pretended)
        size = norm(pretended, stored_type)
    np.testing.assert_array_equal(pretended, plain)
    assert size == norm(plain, stored_type)


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_it_stays_in_the_thread_that_calls():
    program = """
import os, numpy, torch
from encagg_cli.rounds.encoding import encode, norm
torch.set_num_threads(4)
values = numpy.random.default_rng(0).standard_normal(500_000).astype("f4")
before = len(os.listdir("/proc/self/task"))
for stored_type, out in (("float16", numpy.empty(500_000, "f2")), ("bfloat16", numpy.empty(500_000, "u2"))):
    encode(values, stored_type, out)
    norm(out, stored_type)
after = len(os.listdir("/proc/self/task"))
torch.from_numpy(values).to(torch.float16)  # in one piece
print(after - before, len(os.listdir("/proc/self/task")) > after)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "0 True\n"
