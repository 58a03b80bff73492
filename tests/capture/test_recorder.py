"""The recorder stores what training hands it, and training may go on at once."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from encagg_cli import Recorder, Run
from encagg_cli.errors import UnusableInput

MODEL = {"fc.weight": np.ones((2, 3)), "fc.bias": np.zeros(2)}


def test_a_round_holds_what_was_added(tmp_path: Path):
    update = np.arange(8, dtype=np.float32)
    with Recorder(tmp_path / "run", trusted=["b"]) as recorder, recorder.round(3, global_model=MODEL) as stored_round:
        for client in "ab":
            stored_round.add(client, {"fc.weight": update[:6].reshape(2, 3), "fc.bias": update[6:]}, num_examples=5)
            update += 1  # the recorder has its own copy

    stored = Run.open(tmp_path / "run").round(3)

    assert stored.client_ids == ("a", "b")
    np.testing.assert_array_equal(stored.rows([0, 1]), [np.arange(8), np.arange(8) + 1])
    np.testing.assert_array_equal(stored.global_model(), [1, 1, 1, 1, 1, 1, 0, 0])
    assert stored.num_examples.tolist() == [5, 5]
    assert stored.trusted.tolist() == [False, True]


def test_a_client_with_other_shapes_is_named_and_the_round_goes_on(tmp_path: Path):
    with Recorder(tmp_path / "run") as recorder, recorder.round(1, global_model=MODEL) as stored_round:
        stored_round.add("a", MODEL)
        with pytest.raises(UnusableInput, match=r"round 1, client 'b': tensor 'fc.bias' has the shape \(3,\)"):
            stored_round.add("b", {"fc.weight": np.ones((2, 3)), "fc.bias": np.zeros(3)})
        stored_round.add("c", MODEL)

    assert Run.open(tmp_path / "run").round(1).client_ids == ("a", "c")


def test_recording_loads_neither_torch_nor_the_command_line(tmp_path: Path):
    program = (
        "import sys, numpy; from encagg_cli import Recorder\n"
        f"with Recorder({str(tmp_path / 'run')!r}) as r, r.round(1) as x: x.add('a', numpy.ones(3))\n"
        "print(sorted({'torch', 'typer', 'rich', 'click', 'sklearn', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
