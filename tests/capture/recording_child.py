"""A training that records rounds whose content follows from their number, until it is stopped.

python recording_child.py RUN FIRST_ROUND N_ROUNDS [SETTING=VALUE ...]

It prints "ready", and then the number of every round that is published.
"""

import sys
from pathlib import Path

import numpy as np

N_CLIENTS = 6
N_PARAMETERS = 150_000


def update_of(number: int, client: int, size: int = N_PARAMETERS) -> np.ndarray:
    """The update of a client in a round."""
    return np.random.default_rng([number, client]).standard_normal(size, dtype=np.float32)


def model_of(number: int, size: int = N_PARAMETERS) -> np.ndarray:
    return update_of(number, N_CLIENTS, size)


def main() -> None:
    from encagg_cli import Recorder

    run, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    settings = dict(text.split("=", 1) for text in sys.argv[4:])
    with Recorder(run, **settings) as recorder:
        print("ready", flush=True)
        for number in range(first, first + count):
            with recorder.round(number, global_model=model_of(number)) as stored:
                for client in range(N_CLIENTS):
                    stored.add(f"client-{client}", update_of(number, client))
            if stored.path is not None:
                print(number, flush=True)


if __name__ == "__main__":
    main()
