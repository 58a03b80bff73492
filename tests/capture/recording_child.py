"""A training that records rounds whose content follows from their number, until it is stopped.

python recording_child.py RUN FIRST_ROUND N_ROUNDS N_PARAMETERS [SETTING=VALUE ...]

It prints "ready", and then the number of every round that is published.
"""

import sys
from pathlib import Path

import numpy as np

N_CLIENTS = 6


def update_of(number: int, client: int, size: int) -> np.ndarray:
    """The update of a client in a round."""
    return np.random.default_rng([number, client]).standard_normal(size, dtype=np.float32)


def model_of(number: int, size: int) -> np.ndarray:
    return update_of(number, N_CLIENTS, size)


def main() -> None:
    from encagg_cli import Recorder

    run, first, count, size = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    settings = dict(text.split("=", 1) for text in sys.argv[5:])
    with Recorder(run, **settings) as recorder:
        print("ready", flush=True)
        for number in range(first, first + count):
            with recorder.round(number, global_model=model_of(number, size)) as stored:
                for client in range(N_CLIENTS):
                    stored.add(f"client-{client}", update_of(number, client, size))
            if stored.path is not None:
                print(number, flush=True)


if __name__ == "__main__":
    main()
