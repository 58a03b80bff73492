"""How fast a round is recorded, against writing the same bytes to a plain file and waiting for the disk.

python -m tests.benchmarks.capture_speed [--clients 20] [--parameters 10000000] [--folder DIR] [--repeats 5]

Prints the median ratio over the repeats, in which both take turns, for float32, the 16-bit types and gzip (against the
bytes before compression), and what is stored as a share of float32; the 16-bit types again with torch loaded, as it is
where training uses it; then gzip's levels by themselves. Needs an idle machine with two cores.
"""

import argparse
import importlib.util
import os
import shutil
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from encagg_cli import Recorder
from encagg_cli.rounds.compression import Compression
from encagg_cli.rounds.encoding import stored_dtype
from encagg_cli.rounds.layout import COMPRESSED_CHUNK_COLUMNS, StoredType

SIXTEEN_BITS = (("float16", None), ("bfloat16", None))
SETTINGS = (("float32", None), ("float16", None), ("bfloat16", None), ("float32", "gzip"), ("bfloat16", "gzip"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure")
    options = parser.parse_args()
    update = (np.random.default_rng(0).standard_normal(options.parameters) * 1e-3).astype(np.float32)
    n_float32 = options.clients * update.nbytes
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    print(f"{options.clients} clients, {options.parameters:,} parameters: {n_float32 / 1e6:.0f} MB a round as float32")
    print(f"{'stored as':<16}{'round.add + close':>19}{'raw write + fsync':>19}{'ratio':>8}{'bytes':>9}")
    try:
        for dtype, compression in SETTINGS:
            measure(dtype, compression, update, folder, options)
        if importlib.util.find_spec("torch"):
            importlib.import_module("torch")
            for dtype, compression in SIXTEEN_BITS:
                measure(dtype, compression, update, folder, options, ", torch")
    finally:
        shutil.rmtree(folder)
    print_levels(update[:COMPRESSED_CHUNK_COLUMNS])


def measure(
    dtype: StoredType,
    compression: Compression | None,
    update: np.ndarray,
    folder: Path,
    options: argparse.Namespace,
    remark: str = "",
) -> None:
    """Record and write in turns, and print a line."""
    ours, raw = [], []
    same_bytes = update.astype(stored_dtype(dtype))
    for _ in range(options.repeats if compression is None else 1):
        raw.append(timed(write_raw, folder / "raw", same_bytes, options.clients))
        shutil.rmtree(folder / "run", ignore_errors=True)
        with Recorder(folder / "run", dtype=dtype, compression=compression) as recorder:
            recorder.round(1).abort()
            ours.append(timed(record, recorder, update, options.clients))
        stored = (folder / "run" / "round-000002.h5").stat().st_size
    n_bytes = options.clients * same_bytes.nbytes
    ratio = statistics.median(a / b for a, b in zip(ours, raw, strict=True))
    name = dtype + (f" {compression}" if compression else "") + remark
    print(
        f"{name:<16}{n_bytes / 1e6 / statistics.median(ours):>14.0f} MB/s"
        f"{n_bytes / 1e6 / statistics.median(raw):>14.0f} MB/s{ratio:>8.2f}"
        f"{stored / options.clients / update.nbytes:>8.0%}",
        flush=True,
    )


def print_levels(chunk: np.ndarray) -> None:
    """What gzip's levels cost and save on a shuffled chunk of float32, on one core."""
    shuffled = chunk.view(np.uint8).reshape(-1, 4).T.copy().data
    print(f"{'gzip level':<16}{'deflate':>19}{'bytes':>8}")
    for level in (1, 4, 6, 9):
        begin = time.perf_counter()
        size = len(zlib.compress(shuffled, level))
        speed = chunk.nbytes / 1e6 / (time.perf_counter() - begin)
        print(f"{level:<16}{speed:>14.0f} MB/s{size / chunk.nbytes:>8.1%}")


def record(recorder: Recorder, update: np.ndarray, clients: int) -> None:
    with recorder.round(2) as stored:
        for client in range(clients):
            stored.add(f"client-{client}", update)


def write_raw(path: Path, update: np.ndarray, clients: int) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    for _ in range(clients):
        rest = memoryview(update).cast("B")
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)
    os.close(descriptor)


def timed(call: Callable[..., None], *arguments: object) -> float:
    begin = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
