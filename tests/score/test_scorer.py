"""What the pass over the verdicts selects, refuses and reports."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encagg_cli.errors import NothingToDo, UnusableInput, UsageError
from encagg_cli.filters import Decision
from encagg_cli.score.scorer import score_verdicts
from encagg_cli.verdicts.reader import ROWS_IN_BATCH, Verdicts
from encagg_cli.verdicts.writer import VerdictWriter

Save = Callable[..., Path]
METHODS = ("encagg", "multi-krum(f=8)", "multi-krum(f=2)")


def rows(**facts: Any) -> list[dict[str, Any]]:
    return [{"round": 1, "client_id": "a", "method": method, "poisoned": True} | facts for method in METHODS]


@pytest.mark.parametrize(
    ("wanted", "scored"),
    [
        ([], METHODS),
        (["encagg"], ("encagg",)),
        (["multi-krum"], METHODS[1:]),
        (["multi-krum(f=2)", "encagg"], (METHODS[0], METHODS[2])),
    ],
)
def test_methods_are_chosen_by_text_or_by_name(
    tmp_path: Path, save_verdicts: Save, wanted: list[str], scored: tuple[str, ...]
) -> None:
    with Verdicts(save_verdicts(tmp_path / "v.parquet", rows())) as verdicts:
        score = score_verdicts(verdicts, methods=wanted)
    assert tuple(one.method for one in score.methods) == scored
    assert score.signature.facts["methods"] == "+".join(sorted(scored))


def test_a_method_without_verdicts_is_a_usage_error_that_says_what_there_is(
    tmp_path: Path, save_verdicts: Save
) -> None:
    path = save_verdicts(tmp_path / "v.parquet", rows())
    with Verdicts(path) as verdicts, pytest.raises(UsageError, match="'flame'") as caught:
        score_verdicts(verdicts, methods=["encagg", "flame"])
    assert caught.value.hint == "there are: encagg, multi-krum(f=8), multi-krum(f=2)"


def test_an_empty_table_is_nothing_to_score(tmp_path: Path, save_verdicts: Save) -> None:
    with Verdicts(save_verdicts(tmp_path / "v.parquet", [])) as verdicts, pytest.raises(NothingToDo):
        score_verdicts(verdicts)


@pytest.mark.parametrize("rows_in_group", [None, 1])
def test_two_verdicts_of_one_method_on_one_upload_are_refused(
    tmp_path: Path, save_verdicts: Save, rows_in_group: int | None
) -> None:
    content = [*rows(), *rows(round=2, client_id="b"), *rows(round=2)[:1], *rows(round=2, client_id="b")[:1]]
    path = save_verdicts(tmp_path / "v.parquet", content, rows_in_group=rows_in_group)
    with Verdicts(path) as verdicts, pytest.raises(UnusableInput, match="round 2, client b: two verdicts of encagg"):
        score_verdicts(verdicts)


def test_methods_need_not_have_judged_the_same_rounds(tmp_path: Path, save_verdicts: Save) -> None:
    content = [*rows(), *rows(round=2, accepted=False)[1:]]
    with Verdicts(save_verdicts(tmp_path / "v.parquet", content)) as verdicts:
        score = score_verdicts(verdicts)
    assert [(one.total.count("rounds"), one.total.figures["recall"]) for one in score.methods] == [
        (1, 0.0),
        (2, 0.5),
        (2, 0.5),
    ]


def test_a_round_larger_than_a_batch_is_scored_whole(tmp_path: Path) -> None:
    n = ROWS_IN_BATCH + 5000
    clients = tuple(f"c{row:06d}" for row in range(n))
    scores = np.random.default_rng(0).random(n)
    poisoned = {client: bool(s > 0.5) for client, s in zip(clients, scores, strict=True)}
    decision = Decision(clients, scores < 0.25, scores, ("kept",) * n)
    with VerdictWriter(tmp_path / "v.parquet", signature={}) as writer:
        for number in (1, 2):
            writer.add_round(number, [("encagg", decision)], set(), poisoned, {})
    with Verdicts(tmp_path / "v.parquet") as verdicts:
        (one,) = score_verdicts(verdicts, resamples=0).methods
    assert one.total.count("rounds") == 2
    assert one.total.count("uploads") == 2 * n
    assert one.total.figures["auroc"] == one.total.figures["recall"] == 1.0
    assert one.total.figures["fpr"] == pytest.approx(0.5, abs=0.02)
