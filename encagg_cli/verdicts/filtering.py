"""Filtering a stored run: from its rounds to a file of verdicts, with the trace and the state where they are wanted."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from encagg_cli import console
from encagg_cli.filters import Filter
from encagg_cli.outputs import refuse_existing
from encagg_cli.rounds.reader import Run
from encagg_cli.sketch import Sketcher
from encagg_cli.verdicts.aggregates import AggregateWriter
from encagg_cli.verdicts.replay import judge_source
from encagg_cli.verdicts.signature import filter_signature
from encagg_cli.verdicts.state import load_state, save_state
from encagg_cli.verdicts.tally import Tally
from encagg_cli.verdicts.trace import TraceWriter
from encagg_cli.verdicts.writer import VerdictWriter


@dataclass(frozen=True)
class Outputs:
    """Where the results of a filtering go; only the verdicts must go somewhere."""

    verdicts: Path
    aggregate: Path | None = None
    trace: Path | None = None
    state: Path | None = None
    force: bool = False

    def refuse_existing(self) -> None:
        """Raise OutputExists before any work is done."""
        for path in (self.verdicts, self.aggregate, self.trace):
            if path is not None:
                refuse_existing(path, force=self.force)


def filter_run(
    run: Run,
    methods: Mapping[str, Filter],
    sketcher: Sketcher,
    outputs: Outputs,
    *,
    rounds: Sequence[int],
    trusted: frozenset[str],
) -> Tally:
    """Judge `rounds` of a run, in that order, by every method (canonical text to filter), and write the outputs.

    Raises UsageError where a method's needs are not met, OutputError and OutputExists for the outputs; then nothing is
    written.
    """
    outputs.refuse_existing()
    if outputs.state is not None and outputs.state.exists():
        for text in load_state(outputs.state, methods, first_round=rounds[0]):
            console.warn(f"{outputs.state} holds nothing of {text}: it starts afresh")
    digests = (run.round(number).digest for number in rounds)
    signature = filter_signature(methods, trusted, rounds, digests)
    tally = Tally(methods)
    with ExitStack() as stack:
        writer = stack.enter_context(VerdictWriter(outputs.verdicts, signature=signature, force=outputs.force))
        tracer = None
        if outputs.trace is not None:
            tracer = stack.enter_context(TraceWriter(outputs.trace, force=outputs.force))
        aggregates = None
        if outputs.aggregate is not None:
            aggregates = stack.enter_context(
                AggregateWriter(outputs.aggregate, run, sketcher, methods, force=outputs.force)
            )
        sketcher.expect(rounds, dict.fromkeys(need for chosen in methods.values() for need in chosen.needs()))
        for number in rounds:
            stored = run.round(number)
            verdicts = judge_source(stored, stored, methods, trusted, sketcher)
            decisions = list(verdicts.decisions.items())
            writer.add_round(verdicts.number, decisions, verdicts.trusted, verdicts.poisoned, verdicts.attack)
            tally.add(verdicts)
            if tracer is not None:
                tracer.add(verdicts)
            if aggregates is not None:
                aggregates.add(verdicts)
    if outputs.state is not None:
        save_state(outputs.state, methods, last_round=rounds[-1])
    return tally
