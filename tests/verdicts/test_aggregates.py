"""The aggregates in a file are those that the methods' decisions come to, of all rounds and methods."""

import stat
from pathlib import Path

import h5py
import numpy as np
import pytest

from encagg_cli.errors import OutputExists, UsageError
from encagg_cli.filters import get
from encagg_cli.filters.passes import aggregate_pieces
from encagg_cli.rounds.layout import Parameter
from encagg_cli.rounds.reader import Run
from encagg_cli.rounds.writer import RoundWriter
from encagg_cli.sketch import Sketcher
from encagg_cli.verdicts.aggregates import AggregateWriter
from encagg_cli.verdicts.replay import RoundVerdicts, judge_source, name_methods

METHODS = ("mean", "multi-krum(f=2)", "median", "trimmed-mean(f=2)", "norm-bound", "centred-clipping")
D = 150_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three rounds of ten clients, one of them not finite in the second; models are stored from the second on."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    for number in range(3):
        rng = np.random.default_rng(number)
        writer = RoundWriter(
            folder,
            number,
            session="s",
            parameters=(Parameter("layer", (100, 1000), 0), Parameter("output", (50_000,), 100_000, "output")),
            global_model=rng.standard_normal(D).astype(np.float32) if number else None,
        )
        for client in range(10):
            update = rng.standard_normal(D).astype(np.float32)
            if (number, client) == (1, 3):
                update[7] = np.nan
            writer.add(f"client-{client}", update, num_examples=10 + client)
        writer.close()
    return Run.open(folder)


def filtered(run: Run, path: Path, texts: tuple[str, ...] = METHODS, **settings: object) -> list[RoundVerdicts]:
    methods = name_methods([get(text) for text in texts])
    judged = []
    with Sketcher(run, cache="none", **settings) as sketcher, AggregateWriter(path, run, sketcher, methods) as writer:  # type: ignore[arg-type]
        for stored in run:
            verdicts = judge_source(stored, stored, methods, frozenset(), sketcher)
            writer.add(verdicts)
            judged.append(verdicts)
    return judged


@pytest.fixture(scope="module")
def made(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RoundVerdicts]]:
    path = tmp_path_factory.mktemp("out") / "aggregates.h5"
    return path, filtered(run, path)


def stored_updates(run: Run, number: int) -> np.ndarray:
    with run.round(number) as stored:
        return stored.rows(range(10)).astype(np.float64)


def test_the_file_says_what_it_is_and_holds_a_vector_a_round_and_method(
    run: Run, made: tuple[Path, list[RoundVerdicts]]
) -> None:
    path, verdicts = made
    with h5py.File(path) as file:
        assert file.attrs["format"] == "encagg-aggregates"
        assert file.attrs["format_version"] == 1
        assert [name.decode() for name in file["parameters/name"]] == ["layer", "output"]
        assert list(file["rounds"]) == ["000000", "000001", "000002"]
        for group in file["rounds"].values():
            assert set(group) == set(verdicts[0].decisions)
            assert all(vector.shape == (D,) and vector.dtype == np.dtype("<f4") for vector in group.values())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("number", [0, 1, 2])
def test_linear_aggregates_are_weights_times_updates(
    run: Run, made: tuple[Path, list[RoundVerdicts]], number: int
) -> None:
    path, verdicts = made
    updates = np.nan_to_num(stored_updates(run, number))
    with h5py.File(path) as file:
        for text in ("mean", "multi-krum(f=2)", "norm-bound"):
            decision = verdicts[number].decisions[text]
            assert decision.weight is not None
            expected = decision.weight @ updates
            np.testing.assert_allclose(file[f"rounds/{number:06d}/{text}"][:], expected, rtol=1e-6, atol=1e-7)


def test_the_median_is_taken_column_by_column_over_the_finite_uploads(
    run: Run, made: tuple[Path, list[RoundVerdicts]]
) -> None:
    path, verdicts = made
    with h5py.File(path) as file:
        for number in range(3):
            decision = verdicts[number].decisions["median"]
            used = stored_updates(run, number)[decision.accepted]
            np.testing.assert_allclose(file[f"rounds/{number:06d}/median"][:], np.median(used, axis=0), rtol=1e-6)


def test_every_aggregate_is_that_of_the_filter_in_memory(run: Run, made: tuple[Path, list[RoundVerdicts]]) -> None:
    path, verdicts = made
    methods = {text: get(text) for text in verdicts[0].decisions}
    models = {}
    with h5py.File(path) as file:
        for number in range(3):
            with run.round(number) as stored:
                models[number] = stored.global_model()
                for text, chosen in methods.items():
                    decision = verdicts[number].decisions[text]
                    prior = None
                    if decision.prior == "own":
                        prior = file[f"rounds/{number - 1:06d}/{text}"][:]
                    elif decision.prior == "last_step":
                        prior = models[number] - models[number - 1]
                    expected = np.concatenate(list(aggregate_pieces(chosen, decision, stored, prior=prior)))
                    np.testing.assert_allclose(file[f"rounds/{number:06d}/{text}"][:], expected, rtol=1e-6, atol=1e-7)
    assert [verdicts[number].decisions["centred-clipping"].prior for number in range(3)] == ["", "own", "last_step"]


@pytest.mark.parametrize("settings", [{"workers": 2}, {"memory": "90MB"}])
def test_any_engine_and_limit_writes_the_same(
    run: Run, made: tuple[Path, list[RoundVerdicts]], tmp_path: Path, settings: dict[str, object]
) -> None:
    path = tmp_path / "aggregates.h5"
    filtered(run, path, **settings)
    with h5py.File(path) as found, h5py.File(made[0]) as expected:
        for number in range(3):
            for text, vector in expected[f"rounds/{number:06d}"].items():
                assert found[f"rounds/{number:06d}/{text}"][:].tobytes() == vector[:].tobytes()


def test_a_prior_that_is_not_at_hand_is_said_so(run: Run, tmp_path: Path) -> None:
    methods = name_methods([get("centred-clipping")])
    with Sketcher(run, cache="none") as sketcher:
        for number in (0, 1):
            stored = run.round(number)
            verdicts = judge_source(stored, stored, methods, frozenset(), sketcher)
        with (
            pytest.raises(UsageError, match="round 1: the aggregate of centred-clipping builds on its own"),
            AggregateWriter(tmp_path / "aggregates.h5", run, sketcher, methods) as writer,
        ):
            writer.add(verdicts)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_kept_unless_forced(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "aggregates.h5"
    path.write_text("mine")
    with Sketcher(run, cache="none") as sketcher:
        with pytest.raises(OutputExists):
            AggregateWriter(path, run, sketcher, {})
        assert path.read_text() == "mine"
        with AggregateWriter(path, run, sketcher, {}, force=True):
            pass
    assert h5py.is_hdf5(path)


def test_a_round_without_finite_uploads_has_aggregates_of_zeros(tmp_path: Path) -> None:
    writer = RoundWriter(tmp_path / "run", 0, session="s", parameters=(Parameter("update", (100,), 0),))
    writer.add("a", np.full(100, np.nan))
    writer.close()
    filtered(Run.open(tmp_path / "run"), tmp_path / "aggregates.h5", ("mean", "median"))
    with h5py.File(tmp_path / "aggregates.h5") as file:
        assert not file["rounds/000000/mean"][:].any()
        assert not file["rounds/000000/median"][:].any()
