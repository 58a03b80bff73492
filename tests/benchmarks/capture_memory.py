"""How much memory recording takes, in updates.

python -m tests.benchmarks.capture_memory [--clients 12] [--parameters 10000000]

A child process for each setting: its peak while a large round with a global model and a root gradient is recorded,
above its memory after a small one. The update and the model themselves belong to the training.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SETTINGS = (("float32", ""), ("bfloat16", ""), ("float32", "gzip"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--child", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        dtype, compression = options.child
        print(peak_in_updates(options.clients, options.parameters, dtype, compression or None))
        return
    print(f"{options.clients} clients, {options.parameters:,} parameters; one update is float32")
    for dtype, compression in SETTINGS:
        command = [sys.executable, "-m", "tests.benchmarks.capture_memory", "--child", dtype, compression]
        command += ["--clients", str(options.clients), "--parameters", str(options.parameters)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"{dtype + ' ' + compression:<16}{float(done.stdout):6.2f} updates above the training's own memory")


def peak_in_updates(clients: int, parameters: int, dtype: str, compression: str | None) -> float:
    """The peak of resident memory while a round is recorded, less that before, in float32 updates."""
    from encagg_cli import Recorder

    update = np.random.default_rng(0).standard_normal(parameters, dtype=np.float32)
    model = update + 1
    with tempfile.TemporaryDirectory() as folder:
        for name, size in (("small", 1000), ("large", parameters)):
            before = reset_peak()
            settings = {"dtype": dtype, "compression": compression}
            with Recorder(Path(folder) / name, **settings) as recorder:
                stored = recorder.round(1, global_model=model[:size], root_gradient=model[:size])
                for client in range(clients):
                    stored.add(f"client-{client}", update[:size])
                stored.close()
        return (peak() - before) / update.nbytes


def reset_peak() -> int:
    """Forget the peak so far (Linux), and return the memory in use."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    for line in Path(f"/proc/{os.getpid()}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this needs Linux")


if __name__ == "__main__":
    main()
