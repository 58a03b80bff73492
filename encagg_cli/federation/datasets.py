"""Data sets for federated training: scikit-learn's digits, and MNIST and CIFAR-10 from a folder of the user's.

Nothing is downloaded. Layouts: MNIST's four original IDX files, as they are or `.gz`; CIFAR-10's binary version
(a label byte and 3,072 pixel bytes a record), as it is or `.xz`; the training batches that are there are used.
"""

import gzip
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UnusableInput, UsageError

_IDX_IMAGES, _IDX_LABELS = 0x00000803, 0x00000801
_CIFAR_RECORD = 1 + 3 * 32 * 32
_DIGITS_TEST = 360  # of 1,797, drawn once and for all: accuracies of different runs compare


@dataclass(frozen=True)
class Dataset:
    """Labelled images: `x` float32 of (samples, *shape), standardised; `y` int64 of (samples,), 0 to `classes` - 1."""

    name: str
    train_x: NDArray[np.float32]
    train_y: NDArray[np.int64]
    test_x: NDArray[np.float32]
    test_y: NDArray[np.int64]
    classes: int = 10

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.train_x.shape[1:]


def names() -> tuple[str, ...]:
    """Names of all data sets."""
    return tuple(_LOADERS)


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """The data set of that name; all but digits are read from `data_dir`.

    Raises UsageError for an unknown name or a missing folder, UnusableInput for files that are missing or damaged.
    """
    if name not in _LOADERS:
        raise UsageError(f"there is no data set {name!r}", hint=f"choose from {', '.join(_LOADERS)}")
    return _LOADERS[name](data_dir)


def _digits(data_dir: Path | None) -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = (bunch.data.reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    y = bunch.target.astype(np.int64)
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(y))
    test, train = order[:_DIGITS_TEST], order[_DIGITS_TEST:]
    return Dataset("digits", x[train], y[train], x[test], y[test])


def _mnist(data_dir: Path | None) -> Dataset:
    folder = _require_folder("mnist", data_dir)
    parts: list[tuple[NDArray[np.float32], NDArray[np.int64]]] = []
    for prefix in ("train", "t10k"):
        images_path = _find(folder, [f"{prefix}-images-idx3-ubyte", f"{prefix}-images.idx3-ubyte"], (".gz", ""))
        labels_path = _find(folder, [f"{prefix}-labels-idx1-ubyte", f"{prefix}-labels.idx1-ubyte"], (".gz", ""))
        images, labels = _idx(images_path, _IDX_IMAGES), _idx(labels_path, _IDX_LABELS)
        if len(images) != len(labels):
            raise UnusableInput(
                f"{images_path} holds {len(images)} images, but {labels_path.name} {len(labels)} labels"
            )
        _check_labels(labels_path, labels)
        parts.append((_standardised(images[:, None], [0.1307], [0.3081]), labels.astype(np.int64)))
    return Dataset("mnist", *parts[0], *parts[1])


def _cifar10(data_dir: Path | None) -> Dataset:
    folder = _require_folder("cifar10", data_dir)
    batches = [
        path for k in range(1, 6) if (path := _find_any(folder, [f"data_batch_{k}.bin"], ("", ".xz"))) is not None
    ]
    if not batches:
        raise UnusableInput(f"{folder} holds no data_batch_1.bin to data_batch_5.bin", hint="CIFAR-10's binary version")
    train = [_cifar_batch(path) for path in batches]
    test_x, test_y = _cifar_batch(_find(folder, ["test_batch.bin"], ("", ".xz")))
    train_x, train_y = (np.concatenate(part) for part in zip(*train, strict=True))
    return Dataset("cifar10", train_x, train_y, test_x, test_y)


_LOADERS: dict[str, Callable[[Path | None], Dataset]] = {"digits": _digits, "mnist": _mnist, "cifar10": _cifar10}


def _require_folder(name: str, data_dir: Path | None) -> Path:
    if data_dir is None:
        raise UsageError(f"{name} is read from a folder of yours", hint="name it with --data-dir")
    inner = data_dir / name
    folder = inner if inner.is_dir() else data_dir
    if not folder.is_dir():
        raise UsageError(
            f"there is no folder {data_dir}", hint=f"--data-dir names the folder that holds {name}'s files"
        )
    return folder


def _find_any(folder: Path, stems: list[str], suffixes: tuple[str, ...]) -> Path | None:
    paths = (folder / f"{stem}{suffix}" for stem in stems for suffix in suffixes)
    return next((path for path in paths if path.is_file()), None)


def _find(folder: Path, stems: list[str], suffixes: tuple[str, ...]) -> Path:
    path = _find_any(folder, stems, suffixes)
    if path is None:
        packed = next(suffix for suffix in suffixes if suffix)
        raise UnusableInput(f"{folder} holds no {stems[0]} (nor {stems[0]}{packed})")
    return path


def _contents(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            return gzip.decompress(raw)
        return lzma.decompress(raw) if path.suffix == ".xz" else raw
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise UnusableInput(f"cannot read {path}: {error}") from error


def _idx(path: Path, magic: int) -> NDArray[np.uint8]:
    """An IDX file of bytes: a magic number, a big-endian int32 for each dimension, the values."""
    data = _contents(path)
    dimensions = magic & 0xFF
    header = 4 * (1 + dimensions)
    if len(data) < header or int.from_bytes(data[:4], "big") != magic:
        raise UnusableInput(f"{path} is not an IDX file of {'images' if dimensions == 3 else 'labels'}")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", dimensions, 4))
    if len(data) != header + int(np.prod(shape, dtype=np.int64)):
        raise UnusableInput(f"{path} says it holds {shape} bytes, and holds {len(data) - header}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _cifar_batch(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    data = _contents(path)
    if not data or len(data) % _CIFAR_RECORD:
        raise UnusableInput(f"{path} is not made of CIFAR-10 records of {_CIFAR_RECORD} bytes")
    records = np.frombuffer(data, np.uint8).reshape(-1, _CIFAR_RECORD)
    _check_labels(path, records[:, 0])
    images = records[:, 1:].reshape(-1, 3, 32, 32)
    return _standardised(images, [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]), records[:, 0].astype(np.int64)


def _check_labels(path: Path, labels: NDArray[np.uint8]) -> None:
    if len(labels) == 0 or labels.max() > 9:
        raise UnusableInput(f"{path} holds labels other than 0 to 9, or none")


def _standardised(images: NDArray[np.uint8], mean: list[float], deviation: list[float]) -> NDArray[np.float32]:
    """Images of (samples, channels, height, width) with the channels' usual mean and deviation taken out."""
    centre, scale = (np.array(values, dtype=np.float32)[:, None, None] for values in (mean, deviation))
    standardised: NDArray[np.float32] = (images.astype(np.float32) / np.float32(255) - centre) / scale
    return standardised
