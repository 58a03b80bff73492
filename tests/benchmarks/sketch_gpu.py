"""The same round on the processor and on a GPU: how far the products differ, whether any verdict does, and the time.

python -m tests.benchmarks.sketch_gpu [--clients 100 1000] [--parameters 2000000 500000] [--repeats 5] [--folder DIR]

Needs a CUDA device and torch. Products on the GPU are float32 (TF32 off); the difference is given relative to the
norms of the centred rows, and must stay below the tolerance that the sketcher states. The bound that any float32 sum of
that length has is shown beside it.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch

from encagg_cli.rounds.reader import Run
from encagg_cli.sketch import GramNeed, RoundSketch, Sketcher
from encagg_cli.sketch.needs import Device
from encagg_cli.sketch.sketcher import GPU_TOLERANCE
from tests.benchmarks.sketch_common import ratio, seconds, stored_run
from tests.benchmarks.sketch_speed import all_filters


def sketch_on(run: Run, device: Device, repeats: int) -> tuple[RoundSketch, list[float]]:
    """The first round's sketch, and the seconds of every pass but the first, which starts the device."""
    with Sketcher(run, device=device, cache="none") as sketcher:
        stored = run.round(run.rounds[0])
        sketch = sketcher(stored, [GramNeed()])
        return sketch, [seconds(lambda: sketcher(stored, [GramNeed()])) for _ in range(repeats)]


def difference(one: RoundSketch, other: RoundSketch) -> float:
    """The largest difference of two products, relative to the norms of the two centred rows."""
    norms = np.sqrt(np.diag(one.gram.deviations))
    scale = np.outer(norms, norms)
    apart = np.abs(one.gram.deviations - other.gram.deviations)
    return float((apart[scale > 0] / scale[scale > 0]).max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="*", default=[100, 1000])
    parser.add_argument("--parameters", type=int, nargs="*", default=[2_000_000, 500_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, numpy {np.__version__}")
    failed = False
    for clients, parameters in zip(options.clients, options.parameters, strict=True):
        with stored_run(clients, parameters, options.folder) as run:
            cpu, on_cpu = sketch_on(run, "cpu", options.repeats)
            cuda, on_cuda = sketch_on(run, "cuda", options.repeats)
            apart = difference(cpu, cuda)
            stored = run.round(run.rounds[0])
            trusted = [client for client, flag in zip(stored.client_ids, stored.trusted, strict=True) if flag]
            by_gram = [chosen for chosen in all_filters(clients) if chosen.needs() == (GramNeed(),)]
            again = [chosen for chosen in all_filters(clients) if chosen.needs() == (GramNeed(),)]
            other = [
                one.name
                for one, two in zip(by_gram, again, strict=True)
                if not np.array_equal(
                    one.decide(cpu, trusted=trusted).accepted, two.decide(cuda, trusted=trusted).accepted
                )
            ]
            print(
                f"{clients} x {parameters:,}: products differ by {apart:.1e} of the norms (tolerance "
                f"{GPU_TOLERANCE:g}); other verdicts from: {', '.join(other) or 'no method'} of "
                f"{len(by_gram)}; processor {statistics.median(on_cpu):.3f} s, GPU {statistics.median(on_cuda):.3f} s, "
                f"processor / GPU {ratio(on_cpu, on_cuda)}",
                flush=True,
            )
            failed |= bool(other) or apart > GPU_TOLERANCE
    print("FAILED" if failed else "ok")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
