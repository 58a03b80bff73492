"""The metrics agree with scikit-learn, on whatever table."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from encagg_cli.score.scorer import Score, score_verdicts
from encagg_cli.verdicts.reader import Verdicts

Rows = list[dict[str, Any]]

UPLOADS = st.fixed_dictionaries(
    {
        "accepted": st.booleans(),
        "score": st.sampled_from([0.0, -0.0, 0.25, 0.5, 0.5000000001, 1.0, 7.0, math.inf, -math.inf]),
        "trusted": st.sampled_from([False, False, False, True]),
        "poisoned": st.sampled_from([True, True, False, False, None]),
        "attack": st.sampled_from(["lie", "min-max", None]),
    }
)


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    """Up to five rounds of up to eight clients and two methods; one class, all tied and empty ones among them."""
    rows: Rows = []
    for number in draw(st.lists(st.integers(0, 20), max_size=5, unique=True).map(sorted)):
        for method in draw(st.sampled_from([["encagg"], ["encagg", "multi-krum(f=2)"]])):
            uploads = draw(st.lists(UPLOADS, min_size=1, max_size=8))
            if draw(st.booleans()):
                uploads = [{**upload, "score": 0.5} for upload in uploads]
            if draw(st.booleans()):
                uploads = [{**upload, "poisoned": False, "attack": None} for upload in uploads]
            rows += [{**u, "round": number, "method": method, "client_id": f"c{i}"} for i, u in enumerate(uploads)]
    return rows


def score_rows(path: Path, rows: Rows, save: Callable[..., Path], **options: Any) -> Score:
    with Verdicts(save(path, rows)) as verdicts:
        return score_verdicts(verdicts, resamples=0, **options)


def expected(rows: Rows) -> dict[str, float | None]:
    """The contract's metrics by scikit-learn, from rows of one method; unlabelled and known-benign ones left out."""
    counted = [row for row in rows if not row["trusted"]]
    labelled = [row for row in counted if row["poisoned"] is not None]
    truth = np.array([row["poisoned"] for row in labelled], dtype=bool)
    rejected = np.array([not row["accepted"] for row in labelled], dtype=bool)
    tn, fp, fn, tp = (
        confusion_matrix(truth, rejected, labels=[False, True]).ravel().tolist() if labelled else (0, 0, 0, 0)
    )
    pairs: list[tuple[int, float]] = []
    precisions: list[float] = []
    clean: Rows = []
    for number in {row["round"] for row in rows}:
        of_round = [row for row in labelled if row["round"] == number]
        y = np.array([row["poisoned"] for row in of_round], dtype=bool)
        scores = finite([row["score"] for row in of_round])
        if 0 < y.sum() < len(y):
            pairs.append((int(y.sum() * (~y).sum()), float(roc_auc_score(y, scores))))
            precisions.append(float(average_precision_score(y, scores)))
        everyone = [row for row in rows if row["round"] == number]
        if not any(row["poisoned"] for row in everyone) and len(of_round) == sum(not r["trusted"] for r in everyone):
            clean += of_round
    with np.errstate(all="ignore"):
        return {
            "precision": float(precision_score(truth, rejected)) if tp + fp else None,
            "recall": float(recall_score(truth, rejected)) if tp + fn else None,
            "f1": float(f1_score(truth, rejected)) if tp + fp + fn else None,
            "fpr": fp / (fp + tn) if fp + tn else None,
            "benign_retention": float(recall_score(~truth, ~rejected)) if fp + tn else None,
            "auroc": sum(n * auc for n, auc in pairs) / sum(n for n, _ in pairs) if pairs else None,
            "average_precision": sum(precisions) / len(precisions) if precisions else None,
            "clean_fpr": sum(not row["accepted"] for row in clean) / len(clean) if clean else None,
            "rejected": sum(not row["accepted"] for row in counted) / len(counted) if counted else None,
        }


def finite(scores: list[float]) -> list[float]:
    """Scores that scikit-learn takes, in the same order."""
    return [1e9 if score == math.inf else -1e9 if score == -math.inf else score for score in scores]


