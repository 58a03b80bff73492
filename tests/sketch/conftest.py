"""Stored runs to sketch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from encagg_cli.rounds.layout import Parameter
from encagg_cli.rounds.reader import Run
from encagg_cli.rounds.writer import RoundWriter

Store = Callable[..., Run]


def make_updates(number: int, clients: int, parameters: int, seed: int = 11) -> NDArray[np.float32]:
    """(clients, parameters) with some structure: a shared direction, and clients of different sizes."""
    rng = np.random.default_rng((seed, number))
    shared = rng.standard_normal(parameters)
    sizes = rng.uniform(0.5, 2.0, (clients, 1))
    return (sizes * (shared + rng.standard_normal((clients, parameters)))).astype(np.float32)


@pytest.fixture(scope="session")
def updates_of() -> Callable[[int, int, int], NDArray[np.float32]]:
    """What `store` stores: `updates_of(number, clients, parameters)`, rows in id order."""
    return make_updates


@pytest.fixture(scope="session")
def store() -> Store:
    """Writes rounds into a folder and opens it. Clients arrive out of order, as they do."""

    def write(
        folder: Path,
        *,
        rounds: int = 3,
        clients: int = 7,
        parameters: int = 200_000,
        models: bool = False,
        seed: int = 11,
        **kwargs: Any,
    ) -> Run:
        for number in range(rounds):
            model = np.random.default_rng((12, number)).standard_normal(parameters).astype(np.float32)
            writer = RoundWriter(
                folder,
                number,
                session="session",
                parameters=(Parameter("update", (parameters,), 0),),
                global_model=model if models else None,
                **kwargs,
            )
            updates = make_updates(number, clients, parameters, seed)
            for row in reversed(range(clients)):
                writer.add(f"client-{row:02d}", updates[row], num_examples=10 * row, trusted=row == 2)
            writer.close()
        return Run.open(folder)

    return write


@pytest.fixture(scope="session")
def run(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three rounds of 7 clients and 200,000 parameters, with global models. Nobody may write to it."""
    return store(tmp_path_factory.mktemp("runs") / "run", models=True)
