"""Labels from every source mean the same, and what cannot be read is refused with its place."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encagg_cli import Recorder
from encagg_cli.errors import UnusableInput
from encagg_cli.score.labels import LabelTable, labels_of_run, read_labels
from encagg_cli.score.scorer import Score, score_verdicts
from encagg_cli.verdicts.reader import Verdicts

LABELS = [(1, "a", True, "lie"), (1, "b", False, ""), (2, "a", True, "min,max"), (2, "b,c", False, "")]


def contents(table: LabelTable) -> list[tuple[int, str, bool, str]]:
    uploads = table.describe(range(len(table)))
    return [
        (number, client, bool(table.poisoned[row]), table.attacks[table.attack[row]])
        for row, (number, client) in enumerate(uploads)
    ]


def frame() -> pd.DataFrame:
    return pd.DataFrame(LABELS, columns=["round", "client_id", "poisoned", "attack"])


def write_csv(path: Path) -> None:
    frame().to_csv(path, index=False)


def write_malicious(path: Path) -> None:
    frame().rename(columns={"poisoned": "malicious"}).astype({"malicious": int}).sample(frac=1, random_state=0).to_csv(
        path, index=False
    )


def write_excel_style(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + frame().to_csv(index=False, lineterminator="\r\n").upper().lower().encode())


def write_parquet(path: Path) -> None:
    frame().to_parquet(path)


def write_dictionary_parquet(path: Path) -> None:
    table = pa.Table.from_pandas(frame())
    columns = {name: table.column(name) for name in table.column_names}
    columns["client_id"], columns["attack"] = (
        columns["client_id"].dictionary_encode(),
        columns["attack"].dictionary_encode(),
    )
    pq.write_table(pa.table(columns), path, row_group_size=1)


def write_json(path: Path) -> None:
    path.write_text(frame().to_json(orient="records"))


def write_json_object(path: Path) -> None:
    path.write_text(json.dumps({"labels": json.loads(frame().to_json(orient="records"))}))


def write_json_lines(path: Path) -> None:
    path.write_text(frame().to_json(orient="records", lines=True))


@pytest.mark.parametrize(
    "write",
    [
        write_csv,
        write_malicious,
        write_excel_style,
        write_parquet,
        write_dictionary_parquet,
        write_json,
        write_json_object,
        write_json_lines,
    ],
)
def test_every_form_of_file_gives_the_same_labels(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "labels")
    assert contents(read_labels(tmp_path / "labels")) == LABELS


def test_a_run_gives_its_labels(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run") as recorder:
        for number in (1, 2):
            with recorder.round(number) as round_:
                for label_round, client, poisoned, attack in LABELS:
                    if label_round == number:
                        round_.add(client, np.ones(3), poisoned=poisoned, attack=attack)
                round_.add("nobody-knows", np.ones(3))
    assert contents(labels_of_run(tmp_path / "run")) == LABELS


@pytest.mark.parametrize("unknown", ["", "-1"])
def test_an_unknown_truth_is_no_label(tmp_path: Path, unknown: str) -> None:
    (tmp_path / "l.csv").write_text(f"round,client_id,poisoned\n1,a,{unknown}\n1,b,1\n")
    assert contents(read_labels(tmp_path / "l.csv")) == [(1, "b", True, "")]


def test_ids_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("round,client_id,poisoned\n1,007,1\n1,1e3,0\n1,NA,0\n")
    assert [row[1] for row in contents(read_labels(tmp_path / "l.csv"))] == ["007", "1e3", "NA"]


def test_a_repeated_label_is_counted_and_one_that_contradicts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("round,client_id,poisoned\n1,a,1\n1,a,1\n2,a,0\n")
    assert read_labels(tmp_path / "l.csv").duplicates == 1
    (tmp_path / "l.csv").write_text("round,client_id,poisoned\n1,a,1\n2,a,0\n1,a,0\n")
    with pytest.raises(UnusableInput, match=r"round 1, client a is labelled twice, and differently"):
        read_labels(tmp_path / "l.csv")


REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "columns are missing"),
    "other columns": (b"round,client\n1,a\n", "columns are round, client"),
    "semicolons": (b"round;client_id;poisoned\n1;a;1\n", "columns are round;client_id;poisoned"),
    "a truth in words": (b"round,client_id,poisoned\n1,a,1\n1,b,maybe\n", "label 2: 'maybe' says neither"),
    "a round in words": (b"round,client_id,poisoned\n1,a,1\none,b,1\n", "label 2: 'one' is not a round"),
    "a round below zero": (b"round,client_id,poisoned\n-1,a,1\n", "label 1: '-1' is not a round"),
    "a round beyond all": (b"round,client_id,poisoned\n99999999999,a,1\n", "there can be no round 99999999999"),
    "a short line": (b"round,client_id,poisoned\n1,a\n", "cannot be read as labels"),
    "text that is not UTF-8": (b"round,client_id,poisoned\n1,\xff,1\n", "cannot be read as labels"),
    "half a JSON document": (b'[{"round": 1', "cannot be read as labels"),
    "JSON of another kind": (b"[1, 2]", "not a list of labels"),
    "a JSON round that is text": (b'[{"round": "1", "client_id": "a", "poisoned": 1}]', "label 1: '1' is not a round"),
    "a JSON id that is a number": (b'[{"round": 1, "client_id": 7, "poisoned": 1}]', "client_id is 7, not text"),
    "JSON without an id": (b'[{"round": 1, "client_id": null, "poisoned": 1}]', "a label has no client id"),
    "JSON nested without end": (b"[" * 100_000, "cannot be read as labels"),
    "half a Parquet file": (b"PAR1PAR1", "cannot be read as labels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path: Path, case: str) -> None:
    content, reason = REFUSED[case]
    (tmp_path / "l").write_bytes(content)
    with pytest.raises(UnusableInput) as caught:
        read_labels(tmp_path / "l")
    assert reason in caught.value.message
    assert str(tmp_path / "l") in caught.value.message


def test_a_parquet_round_that_is_no_number_is_refused(tmp_path: Path) -> None:
    table = pa.table({"round": [1.5], "client_id": ["a"], "poisoned": [True]})
    pq.write_table(table, tmp_path / "l")
    with pytest.raises(UnusableInput, match="cannot be read as labels"):
        read_labels(tmp_path / "l")


class TestAgainstVerdicts:
    """What happens where labels and verdicts do not fit together."""

    @staticmethod
    def score(tmp_path: Path, save: Callable[..., Path], labels: str, **options: Any) -> Score:
        rows = [
            {"round": number, "client_id": client, "method": method, "trusted": client == "t", "poisoned": own}
            for number in (3, 4)
            for method in ("encagg", "krum(f=1)")
            for client, own in (("a", False), ("b", None), ("t", None))
        ]
        (tmp_path / "l.csv").write_text(f"round,client_id,poisoned,attack\n{labels}")
        with Verdicts(save(tmp_path / "v.parquet", rows)) as verdicts:
            return score_verdicts(verdicts, read_labels(tmp_path / "l.csv"), resamples=0, **options)

    def test_labels_that_fit_leave_nothing_to_say(self, tmp_path: Path, save_verdicts: Callable[..., Path]) -> None:
        score = self.score(tmp_path, save_verdicts, "3,a,0,\n3,b,1,lie\n4,a,0,\n4,b,1,lie\n")
        assert list(score.disagreement.problems()) == []
        assert list(score.disagreement.remarks()) == []
        assert score.disagreement.share() == 0
        score.disagreement.check(0)
        assert score.methods[0].total.figures["recall"] == 0
        assert list(score.methods[0].attacks) == ["lie"]

    def test_uploads_without_labels_are_counted_once(self, tmp_path: Path, save_verdicts: Callable[..., Path]) -> None:
        d = self.score(tmp_path, save_verdicts, "3,a,0,\n").disagreement
        assert (d.uploads, d.unlabelled, d.missing_rounds) == (4, 3, [4])
        assert d.examples["unlabelled"] == [(3, "b"), (4, "a"), (4, "b")]
        with pytest.raises(UnusableInput, match="3 of 4 uploads have no label; none has one in round 4") as caught:
            d.check(0.74)
        assert "--allow-missing 0.75" in (caught.value.hint or "")
        d.check(0.75)

    def test_labels_without_verdicts_are_told_apart(self, tmp_path: Path, save_verdicts: Callable[..., Path]) -> None:
        fitting = "3,a,0,\n3,b,1,\n4,a,0,\n4,b,1,\n"
        d = self.score(tmp_path, save_verdicts, f"{fitting}3,ghost,1,\n2,a,0,\n5,a,0,\n").disagreement
        assert (d.unmatched, d.outside, d.unknown_clients, d.unknown_rounds) == (1, 2, ["ghost"], [])
        with pytest.raises(UnusableInput, match=r"1 of 7 labels .* no verdict names: ghost"):
            d.check(0)
        assert list(d.remarks()) == ["2 labels are of rounds before the first or after the last verdict, and not used"]

    def test_a_round_without_verdicts_is_named(self, tmp_path: Path, save_verdicts: Callable[..., Path]) -> None:
        rows = [{"round": number, "client_id": "a"} for number in (3, 5)]
        (tmp_path / "l.csv").write_text("round,client_id,poisoned\n3,a,0\n4,a,1\n5,a,0\n")
        with Verdicts(save_verdicts(tmp_path / "w.parquet", rows)) as verdicts:
            d = score_verdicts(verdicts, read_labels(tmp_path / "l.csv"), resamples=0).disagreement
        assert (d.unmatched, d.unknown_rounds, d.unknown_clients) == (1, [4], [])

    def test_repeats_count_against_what_is_allowed(self, tmp_path: Path, save_verdicts: Callable[..., Path]) -> None:
        d = self.score(tmp_path, save_verdicts, "3,a,0,\n3,b,1,\n4,a,0,\n4,b,1,\n4,b,1,\n").disagreement
        with pytest.raises(UnusableInput, match="1 labels repeat another"):
            d.check(0.1)

    def test_other_labels_than_the_verdicts_came_with_are_told(
        self, tmp_path: Path, save_verdicts: Callable[..., Path]
    ) -> None:
        score = self.score(tmp_path, save_verdicts, "3,a,1,\n3,b,1,\n4,a,0,\n4,b,1,\n3,t,1,\n")
        assert score.disagreement.contradicted == 1
        assert score.disagreement.trusted_poisoned == 1
        assert len(list(score.disagreement.remarks())) == 2
        assert score.methods[0].total.count("fn") == 3

    def test_the_same_truth_has_the_same_digest_from_any_source(
        self, tmp_path: Path, save_verdicts: Callable[..., Path]
    ) -> None:
        rows = [{"round": 1, "client_id": c, "poisoned": p} for c, p in (("a", True), ("b", False))]
        path = save_verdicts(tmp_path / "v.parquet", rows)
        (tmp_path / "l.csv").write_text("round,client_id,poisoned\n1,b,0\n1,a,1\n")
        with Verdicts(path) as verdicts:
            own = score_verdicts(verdicts, resamples=0).signature.facts
            given = score_verdicts(verdicts, read_labels(tmp_path / "l.csv"), resamples=0).signature.facts
        assert {name for name in own if own[name] != given[name]} == {"labels.source"}
