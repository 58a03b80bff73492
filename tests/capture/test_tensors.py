"""Tensor files: every format gives back the numbers that were written, and no hostile file gets past the reader."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file as save_torch

from encagg_cli.capture.tensors import SUFFIXES, open_tensors
from encagg_cli.errors import UnusableInput

FLOATS = st.sampled_from(["<f2", "<f4", "<f8"])
ALL_TYPES = st.one_of(FLOATS, st.sampled_from(["i1", "<i2", "<i4", "<i8", "u1", "<u2", "<u4", "<u8", "?"]))
ARRAYS = ALL_TYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=12).filter(
    lambda name: name not in {"__metadata__", ".", ".."} and name == name.strip()
)


class Payload:
    """Leaves a file behind if anyone unpickles it."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.witness}",)


def contents(path: Path) -> dict[str, np.ndarray]:
    with open_tensors(path) as tensors:
        return {name: tensors.read(name) for name in tensors.entries}


def assert_same(read: np.ndarray, written: np.ndarray) -> None:
    assert read.dtype.isnative
    assert read.shape == written.shape
    np.testing.assert_array_equal(read, written)


@settings(max_examples=40, deadline=None)
@given(array=ARRAYS, big_endian=st.booleans(), fortran=st.booleans())
def test_npy_gives_back_what_was_written(tmp_path_factory, array, big_endian, fortran):
    path = tmp_path_factory.mktemp("npy") / "client.npy"
    written = array.astype(array.dtype.newbyteorder(">")) if big_endian else array
    np.save(path, np.array(written, order="F" if fortran else "C"))
    read = contents(path)
    assert list(read) == ["update"]
    assert_same(read["update"], array)


@settings(max_examples=40, deadline=None)
@given(arrays=st.dictionaries(NAMES, ARRAYS, max_size=4), compressed=st.booleans())
def test_npz_gives_back_what_was_written_in_the_order_of_writing(tmp_path_factory, arrays, compressed):
    path = tmp_path_factory.mktemp("npz") / "client.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.save(member, array)
    read = contents(path)
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert_same(read[name], array)


@settings(max_examples=40, deadline=None)
@given(arrays=st.dictionaries(NAMES, ARRAYS, max_size=4))
def test_safetensors_give_back_what_was_written(tmp_path_factory, arrays):
    path = tmp_path_factory.mktemp("safetensors") / "client.safetensors"
    save_numpy({name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}, path)
    read = contents(path)
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        assert_same(read[name], array)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64, torch.bool]
)
def test_torch_types_are_read_exactly(tmp_path, suffix, dtype):
    written = (torch.randn(5, 3, generator=torch.Generator().manual_seed(1)) * 100).to(dtype)
    path = tmp_path / f"client{suffix}"
    if suffix == ".pt":
        torch.save({"w": written, "b": written[0].clone()}, path)
    else:
        save_torch({"w": written, "b": written[0].clone()}, path)
    read = contents(path)
    expected = written.to(torch.float64).numpy()
    np.testing.assert_array_equal(read["w"].astype(np.float64), expected)
    np.testing.assert_array_equal(read["b"].astype(np.float64), expected[0])
    with open_tensors(path) as tensors:
        assert tensors.entries["w"].is_floating == dtype.is_floating_point
        assert tensors.entries["w"].shape == (5, 3)


def test_bfloat16_keeps_infinities_nan_and_subnormal_numbers(tmp_path):
    bits = np.arange(2**16, dtype=np.uint16)
    values = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)
    save_torch({"all": values}, tmp_path / "all.safetensors")
    read = contents(tmp_path / "all.safetensors")["all"]
    np.testing.assert_array_equal(read.view(np.uint32) >> 16, bits)


def test_a_state_dictionary_keeps_its_order_and_a_bare_tensor_is_the_update(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    torch.save(model.state_dict(), tmp_path / "model.pth")
    torch.save(torch.nn.Parameter(torch.arange(4.0)), tmp_path / "bare.pt")
    assert list(contents(tmp_path / "model.pth")) == list(model.state_dict())
    with open_tensors(tmp_path / "bare.pt") as bare:
        assert bare.is_bare
        np.testing.assert_array_equal(bare.read("update"), [0, 1, 2, 3])


def test_views_and_transposed_tensors_are_read_as_they_look(tmp_path):
    matrix = torch.arange(6.0).reshape(2, 3)
    torch.save({"t": matrix.T, "row": matrix[1]}, tmp_path / "views.pt")
    read = contents(tmp_path / "views.pt")
    np.testing.assert_array_equal(read["t"], matrix.numpy().T)
    np.testing.assert_array_equal(read["row"], [3, 4, 5])


def test_safetensors_metadata_is_there_for_who_asks(tmp_path):
    save_numpy({"w": np.zeros(2)}, tmp_path / "client.safetensors", metadata={"num_examples": "600"})
    with open_tensors(tmp_path / "client.safetensors") as tensors:
        assert tensors.metadata == {"num_examples": "600"}


# --- hostile and damaged files ---------------------------------------------------------------------------------------


def write_pickled_npy(path: Path, witness: Path) -> None:
    np.save(path, np.array([Payload(witness)], dtype=object), allow_pickle=True)


def write_pickled_npz(path: Path, witness: Path) -> None:
    np.savez(path, w=np.array([Payload(witness)], dtype=object))


def write_pickled_pt(path: Path, witness: Path) -> None:
    torch.save({"w": Payload(witness)}, path)


def write_pickle(path: Path, witness: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(witness)))


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".npy", write_pickled_npy),
        (".npz", write_pickled_npz),
        (".pt", write_pickled_pt),
        (".pth", write_pickled_pt),
        *((suffix, write_pickle) for suffix in SUFFIXES),
    ],
)
def test_a_pickle_is_refused_and_never_run(tmp_path, suffix, write):
    witness = tmp_path / "witness"
    path = tmp_path / f"client{suffix}"
    write(path, witness)
    with pytest.raises(UnusableInput, match=str(path)):
        contents(path)
    assert not witness.exists()


