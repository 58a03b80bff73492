"""Rounds for attacks: honest updates with a common direction, and a spread that differs by coordinate."""

from collections.abc import Callable

import numpy as np
import pytest

from encagg_cli.attacks import Scene
from encagg_cli.sketch import ArraySource

MakeScene = Callable[..., Scene]


@pytest.fixture
def make_scene() -> MakeScene:
    """`make_scene(honest=8, attackers=3, parameters=40)`: the attackers are last, the known-benign first."""

    def make(
        honest: int = 8,
        attackers: int = 3,
        parameters: int = 40,
        *,
        data: int = 0,
        seed: int = 0,
        number: int = 0,
        updates: np.ndarray | None = None,
        trusted: int = 2,
        alternatives: np.ndarray | None = None,
        dormant: int = 0,
    ) -> Scene:
        if updates is None:
            rng = np.random.default_rng(data)
            direction = rng.standard_normal(parameters)
            spread = rng.uniform(0.2, 2.0, parameters)
            updates = direction + spread * rng.standard_normal((honest + attackers, parameters))
        ids = tuple(f"c{row:03d}" for row in range(honest + attackers))
        poisoning = ids[honest:]
        source = ArraySource(
            updates.astype(np.float32), ids, np.array([row < trusted for row in range(len(ids))]), number=number
        )
        other = None
        if alternatives is not None:
            other = ArraySource(alternatives.astype(np.float32), poisoning, np.zeros(attackers, dtype=bool))
        return Scene(
            source=source,
            poisoning=poisoning,
            malicious=ids[honest - dormant :],
            honest_clients=ids[:honest],
            trusted=frozenset(ids[:trusted]),
            seed=seed,
            alternatives=other,
        )

    return make
