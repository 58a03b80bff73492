"""The README's two ways to capture one's own training, as its reader would run them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from encagg_cli import Run

EXAMPLES = Path(__file__).parent / "examples"
ENCAGG = [sys.executable, "-c", "from encagg_cli.cli import run; run()"]


def test_a_training_loop_by_hand(tmp_path):
    script = EXAMPLES / "train_by_hand.py"
    plain = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True)
    command = [*ENCAGG, "capture", "runs/by-hand", "--", sys.executable, str(script)]
    captured = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)

    assert captured.stdout == plain.stdout  # training is the same with capture and without
    assert captured.stderr == "3 rounds, 15 uploads recorded into runs/by-hand\n"
    run = Run.open(tmp_path / "runs" / "by-hand")
    assert [parameter.name for parameter in run.parameters] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert [parameter.name for parameter in run.parameters if parameter.role == "output"] == ["2.weight", "2.bias"]
    for earlier, later in ((1, 2), (2, 3)):
        step = run.round(earlier).rows(range(5)).astype(np.float64).mean(axis=0)
        next_model = run.round(earlier).global_model() + step
        np.testing.assert_allclose(run.round(later).global_model(), next_model, atol=1e-6)
    assert sum(run.round(1).num_examples) == 1797


def test_clients_that_drop_their_models_into_a_spool(tmp_path):
    command = [*ENCAGG, "capture", "runs/spooled", "--watch", "spool", "--weights"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as watch:
        subprocess.run([sys.executable, EXAMPLES / "spool_clients.py", "spool"], cwd=tmp_path, check=True)
        _, told = watch.communicate(timeout=60)

    assert watch.returncode == 0, told
    assert "left out, as state that is not trained: " in told
    run = Run.open(tmp_path / "runs" / "spooled")
    assert run.rounds == (1, 2)
    trained = ["0.bias", "0.weight", "1.bias", "1.weight", "3.bias", "3.weight"]
    assert [parameter.name for parameter in run.parameters] == trained
    for stored in run:
        folder = tmp_path / "spool" / f"round-{stored.number:04d}"
        model = load_file(folder / "_global.safetensors")
        for index, client in enumerate(stored.client_ids):
            weights = load_file(folder / f"{client}.safetensors")
            parts = [(weights[name].astype(np.float64) - model[name]).ravel() for name in trained]
            np.testing.assert_array_equal(stored.rows([index])[0], np.concatenate(parts).astype(np.float32))
        assert stored.num_examples.tolist() == [400] * 3
