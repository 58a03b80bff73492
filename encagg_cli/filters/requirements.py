"""Whether a run offers what a filter needs: known before any update is read."""

from collections.abc import Iterable
from dataclasses import dataclass

from encagg_cli.console import counted
from encagg_cli.errors import UsageError
from encagg_cli.filters.base import Filter, Requirement
from encagg_cli.rounds.layout import ROLE_OUTPUT, Parameter


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a run, or of a part of it, before its updates are read.

    known_benign    how many known-benign clients there are
    attacker_count  whether the filter in question is told the number of attackers
    rounds          how many rounds there are
    parameters      the tensors
    global_model, root_gradient, sample_counts
                    whether the rounds have them: all rounds (sample counts: of every upload)
    """

    known_benign: int = 0
    attacker_count: bool = False
    rounds: int = 1
    parameters: tuple[Parameter, ...] = ()
    global_model: bool = False
    root_gradient: bool = False
    sample_counts: bool = False


def unmet(kind: type[Filter] | Filter, facts: Facts) -> list[Requirement]:
    """What the filter requires and these rounds do not have; empty where it can run."""
    has = {
        Requirement.KNOWN_BENIGN: facts.known_benign >= kind.least_known_benign,
        Requirement.ATTACKER_COUNT: facts.attacker_count,
        Requirement.HISTORY: facts.rounds > 1,
        Requirement.LAYERS: len(facts.parameters) > 1,
        Requirement.OUTPUT_LAYER: has_output_layer(facts.parameters),
        Requirement.GLOBAL_MODEL: facts.global_model,
        Requirement.ROOT_GRADIENT: facts.root_gradient,
        Requirement.SAMPLE_COUNTS: facts.sample_counts,
    }
    return [requirement for requirement in Requirement if requirement in kind.requires and not has[requirement]]


def check_reference(chosen: Filter, *, known_benign: int, root_gradient: bool) -> None:
    """Raise UsageError where a filter that is called with a round in memory lacks what it measures everybody against.

    Without it every upload would be rejected, which looks like a verdict.
    """
    if Requirement.KNOWN_BENIGN in chosen.requires and known_benign < chosen.least_known_benign:
        least = counted(chosen.least_known_benign, "known-benign client")
        raise UsageError(
            f"{chosen.name} needs at least {least}, and {known_benign} {'is' if known_benign == 1 else 'are'} named",
            hint="name them, by id or by row: decide(updates, trusted=[0, 1, 2])",
        )
    if Requirement.ROOT_GRADIENT in chosen.requires and not root_gradient:
        raise UsageError(
            f"{chosen.name} needs the server's own gradient",
            hint='hand it over: decide(updates, vectors={"root_gradient": gradient})',
        )


def has_output_layer(parameters: Iterable[Parameter]) -> bool:
    """Whether some tensor is marked as the output layer."""
    return any(parameter.role == ROLE_OUTPUT for parameter in parameters)


def what_to_do(requirement: Requirement) -> str:
    """How a user meets a requirement, in a line."""
    return _REMEDIES[requirement]


_REMEDIES = {
    Requirement.KNOWN_BENIGN: "name known-benign clients: --trusted id,id or --trusted @FILE",
    Requirement.ATTACKER_COUNT: "say how many: --set METHOD.f=8, a share (0.3), or oracle where there is ground truth",
    Requirement.HISTORY: "filter two rounds or more",
    Requirement.LAYERS: "capture named tensors instead of bare vectors",
    Requirement.OUTPUT_LAYER: "mark it when capturing: --output-layer NAME",
    Requirement.GLOBAL_MODEL: "capture the global model with each round",
    Requirement.ROOT_GRADIENT: "capture a root gradient with each round",
    Requirement.SAMPLE_COUNTS: "capture num_examples with each upload",
}