@settings(max_examples=60, deadline=None)
@given(rows=tables())
def test_figures_are_those_of_scikit_learn(
    rows: Rows, tmp_path_factory: pytest.TempPathFactory, save_verdicts: Callable[..., Path]
) -> None:
    if not rows:
        return
    score = score_rows(tmp_path_factory.mktemp("v") / "v.parquet", rows, save_verdicts, by_client=True)
    for one in score.methods:
        mine = [row for row in rows if row["method"] == one.method]
        assert one.total.figures == pytest.approx(expected(mine))
        for number, section in one.rounds:
            assert section.figures == pytest.approx(expected([row for row in mine if row["round"] == number]))
        for client, section in one.clients or ():
            own = expected([row for row in mine if row["client_id"] == client])
            known = {"precision", "recall", "f1", "fpr", "benign_retention", "rejected"}
            assert {k: section.figures[k] for k in known} == pytest.approx({k: own[k] for k in known})


@settings(max_examples=50, deadline=None)
@given(rows=tables())
def test_an_attack_is_scored_against_the_honest_uploads_of_its_own_rounds(
    rows: Rows, tmp_path_factory: pytest.TempPathFactory, save_verdicts: Callable[..., Path]
) -> None:
    if not rows:
        return
    score = score_rows(tmp_path_factory.mktemp("v") / "v.parquet", rows, save_verdicts)
    for one in score.methods:
        mine = [row for row in rows if row["method"] == one.method]
        poisoned = [row for row in mine if row["poisoned"] and not row["trusted"]]
        assert set(one.attacks) == {row["attack"] or "" for row in poisoned}
        for attack, section in one.attacks.items():
            rounds = {row["round"] for row in poisoned if (row["attack"] or "") == attack}
            others = [row for row in mine if row["round"] in rounds and row["poisoned"] is False]
            own = expected(others + [row for row in poisoned if (row["attack"] or "") == attack])
            assert {**section.figures, "clean_fpr": None} == pytest.approx(own)


@settings(max_examples=40, deadline=None)
@given(rows=tables(), size=st.integers(1, 7))
def test_the_layout_of_the_file_decides_nothing(
    rows: Rows, size: int, tmp_path_factory: pytest.TempPathFactory, save_verdicts: Callable[..., Path]
) -> None:
    if not rows:
        return
    folder = tmp_path_factory.mktemp("v")
    scores = []
    for name, rows_in_group in (("whole", None), ("parts", size)):
        with Verdicts(save_verdicts(folder / name, rows, rows_in_group=rows_in_group)) as verdicts:
            scores.append(score_verdicts(verdicts, resamples=20))
    whole, parts = scores
    assert str(whole.signature) == str(parts.signature)
    for one, other in zip(whole.methods, parts.methods, strict=True):
        assert one.total.figures == pytest.approx(other.total.figures)
        assert one.total.intervals == other.total.intervals


def test_a_hand_made_table(tmp_path: Path, save_verdicts: Callable[..., Path]) -> None:
    #           round, score, accepted, poisoned, trusted
    table = [
        (1, 0.9, False, True, False),
        (1, 0.9, False, False, False),  # tied with the poisoned one: half a pair
        (1, 0.2, True, False, False),
        (1, 0.1, True, True, False),
        (1, 1.0, False, False, True),  # known-benign: never counted
        (2, 0.3, True, False, False),  # a clean round
        (2, 0.8, False, False, False),
    ]
    rows = [
        {"round": r, "client_id": f"c{i}", "score": s, "accepted": a, "poisoned": p, "trusted": t}
        for i, (r, s, a, p, t) in enumerate(table)
    ]
    (one,) = score_rows(tmp_path / "v.parquet", rows, save_verdicts).methods
    assert one.total.figures == {
        "precision": 1 / 3,
        "recall": 1 / 2,
        "f1": 2 / 5,
        "fpr": 2 / 4,
        "benign_retention": 2 / 4,
        "auroc": 1.5 / 4,
        "average_precision": (1 / 2 + 2 / 4) / 2,
        "clean_fpr": 1 / 2,
        "rejected": 3 / 6,
    }
    assert one.total.count("known_benign_rejected") == 1


def test_a_round_with_an_unlabelled_upload_is_not_known_to_be_clean(
    tmp_path: Path, save_verdicts: Callable[..., Path]
) -> None:
    rows = [{"round": 1, "client_id": c, "poisoned": p} for c, p in (("a", False), ("b", None))]
    (one,) = score_rows(tmp_path / "v.parquet", rows, save_verdicts).methods
    assert one.total.figures["clean_fpr"] is None
    assert one.total.count("clean_rounds") == 0
