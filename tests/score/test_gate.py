"""Gates, by a table of figures, bounds and outcomes: unrounded, and an undefined figure never passes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from encagg_cli.errors import NothingToDo, UnusableInput, UsageError
from encagg_cli.score import json as json_format
from encagg_cli.score.baseline import read_baseline
from encagg_cli.score.gate import Bound, Outcome, judge, parse_bounds, parse_drops, parse_share, refuse_nothing
from encagg_cli.score.scorer import Score, score_verdicts
from encagg_cli.verdicts.reader import Verdicts

Save = Callable[..., Path]


def rows(*, tp: int = 0, fp: int = 0, tn: int = 0, fn: int = 0, unknown: int = 0, **facts: Any) -> list[dict[str, Any]]:
    """Uploads of one round with these outcomes; `unknown` ones have no label and are accepted."""
    kinds = [(False, True)] * tp + [(False, False)] * fp + [(True, False)] * tn + [(True, True)] * fn
    kinds += [(True, None)] * unknown
    base = {"round": 1, "attack": None} | facts
    return [
        base | {"client_id": f"c{i}", "accepted": accepted, "poisoned": poisoned, "score": float(not accepted)}
        for i, (accepted, poisoned) in enumerate(kinds)
    ]


def make(path: Path, save: Save, content: list[dict[str, Any]], **options: Any) -> Score:
    signature = options.pop("signature", None)
    with Verdicts(save(path, sorted(content, key=lambda row: row["round"]), signature=signature)) as verdicts:
        return score_verdicts(verdicts, resamples=0, **options)


# (outcomes of uploads), metric, kind, bound, passes, why
TABLE: list[tuple[dict[str, int], str, Literal["min", "max"], str, bool, str]] = [
    ({"tp": 9, "fn": 1}, "recall", "min", "0.9", True, ""),
    ({"tp": 9, "fn": 1}, "recall", "min", "0.90000001", False, "0.9 is below 0.9"),
    ({"tp": 2, "fn": 1}, "recall", "min", "0.6666666666666666", True, ""),
    ({"tp": 2, "fn": 1}, "recall", "min", "0.66666666666666674", False, "0.6666666666666666 is below 0.666667"),
    ({"tp": 2, "fn": 1}, "recall", "min", "0.6667", False, "0.666667 is below 0.6667"),
    ({"tp": 0, "fn": 5}, "recall", "min", "0", True, ""),
    ({"tp": 5, "fn": 0}, "recall", "min", "1", True, ""),
    ({"tp": 3, "fp": 1}, "precision", "min", "0.75", True, ""),
    ({"tp": 3, "fp": 1}, "precision", "min", "0.76", False, "below"),
    ({"fn": 5, "tn": 5}, "precision", "min", "0", False, "undefined: no labelled upload was rejected"),
    ({"fp": 5, "tn": 5}, "recall", "min", "0", False, "undefined: no upload is labelled poisoned"),
    ({"tn": 5}, "f1", "min", "0", False, "undefined: nothing is poisoned and nothing was rejected"),
    ({"tp": 1, "fp": 1, "fn": 1}, "f1", "min", "0.5", True, ""),
    ({"fn": 3, "tn": 3}, "f1", "min", "0.1", False, "0 is below 0.1"),
    ({"fp": 1, "tn": 19}, "fpr", "max", "0.05", True, ""),
    ({"fp": 2, "tn": 18}, "fpr", "max", "0.05", False, "0.1 is above 0.05"),
    ({"tp": 5}, "fpr", "max", "1", False, "undefined: no upload is labelled honest"),
    ({"tp": 2, "tn": 2}, "auroc", "min", "1", True, ""),
    ({"tp": 1, "fn": 1, "tn": 1}, "auroc", "min", "0.75", True, ""),
    ({"tp": 2}, "auroc", "min", "0", False, "undefined: no round has both poisoned and honest uploads"),
    ({"fp": 1, "tn": 9}, "clean_fpr", "max", "0.1", True, ""),
    ({"fp": 1, "tn": 9}, "clean_fpr", "max", "0.09", False, "above"),
    (
        {"fp": 1, "tn": 9, "fn": 1},
        "clean_fpr",
        "max",
        "1",
        False,
        "undefined: no round is known to be without poisoned",
    ),
    ({"fp": 1, "tn": 9, "unknown": 1}, "clean_fpr", "max", "1", False, "undefined: no round is known"),
    ({"tp": 1, "fp": 1, "tn": 2}, "rejected", "max", "0.5", True, ""),
    ({"tp": 2, "fp": 1, "tn": 1}, "rejected", "max", "0.5", False, "0.75 is above 0.5"),
    ({"unknown": 4}, "rejected", "max", "0", True, ""),
    ({"unknown": 4}, "recall", "min", "0", False, "undefined: no upload that counts has a label"),
]


@pytest.mark.parametrize(("outcomes", "metric", "kind", "bound", "passes", "why"), TABLE)
def test_a_bound_is_kept_or_not(
    tmp_path: Path,
    save_verdicts: Save,
    outcomes: dict[str, int],
    metric: str,
    kind: Literal["min", "max"],
    bound: str,
    passes: bool,
    why: str,
) -> None:
    score = make(tmp_path / "v.parquet", save_verdicts, rows(**outcomes))
    (outcome,) = judge(score, list(parse_bounds(metric, kind, [bound])))
    assert outcome.passed is passes
    assert why in outcome.why
    assert bool(outcome.why) is not passes


def test_known_benign_uploads_never_pass_or_fail_a_gate(tmp_path: Path, save_verdicts: Save) -> None:
    content = [*rows(tp=1), *({**row, "client_id": "t", "trusted": True} for row in rows(fp=1))]
    (outcome,) = judge(make(tmp_path / "v.parquet", save_verdicts, content), [Bound("precision", ">=", 1.0)])
    assert outcome.passed
    only = [{**row, "trusted": True} for row in rows(fp=3)]
    (outcome,) = judge(make(tmp_path / "w.parquet", save_verdicts, only), [Bound("rejected", "<=", 1.0)])
    assert (outcome.passed, outcome.why) == (False, "undefined: there is no upload that counts")


def two_attacks() -> list[dict[str, Any]]:
    return [
        *rows(tp=9, fn=1, tn=10, attack="lie", round=1),
        *rows(tp=1, fn=9, tn=10, attack="min=max", round=2),
    ]


@pytest.mark.parametrize(
    ("bound", "passes", "why"),
    [
        ("lie=0.9", True, ""),
        ("min=max=0.9", False, "0.1 is below 0.9"),
        ("0.5", True, ""),
        ("gone=0", False, "undefined: no upload is labelled as of this attack (there are: lie, min=max)"),
    ],
)
def test_a_bound_may_be_of_one_attack(tmp_path: Path, save_verdicts: Save, bound: str, passes: bool, why: str) -> None:
    score = make(tmp_path / "v.parquet", save_verdicts, two_attacks())
    (outcome,) = judge(score, list(parse_bounds("recall", "min", [bound])))
    assert (outcome.passed, outcome.why) == (passes, why)


def test_every_method_is_gated_and_failures_come_first(tmp_path: Path, save_verdicts: Save) -> None:
    content = [*rows(tp=1, method="good"), *rows(fn=1, method="bad")]
    bounds = [Bound("recall", ">=", 0.5), Bound("rejected", "<=", 1.0), Bound("recall", ">=", 0.5)]
    outcomes = judge(make(tmp_path / "v.parquet", save_verdicts, content), bounds)
    assert [(o.method, o.metric, o.passed) for o in outcomes] == [
        ("bad", "recall", False),
        ("good", "recall", True),
        ("good", "rejected", True),
        ("bad", "rejected", True),
    ]


@pytest.mark.parametrize(("needed", "passes"), [(2, True), (3, False)])
def test_rounds_can_be_required(tmp_path: Path, save_verdicts: Save, needed: int, passes: bool) -> None:
    score = make(tmp_path / "v.parquet", save_verdicts, [*two_attacks(), *rows(unknown=1, round=3)])
    (outcome,) = judge(score, [Bound("rounds", ">=", needed)])
    assert (outcome.figure, outcome.passed) == (2, passes)


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "-0.1", "1.1", "lie=", "lie=nan", "=", "0,9"])
def test_a_bound_is_a_number_from_0_to_1(text: str) -> None:
    with pytest.raises(UsageError, match="--min-recall takes a number from 0 to 1"):
        list(parse_bounds("recall", "min", [text]))


def test_what_is_over_all_attacks_has_no_bound_by_attack() -> None:
    for metric in ("clean_fpr", "rejected"):
        with pytest.raises(UsageError, match="not a figure of one attack"):
            list(parse_bounds(metric, "max", ["lie=0.1"]))


def test_without_labels_only_what_needs_none_can_be_gated(tmp_path: Path, save_verdicts: Save) -> None:
    score = make(tmp_path / "v.parquet", save_verdicts, rows(unknown=3))
    for bounds in ([], [Bound("recall", ">=", 0.0)]):
        with pytest.raises(NothingToDo, match="no upload has a label") as caught:
            refuse_nothing(score, bounds)
        assert "--labels" in (caught.value.hint or "")
    refuse_nothing(score, [Bound("rejected", "<=", 0.5)])
    refuse_nothing(score, [Bound("rounds", ">=", 1)])


FILTER: dict[str, Any] = {"schema": "1", "version": "1", "methods": {"encagg": {"settings": {"r": 0.2}}}}


class TestBaseline:
    """A score held against an earlier one."""

    def compare(
        self,
        folder: Path,
        save: Save,
        before: list[dict[str, Any]],
        now: list[dict[str, Any]],
        drop: str,
        *,
        signature: dict[str, Any] | None = None,
        allow: bool = False,
    ) -> list[Outcome]:
        old = make(folder / "old.parquet", save, before, signature=FILTER)
        (folder / "score.json").write_text(json_format.render(old, []))
        new = make(folder / "new.parquet", save, now, signature=signature or FILTER)
        self.remarks = (baseline := read_baseline(folder / "score.json", new, allow_different=allow)).remarks
        return judge(new, [], baseline, parse_drops(drop.split()))

    @pytest.mark.parametrize(
        ("before", "now", "drop", "failed"),
        [
            ({"tp": 92, "fn": 8}, {"tp": 90, "fn": 10}, "recall=0.02", []),  # 0.92 - 0.02 is 0.9, not a little more
            ({"tp": 92, "fn": 8}, {"tp": 89, "fn": 11}, "recall=0.02", ["recall"]),
            ({"tp": 9, "fn": 1, "tn": 10}, {"tp": 9, "fn": 1, "tn": 10}, "0", []),
            ({"tp": 8, "fn": 2, "tn": 10}, {"tp": 9, "fn": 1, "tn": 10}, "0", []),
            (
                {"tp": 10, "tn": 10},
                {"tp": 10, "tn": 9, "fp": 1},
                "0.01",
                ["precision", "f1", "benign_retention", "auroc", "average_precision"],
            ),
            ({"tn": 9, "fp": 1}, {"tn": 8, "fp": 2}, "clean-fpr=0.05", ["clean_fpr"]),
            ({"tn": 9, "fp": 1}, {"tn": 8, "fp": 2}, "clean-fpr=0.1", []),
            ({"tp": 1, "tn": 1}, {"tn": 1}, "recall=1", ["recall"]),  # undefined now
            ({"tn": 1}, {"tp": 1, "tn": 1}, "recall=1", ["recall"]),  # undefined then
            ({"unknown": 1}, {"tp": 1, "tn": 1}, "1", ["every metric"]),  # nothing to compare with
            ({"tp": 10, "tn": 10}, {"tp": 8, "fn": 2, "tn": 10}, "0.5 recall=0.1", ["recall"]),
        ],
    )
    def test_no_figure_may_drop_by_more(
        self,
        tmp_path: Path,
        save_verdicts: Save,
        before: dict[str, int],
        now: dict[str, int],
        drop: str,
        failed: list[str],
    ) -> None:
        outcomes = self.compare(tmp_path, save_verdicts, rows(**before), rows(**now), drop)
        assert outcomes
        assert [outcome.metric for outcome in outcomes if not outcome.passed] == failed
        assert all(outcome.why for outcome in outcomes if not outcome.passed)

    def test_a_new_build_with_new_data_is_comparable_and_the_difference_is_told(
        self, tmp_path: Path, save_verdicts: Save
    ) -> None:
        newer = {**FILTER, "version": "2", "updates": "abc"}
        self.compare(tmp_path, save_verdicts, rows(tp=1, tn=1), rows(tp=2, tn=1), "0.5", signature=newer)
        (remark,) = self.remarks
        for name in ("filter.version", "filter.updates", "counts.poisoned", "verdicts.digest"):
            assert name in remark

    def test_other_settings_are_refused_unless_allowed(self, tmp_path: Path, save_verdicts: Save) -> None:
        other = {**FILTER, "methods": {"encagg": {"settings": {"r": 0.3}}}}
        with pytest.raises(UnusableInput, match=r"not comparable.*settings\.r: 0\.2 then, 0\.3 now") as caught:
            self.compare(tmp_path, save_verdicts, rows(tp=1), rows(tp=1), "0", signature=other)
        assert "--allow-different-signature" in (caught.value.hint or "")
        outcomes = self.compare(tmp_path, save_verdicts, rows(tp=1), rows(tp=1), "0", signature=other, allow=True)
        assert all(outcome.passed for outcome in outcomes)
        assert any("0.2 then, 0.3 now" in remark for remark in self.remarks)

    def test_a_method_with_other_settings_stands_in_only_if_allowed(self, tmp_path: Path, save_verdicts: Save) -> None:
        now = rows(tp=1, method="encagg(r=0.3)")
        with pytest.raises(UnusableInput, match=r"no score of encagg\(r=0\.3\)"):
            self.compare(tmp_path, save_verdicts, rows(tp=1), now, "0")
        assert self.compare(tmp_path, save_verdicts, rows(tp=1), now, "0", allow=True)

    def test_methods_that_are_not_compared_do_not_matter(self, tmp_path: Path, save_verdicts: Save) -> None:
        before = [*rows(tp=1), *rows(tp=1, method="krum")]
        assert self.compare(tmp_path, save_verdicts, before, rows(tp=1), "0")

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "{",
            "[]",
            "[" * 100_000,
            json.dumps({"schema": "encagg-score-2"}),
            json.dumps({"schema": "encagg-score-1"}),
            json.dumps({"schema": "encagg-score-1", "methods": [{"method": 1}], "signature": {}}),
            json.dumps(
                {
                    "schema": "encagg-score-1",
                    "methods": [{"method": "encagg", "metrics": {"recall": "0.9"}}],
                    "signature": {},
                }
            ),
            '{"schema": "encagg-score-1", "methods": [{"method": "encagg", "metrics": {"f1": NaN}}], "signature": {}}',
        ],
    )
    def test_what_is_no_score_is_refused(self, tmp_path: Path, save_verdicts: Save, content: str) -> None:
        score = make(tmp_path / "v.parquet", save_verdicts, rows(tp=1))
        (tmp_path / "score.json").write_text(content)
        with pytest.raises(UnusableInput):
            read_baseline(tmp_path / "score.json", score, allow_different=True)

    def test_a_drop_is_of_a_metric_that_there_is(self) -> None:
        assert parse_drops(["0.1", "clean-fpr=0.2"]) == {"": 0.1, "clean_fpr": 0.2}
        with pytest.raises(UsageError, match="knows no metric 'reacll'"):
            parse_drops(["reacll=0.1"])


def test_a_share_names_the_option_it_belongs_to() -> None:
    assert parse_share("0.25", "--allow-missing") == 0.25
    with pytest.raises(UsageError, match="--allow-missing takes a number from 0 to 1, not 'many'"):
        parse_share("many", "--allow-missing")