def good_files(folder: Path) -> list[Path]:
    values = np.arange(1000, dtype=np.float32)
    np.save(folder / "client.npy", values)
    np.savez(folder / "client.npz", w=values, b=values[:3])
    np.savez_compressed(folder / "compressed.npz", w=values, b=values[:3])
    save_numpy({"w": values, "b": values[:3]}, folder / "client.safetensors")
    torch.save({"w": torch.from_numpy(values)}, folder / "client.pt")
    return sorted(folder.iterdir())


def test_a_file_cut_short_anywhere_does_not_open(tmp_path):
    for path in good_files(tmp_path):
        whole = path.read_bytes()
        assert contents(path)
        for length in [*range(0, 200, 7), *range(200, len(whole) - 1, 211), len(whole) - 1]:
            path.write_bytes(whole[:length])
            with pytest.raises(UnusableInput):
                open_tensors(path)


def test_damaged_bytes_are_refused_or_read_never_worse(tmp_path):
    random = np.random.default_rng(0)
    messages, n_read = [], 0
    for path in good_files(tmp_path):
        whole = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            for position in random.integers(0, min(len(whole), 400), size=3):
                damaged[position] = random.integers(256)
            path.write_bytes(damaged)
            try:
                contents(path)
                n_read += 1
            except UnusableInput as error:
                messages.append(str(error))
    assert n_read > 0
    assert messages
    assert all("client." in message or "compressed." in message for message in messages)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_links_pipes_and_folders_are_refused(tmp_path, suffix):
    np.save(tmp_path / "real.npy", np.zeros(3))
    link, pipe, folder = (tmp_path / f"{name}{suffix}" for name in ("link", "pipe", "folder"))
    link.symlink_to(tmp_path / "real.npy")
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (link, pipe, folder, tmp_path / f"missing{suffix}"):
        with pytest.raises(UnusableInput, match=path.stem):
            open_tensors(path)


def test_an_archive_bomb_is_refused_before_it_unfolds(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1_000_000_000_000,), }"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(UnusableInput):
        open_tensors(path)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("w.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": (2**26,)})
        for _ in range(2**9):
            member.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    with pytest.raises(UnusableInput, match="unfold"):
        open_tensors(path)


def test_a_view_that_repeats_one_number_forever_is_refused(tmp_path):
    torch.save({"w": torch.zeros(1).expand(10**12)}, tmp_path / "view.pt")
    with pytest.raises(UnusableInput, match="unfold"):
        open_tensors(tmp_path / "view.pt")


def test_small_compressed_zeros_are_welcome(tmp_path):
    np.savez_compressed(tmp_path / "zeros.npz", w=np.zeros(2**20))
    assert not contents(tmp_path / "zeros.npz")["w"].any()


@pytest.mark.parametrize(
    "value",
    [
        {"model": {"w": torch.zeros(2)}, "epoch": 3},
        {"w": torch.zeros(2), "epoch": 3},
        {0: torch.zeros(2)},
        [torch.zeros(2)],
        3,
        {"w": torch.zeros(2, dtype=torch.complex64)},
        {"w": torch.eye(3).to_sparse()},
        {"w": torch.zeros(2, device="meta")},
    ],
    ids=lambda value: str(value)[:30],
)
def test_torch_files_that_are_not_plain_tensors_say_what_they_are(tmp_path, value):
    torch.save(value, tmp_path / "client.pt")
    with pytest.raises(UnusableInput) as raised:
        contents(tmp_path / "client.pt")
    assert "client.pt" in raised.value.message
    assert "state_dict" in (raised.value.hint or "")


@pytest.mark.parametrize("dtype", ["complex64", "S3", "U3", "M8[s]", [("a", "f4")], "V2"])
def test_values_that_are_no_real_numbers_are_refused(tmp_path, dtype):
    np.save(tmp_path / "client.npy", np.zeros(3, dtype=dtype))
    with pytest.raises(UnusableInput, match="real numbers"):
        open_tensors(tmp_path / "client.npy")


def test_an_archive_may_not_name_an_array_twice_or_hold_anything_else(tmp_path):
    path = tmp_path / "client.npz"
    np.savez(path, v=np.zeros(2), w=np.zeros(2))
    path.write_bytes(path.read_bytes().replace(b"v.npy", b"w.npy"))
    with pytest.raises(UnusableInput, match="twice"):
        open_tensors(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../evil.txt", "x")
    with pytest.raises(UnusableInput, match="not an array"):
        open_tensors(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["client.npz"]


def test_an_unknown_suffix_lists_the_known_ones(tmp_path):
    (tmp_path / "client.pkl").write_bytes(b"x")
    with pytest.raises(UnusableInput) as raised:
        open_tensors(tmp_path / "client.pkl")
    assert all(suffix in raised.value.hint for suffix in SUFFIXES)
