"""What a run lacks for a filter is known from facts alone."""

import pytest

from encagg_cli.filters import Facts, Requirement, available, get, kind_of, unmet, what_to_do
from encagg_cli.rounds.layout import Parameter

NAMED = (Parameter("w", (3, 4), 0), Parameter("out", (2, 3), 12, role="output"))
EVERYTHING = Facts(
    known_benign=5,
    attacker_count=True,
    rounds=10,
    parameters=NAMED,
    global_model=True,
    root_gradient=True,
    sample_counts=True,
)


@pytest.mark.parametrize("name", available())
def test_a_run_that_has_everything_lacks_nothing(name: str) -> None:
    assert unmet(kind_of(name), EVERYTHING) == []


@pytest.mark.parametrize("name", available())
def test_a_run_that_has_nothing_lacks_all_that_is_required(name: str) -> None:
    assert set(unmet(kind_of(name), Facts())) == kind_of(name).requires


def test_examples() -> None:
    bare = Facts(known_benign=1, rounds=3, parameters=(Parameter("update", (9,), 0),))
    assert unmet(kind_of("multi-krum"), bare) == [Requirement.ATTACKER_COUNT]
    assert unmet(get("median"), bare) == []
    assert unmet(kind_of("dpfla"), bare) == [Requirement.LAYERS, Requirement.OUTPUT_LAYER]
    assert unmet(kind_of("fltrust"), bare) == [Requirement.ROOT_GRADIENT]
    assert unmet(kind_of("encagg"), Facts(known_benign=0)) == [Requirement.KNOWN_BENIGN]
    assert unmet(kind_of("fldetector"), Facts(rounds=1)) == [Requirement.HISTORY]


@pytest.mark.parametrize("requirement", Requirement)
def test_every_requirement_comes_with_advice(requirement: Requirement) -> None:
    assert what_to_do(requirement)
