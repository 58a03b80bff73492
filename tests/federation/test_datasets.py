"""Data sets: the bundled digits, and MNIST's and CIFAR-10's files, here small ones of the same layout."""

import gzip
import lzma

import numpy as np
import pytest

from encagg_cli.errors import UnusableInput, UsageError
from encagg_cli.federation import datasets


def packed(contents):
    return gzip.compress(contents, mtime=0)  # without the time: the same bytes in every process


def idx(values):
    header = (0x0800 | values.ndim).to_bytes(4, "big") + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return header + values.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path):
    rng = np.random.default_rng(0)
    images = {"train": rng.integers(0, 256, (30, 28, 28)), "t10k": rng.integers(0, 256, (10, 28, 28))}
    labels = {name: rng.integers(0, 10, len(values)) for name, values in images.items()}
    for name in images:
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(packed(idx(images[name])))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels[name]))
    return tmp_path, images, labels


@pytest.fixture
def cifar(tmp_path):
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (3, 8, 3073)).astype(np.uint8)
    records[:, :, 0] %= 10
    (tmp_path / "data_batch_1.bin.xz").write_bytes(lzma.compress(records[0].tobytes()))
    (tmp_path / "data_batch_3.bin").write_bytes(records[1].tobytes())
    (tmp_path / "test_batch.bin").write_bytes(records[2].tobytes())
    return tmp_path, records


def test_digits_come_with_scikit_learn_and_are_split_the_same_way_each_time():
    first, second = datasets.load("digits"), datasets.load("digits")
    assert first.train_x.shape == (1437, 1, 8, 8)
    assert first.test_x.shape == (360, 1, 8, 8)
    assert set(first.test_y) == set(range(10))
    np.testing.assert_array_equal(first.train_x, second.train_x)
    assert 0.0 <= first.train_x.min() < first.train_x.max() <= 1.0


def test_mnist_is_read_packed_or_not(mnist):
    folder, images, labels = mnist
    loaded = datasets.load("mnist", folder)
    assert loaded.train_x.shape == (30, 1, 28, 28)
    assert loaded.train_x.dtype == np.float32
    np.testing.assert_array_equal(loaded.test_y, labels["t10k"])
    expected = (images["train"][4] / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(loaded.train_x[4, 0], expected, rtol=1e-5, atol=1e-6)


def test_the_folder_may_be_one_above(mnist):
    folder, _, labels = mnist
    inner = folder / "inner" / "mnist"
    inner.mkdir(parents=True)
    for path in folder.glob("*ubyte*"):
        path.rename(inner / path.name)
    np.testing.assert_array_equal(datasets.load("mnist", folder / "inner").train_y, labels["train"])


def test_cifar_uses_the_batches_that_are_there(cifar):
    folder, records = cifar
    loaded = datasets.load("cifar10", folder)
    assert loaded.train_x.shape == (16, 3, 32, 32)
    np.testing.assert_array_equal(loaded.train_y, records[:2, :, 0].ravel())
    red = records[1, 2, 1:1025].reshape(32, 32) / 255
    np.testing.assert_allclose(loaded.train_x[10, 0], (red - 0.4914) / 0.2470, rtol=1e-4, atol=1e-5)


def test_an_unknown_name_or_no_folder_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no data set 'imagenet'"):
        datasets.load("imagenet")
    with pytest.raises(UsageError, match="folder of yours"):
        datasets.load("mnist")
    with pytest.raises(UsageError, match="no folder"):
        datasets.load("mnist", tmp_path / "nowhere")


def test_missing_files_are_named(tmp_path, mnist):
    folder = mnist[0]
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UnusableInput, match="t10k-labels-idx1-ubyte"):
        datasets.load("mnist", folder)
    with pytest.raises(UnusableInput, match=r"data_batch_1\.bin"):
        datasets.load("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("train-images-idx3-ubyte.gz", b"not gzip", "cannot read"),
        ("train-images-idx3-ubyte.gz", packed(b"\0\0\x08\x01\0\0\0\1\5"), "not an IDX file of images"),
        ("train-images-idx3-ubyte.gz", packed(b"\0\0\x08\x03" + b"\0\0\0\2" * 3 + b"abc"), "and holds 3"),
        ("train-images-idx3-ubyte.gz", packed(idx(np.zeros((4, 28, 28)))), "4 images"),
        ("train-labels-idx1-ubyte", idx(np.full(30, 11)), "labels other than 0 to 9"),
        (
            "train-images-idx3-ubyte.gz",
            packed(idx(np.arange(30 * 784).reshape(30, 28, 28) ** 2 % 251))[:-20],
            "cannot read",
        ),
    ],
    ids=["not-gzip", "labels-for-images", "too-short", "other-count", "wrong-labels", "cut-off"],
)
def test_damaged_mnist_files_are_named(mnist, name, contents, message):
    folder = mnist[0]
    (folder / name).write_bytes(contents)
    with pytest.raises(UnusableInput, match=message) as caught:
        datasets.load("mnist", folder)
    assert name.removesuffix(".gz") in str(caught.value)


@pytest.mark.parametrize("contents", [b"", b"x" * 3072], ids=["empty", "cut-off"])
def test_damaged_cifar_files_are_named(cifar, contents):
    (cifar[0] / "test_batch.bin").write_bytes(contents)
    with pytest.raises(UnusableInput, match=r"test_batch\.bin is not made of CIFAR-10 records"):
        datasets.load("cifar10", cifar[0])
