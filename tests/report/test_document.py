"""What a report shows, before any browser: columns, traces, scores, and nothing that JSON does not have."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from encagg_cli.errors import NothingToDo, UnusableInput
from encagg_cli.report.document import make_document
from encagg_cli.verdicts.reader import Verdicts

Save = Callable[..., Path]
Rows = Callable[..., list[dict[str, Any]]]


def document_of(path: Path, **facts: Any) -> dict[str, Any]:
    with Verdicts(path) as verdicts:
        return make_document(verdicts, **facts)


def write_trace(path: Path, clients: list[str], *, number: int = 0, method: str = "encagg", **changes: Any) -> Path:
    datasets: dict[str, Any] = {
        "clients": clients,
        "radius": 0.5,
        "second_clients": clients[1:3],
        "second_plane": np.array([[1.0, 2.0], [3.0, math.nan]]),
        "second_cluster": np.array([0, -1]),
        "second_radius": 0.25,
        "pseudo": np.array([[0.123456, 0.0], [1.0, 1.0], [2.0, 2.0]]),
        "pseudo_inside": np.array([True, False, True]),
        **changes,
    }
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "encagg-trace", "format_version": 1})
        for name, value in datasets.items():
            text = h5py.string_dtype() if name.endswith("clients") else None
            file.create_dataset(f"rounds/{number:06d}/{method.replace('/', '∕')}/{name}", data=value, dtype=text)
    return path


def test_columns_are_places_in_short_lists(path: Path) -> None:
    document = document_of(path)
    assert document["clients"] == [f"c{client}" for client in range(8)]
    assert document["rounds"] == [0, 1, 2, 3]
    encagg, krum = document["methods"]
    assert (encagg["name"], krum["name"]) == ("encagg", "krum(f=1)")
    assert len(encagg["round"]) == 32
    last = {key: values[-8] for key, values in encagg.items() if isinstance(values, list) and len(values) == 32}
    assert (last["round"], last["client"], last["accepted"], last["poisoned"], last["trusted"]) == (3, 0, 0, 1, 0)
    assert encagg["reasons"][last["reason"]] == "other-cluster"
    assert encagg["attacks"][last["attack"]] == "lie"
    assert encagg["threshold"] == 0.5


def test_a_threshold_that_changes_is_not_shown_as_one(tmp_path: Path, save_verdicts: Save) -> None:
    rows = [{"round": number, "client_id": "a", "threshold": 0.1 * number} for number in range(2)]
    assert document_of(save_verdicts(tmp_path / "v.parquet", rows))["methods"][0]["threshold"] is None


def test_what_is_not_a_number_is_said_in_json(tmp_path: Path, save_verdicts: Save) -> None:
    rows = [
        {"round": 0, "client_id": "a", "score": math.inf, "x": math.nan, "y": math.inf},
        {"round": 0, "client_id": "b", "score": -math.inf, "x": 1.23456789, "y": -1e-300},
    ]
    path = save_verdicts(tmp_path / "v.parquet", rows, signature={"settings": [math.nan, {"most": math.inf}]})
    document = document_of(path)
    method = document["methods"][0]
    assert method["score"] == ["∞", "-∞"]
    assert method["x"] == [None, 1.235]
    assert method["y"] == [None, -1e-300]
    assert document["signature"] == {"settings": ["nan", {"most": "inf"}]}
    json.dumps(document, allow_nan=False)


def test_no_verdicts_are_nothing_to_report(tmp_path: Path, save_verdicts: Save) -> None:
    with pytest.raises(NothingToDo):
        document_of(save_verdicts(tmp_path / "v.parquet", []))


def test_a_trace_brings_radius_second_plane_and_pseudo_gradients(tmp_path: Path, path: Path) -> None:
    trace = write_trace(tmp_path / "t.h5", [f"c{client}" for client in range(8)], number=2)
    assert document_of(path, trace=trace)["traces"] == {
        "2": {
            "encagg": {
                "radius": 0.5,
                "second": {
                    "radius": 0.25,
                    "client": [1, 2],
                    "x": [1.0, 3.0],
                    "y": [2.0, None],
                    "cluster": [0, -1],
                    "pseudo": [[0.1235, 0.0, 1], [1.0, 1.0, 0], [2.0, 2.0, 1]],
                },
            }
        }
    }


def test_a_method_with_a_slash_finds_its_trace(tmp_path: Path, save_verdicts: Save, some_rows: Rows) -> None:
    verdicts = save_verdicts(tmp_path / "v.parquet", some_rows(methods=("a/b",)))
    trace = write_trace(tmp_path / "t.h5", ["c0", "c1", "c2"], method="a/b")
    assert document_of(verdicts, trace=trace)["traces"]["0"]["a/b"]["radius"] == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clients": ["c0", "somebody"]}, "other clients: 'somebody'"),
        ({"number": 77}, "none of the rounds"),
        ({"method": "flame"}, "none of the rounds and methods"),
        ({"second_plane": np.zeros(3)}, "not a table of coordinates"),
        ({"second_plane": np.zeros((3, 2))}, "not a table of coordinates"),
        ({"second_cluster": np.zeros(1)}, "differ in number"),
        ({"pseudo_inside": np.zeros(1)}, "not one value"),
        ({"radius": np.zeros((2, 2))}, "cannot read the trace"),
    ],
)
def test_a_trace_of_something_else_is_refused(
    tmp_path: Path, path: Path, changes: dict[str, Any], message: str
) -> None:
    trace = write_trace(tmp_path / "t.h5", **{"clients": ["c0", "c1", "c2"], **changes})
    with pytest.raises(UnusableInput, match=message):
        document_of(path, trace=trace)


def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, path: Path) -> None:
    for name in ("absent.h5", "text.h5", "plain.h5"):
        if name == "text.h5":
            (tmp_path / name).write_text("hello")
        if name == "plain.h5":
            h5py.File(tmp_path / name, "w").close()
        with pytest.raises(UnusableInput, match="trace"):
            document_of(path, trace=tmp_path / name)
