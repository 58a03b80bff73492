"""What a training program calls: `record` and `end_round`, which do nothing unless it runs under `encagg capture`.

Imported by training programs that may never be captured, so this imports nothing but the standard library's `os`.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike


def record(
    round: int,  # noqa: A002 the word of the field
    client_id: str,
    update: "ArrayLike | Mapping[str, Any]",
    *,
    num_examples: int | None = None,
    trusted: bool | None = None,
    poisoned: bool | None = None,
    attack: str = "",
    global_model: "ArrayLike | Mapping[str, Any] | None" = None,
    root_gradient: "ArrayLike | Mapping[str, Any] | None" = None,
) -> None:
    """Record one client's update in the run of `encagg capture RUN -- COMMAND`; do nothing where there is none.

    `update` is an array, or a mapping of tensor names to arrays or tensors. `num_examples` is None where it is unknown;
    `trusted` None leaves it to `--trusted`; `poisoned` and `attack` are ground truth where there is any. `global_model`
    (from which the round started) and `root_gradient` (the server's own, on trusted data) count with the first upload
    of a round. The round ends with the next one, with `end_round()`, or when the process does.

    Training goes on when recording fails: one warning on stderr, and `encagg capture` returns 6 in the end. Under
    `encagg capture --strict` it raises an EncaggError instead. Any thread may call it.
    """
    if "ENCAGG_CAPTURE_RUN" not in os.environ:
        return
    from encagg_cli.capture.process import active

    active().record(
        round,
        client_id,
        update,
        num_examples=num_examples,
        trusted=trusted,
        poisoned=poisoned,
        attack=attack,
        global_model=global_model,
        root_gradient=root_gradient,
    )


def end_round() -> None:
    """Publish the round that `record` last wrote to; do nothing where there is none."""
    if "ENCAGG_CAPTURE_RUN" not in os.environ:
        return
    from encagg_cli.capture.process import active

    active().end_round()
