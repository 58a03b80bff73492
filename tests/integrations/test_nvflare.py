"""The NVFlare adapter, in real federations run by NVFlare's simulator."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="needs encagg[nvflare], in an environment of its own")

from encagg_cli import Run

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]

ROUNDS = 2
SITES = 4


@pytest.mark.parametrize(("kind", "method"), [("FULL", None), ("FULL", "cosine-to-known-benign"), ("DIFF", None)])
def test_a_simulated_job_is_recorded_and_filtered(tmp_path: Path, kind: str, method: str | None) -> None:
    from nvflare.app_common.np.recipes import NumpyFedAvgRecipe
    from nvflare.recipe import SimEnv

    from encagg_cli.integrations.nvflare import RecordingAggregator

    folder, run = tmp_path / "clients", tmp_path / "run"
    folder.mkdir()
    aggregator = RecordingAggregator(run=str(run), method=method, trusted=["site-1", "site-2"])
    recipe = NumpyFedAvgRecipe(
        name="digits",
        model=np.zeros((64, 10), dtype=np.float32).tolist(),
        min_clients=SITES,
        num_rounds=ROUNDS,
        train_script=str(Path(__file__).parent / "nvflare_client.py"),
        train_args=f"{folder} {kind}",
        aggregator=aggregator,
    )
    recipe.execute(SimEnv(num_clients=SITES, workspace_root=str(tmp_path / "workspace")))
    with Run.open(run) as stored:
        assert stored.rounds == tuple(range(ROUNDS))
        for number in stored.rounds:
            round_ = stored.round(number)
            assert sorted(round_.client_ids) == [f"site-{index + 1}" for index in range(SITES)]
            for client, row in zip(round_.client_ids, round_.rows(range(SITES)), strict=True):
                kept = np.load(folder / f"{number}-{client}.npy")
                np.testing.assert_array_equal(row, kept.astype(np.float32).ravel())
        last, first = stored.round(ROUNDS - 1), stored.round(0)
        step = last.global_model() - first.global_model()
        rows = dict(zip(first.client_ids, first.rows(range(SITES)), strict=True))
    counted = rows if method is None else {client: row for client, row in rows.items() if client != "site-4"}
    np.testing.assert_allclose(step, np.mean(list(counted.values()), axis=0), atol=1e-6)
