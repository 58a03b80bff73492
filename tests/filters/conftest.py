"""What tests of filters share."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import pytest

from encagg_cli.filters import Decision, Filter
from encagg_cli.filters.arrays import as_source
from encagg_cli.filters.passes import sketch_for


@pytest.fixture(scope="session")
def judge_stored() -> Callable[..., Decision]:
    """Judges a round as a stored one, which may lack the known-benign clients that a call in memory must name."""

    def judge(
        chosen: Filter,
        updates: np.ndarray | Mapping[str, np.ndarray],
        trusted: Collection[str] | Collection[int] = (),
        **more: Any,
    ) -> Decision:
        source, ids = as_source(updates, trusted, **more)
        return chosen.decide(sketch_for(source, [chosen]), trusted=ids).in_order(source.client_ids)

    return judge
