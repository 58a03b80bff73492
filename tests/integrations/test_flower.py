"""The Flower adapters, in real federations run by Flower's own simulation engine."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

flwr = pytest.importorskip("flwr", reason="needs encagg[flower], in an environment of its own")
pytest.importorskip("ray", reason="needs Flower's simulation engine")
sys.path.insert(0, str(Path(__file__).parent))
os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # for the simulation engine's processes

from flower_federation import ATTACKER, CLIENTS, initial_model, legacy_client_app, message_client_app  # noqa: E402

from encagg_cli import Recorder, Run, filters  # noqa: E402
from encagg_cli.sketch import sketch_round  # noqa: E402
from encagg_cli.verdicts.replay import judge_round  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]

ROUNDS = 3
TRUSTED = (0, 1, 2)


def run_messages(
    strategy: Callable[[Any], Any], folder: Path, *, inner: Any = None, fails: int | None = None
) -> dict[str, np.ndarray]:
    """Run a federation over the Message API and return its final model."""
    from flwr.app import ArrayRecord
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    folder.mkdir()
    final: dict[str, np.ndarray] = {}
    app = ServerApp()

    @app.main()
    def main(grid: Any, context: Any) -> None:
        from flower_federation import _array

        wrapped = strategy(
            (inner or FedAvg)(fraction_evaluate=0.0, min_train_nodes=CLIENTS, min_available_nodes=CLIENTS)
        )
        arrays = ArrayRecord({name: _array(tensor) for name, tensor in initial_model().items()})
        result = wrapped.start(grid=grid, initial_arrays=arrays, num_rounds=ROUNDS)
        final.update({name: array.numpy() for name, array in result.arrays.items()})

    run_simulation(app, message_client_app(folder, fails), CLIENTS, backend_config=_backend())
    assert final, "the federation ended without a model"
    return final


def run_legacy(strategy: Callable[[Any], Any], folder: Path) -> None:
    """Run a federation over the older API."""
    from flwr.common import ndarrays_to_parameters
    from flwr.server import ServerAppComponents, ServerConfig
    from flwr.server.strategy import FedAvg
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    folder.mkdir()

    def server(context: Any) -> Any:
        inner = FedAvg(
            fraction_evaluate=0.0,
            min_fit_clients=CLIENTS,
            min_available_clients=CLIENTS,
            initial_parameters=ndarrays_to_parameters(list(initial_model().values())),
            on_fit_config_fn=lambda number: {"round": number},
        )
        return ServerAppComponents(strategy=strategy(inner), config=ServerConfig(num_rounds=ROUNDS))

    run_simulation(ServerApp(server_fn=server), legacy_client_app(folder), CLIENTS, backend_config=_backend())


def _backend() -> dict[str, Any]:
    return {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": 2}}


def check_recorded(run: Path, folder: Path, rounds: int = ROUNDS) -> None:
    """Every stored update is, to the last bit, what the client wrote down that it had changed."""
    with Run.open(run) as stored:
        assert stored.rounds == tuple(range(1, rounds + 1))
        assert sum(spec.size for spec in stored.parameters) == 650
        for number in stored.rounds:
            round_ = stored.round(number)
            rows = round_.rows(range(len(round_.client_ids)))
            for client, row in zip(round_.client_ids, rows, strict=True):
                kept = np.load(folder / f"{number}-{client}.npy")
                np.testing.assert_array_equal(row, kept.astype(np.float32))


def test_a_filter_in_the_loop_keeps_the_attacker_out_and_replays_the_same(tmp_path: Path) -> None:
    from encagg_cli.integrations.flower import FilteringStrategy

    wrapped: list[FilteringStrategy] = []

    def strategy(inner: Any) -> FilteringStrategy:
        wrapped.append(
            FilteringStrategy(
                inner,
                method="cosine-to-known-benign",
                trusted=TRUSTED,
                recorder=tmp_path / "run",
                client_id="partition-id",
            )
        )
        return wrapped[0]

    run_messages(strategy, tmp_path / "clients")
    check_recorded(tmp_path / "run", tmp_path / "clients")
    live = wrapped[0].intake.verdicts
    assert len(live) == ROUNDS
    method = filters.get("cosine-to-known-benign")
    with Run.open(tmp_path / "run") as stored:
        for verdicts in live:
            round_ = stored.round(verdicts.number)
            assert set(round_.client_ids) == {str(client) for client in range(CLIENTS)}
            assert dict(zip(round_.client_ids, round_.num_examples.tolist(), strict=True))["3"] == 103
            trusted = frozenset(map(str, TRUSTED))
            replayed = judge_round(sketch_round(round_, method.needs()), round_, {"it": method}, trusted)
            decision, again = verdicts.decisions["cosine-to-known-benign"], replayed.decisions["it"]
            assert decision.clients == again.clients
            np.testing.assert_array_equal(decision.score, again.score)
            np.testing.assert_array_equal(decision.accepted, again.accepted)
            rejected = {client for client, kept in zip(decision.clients, decision.accepted, strict=True) if not kept}
            assert rejected == {str(ATTACKER)}
    wrapped[0].intake.write_verdicts(tmp_path / "live.parquet")


def test_what_is_rejected_does_not_reach_the_model(tmp_path: Path) -> None:
    """The filtered federation ends with the mean over the accepted clients, recomputed here by hand."""
    from encagg_cli.integrations.flower import FilteringStrategy

    final = run_messages(
        lambda inner: FilteringStrategy(
            inner, method="cosine-to-known-benign", trusted=TRUSTED, client_id="partition-id", equal_weights=True
        ),
        tmp_path / "clients",
    )
    model = np.concatenate([initial_model()[name].astype(np.float64).ravel() for name in ("weight", "bias")])
    for number in range(1, ROUNDS + 1):
        honest = [np.load(tmp_path / "clients" / f"{number}-{client}.npy") for client in range(CLIENTS - 1)]
        model += np.mean(honest, axis=0)
    np.testing.assert_allclose(np.concatenate([final["weight"].ravel(), final["bias"].ravel()]), model, atol=1e-5)


@pytest.mark.parametrize("inner", ["FedAvg", "FedMedian", "MultiKrum"])
def test_recording_changes_nothing_in_the_training(tmp_path: Path, inner: str) -> None:
    import flwr.serverapp.strategy as strategies

    from encagg_cli.integrations.flower import RecordingStrategy

    kind = getattr(strategies, inner)
    plain = run_messages(lambda strategy: strategy, tmp_path / "plain", inner=kind)
    recorded = run_messages(
        lambda strategy: RecordingStrategy(strategy, tmp_path / "run", client_id="partition-id"),
        tmp_path / "clients",
        inner=kind,
    )
    check_recorded(tmp_path / "run", tmp_path / "clients")
    for name, tensor in plain.items():
        # Flower adds replies in the order they arrive, which differs from run to run.
        np.testing.assert_allclose(recorded[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_client_that_fails_is_absent_from_its_round_only(tmp_path: Path) -> None:
    from encagg_cli.integrations.flower import RecordingStrategy

    run_messages(
        lambda inner: RecordingStrategy(inner, tmp_path / "run", client_id="partition-id"),
        tmp_path / "clients",
        fails=3,
    )
    with Run.open(tmp_path / "run") as stored:
        present = {number: len(stored.round(number).client_ids) for number in stored.rounds}
    assert present == {1: CLIENTS, 2: CLIENTS - 1, 3: CLIENTS}


def test_a_filter_judges_the_rounded_values_of_a_16_bit_store(tmp_path: Path) -> None:
    from encagg_cli.integrations.flower import FilteringStrategy

    wrapped: list[FilteringStrategy] = []

    def strategy(inner: Any) -> FilteringStrategy:
        recorder = Recorder(tmp_path / "run", trusted=[str(client) for client in TRUSTED], dtype="bfloat16")
        wrapped.append(
            FilteringStrategy(
                inner, method="multi-krum(f=1)", trusted=TRUSTED, recorder=recorder, client_id="partition-id"
            )
        )
        return wrapped[0]

    run_messages(strategy, tmp_path / "clients")
    method = filters.get("multi-krum(f=1)")
    with Run.open(tmp_path / "run") as stored:
        for verdicts in wrapped[0].intake.verdicts:
            round_ = stored.round(verdicts.number)
            assert round_.stored_type == "bfloat16"
            sketch = sketch_round(round_, method.needs())
            replayed = judge_round(sketch, round_, {"it": method}, frozenset(map(str, TRUSTED)))
            np.testing.assert_array_equal(verdicts.decisions["multi-krum(f=1)"].score, replayed.decisions["it"].score)


def test_the_older_api_records_and_filters_too(tmp_path: Path) -> None:
    from encagg_cli.integrations.flower_legacy import FilteringStrategy

    wrapped: list[FilteringStrategy] = []

    def strategy(inner: Any) -> FilteringStrategy:
        wrapped.append(
            FilteringStrategy(
                inner,
                method="cosine-to-known-benign",
                trusted=TRUSTED,
                recorder=tmp_path / "run",
                client_id="partition-id",
            )
        )
        return wrapped[0]

    run_legacy(strategy, tmp_path / "clients")
    wrapped[0].close()
    check_recorded(tmp_path / "run", tmp_path / "clients")
    for verdicts in wrapped[0].intake.verdicts:
        decision = verdicts.decisions["cosine-to-known-benign"]
        rejected = {client for client, kept in zip(decision.clients, decision.accepted, strict=True) if not kept}
        assert rejected == {str(ATTACKER)}
