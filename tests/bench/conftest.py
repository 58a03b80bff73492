"""An honest run to bench on."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def honest_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three honest rounds of 12 clients on digits, none of them named as known-benign."""
    from encagg_cli.federation.setup import Setup
    from encagg_cli.federation.simulate import simulate

    path = tmp_path_factory.mktemp("runs") / "honest"
    simulate(Setup(clients=12, rounds=3, trusted=0, partition="iid", seed=5), run=path)
    return path
