"""Files of every format version are read for ever (tests/rounds/data/make.py made them, and never makes them anew)."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from encagg_cli.rounds.reader import Run
from encagg_cli.rounds.verify import verify

DATA = Path(__file__).with_name("data")
UPDATES = runpy.run_path(str(DATA / "make.py"))["updates"](4, 7)

# By hand from the bytes, as FORMAT.md says; they must never change.
DIGESTS = {
    0: "sha256:e5588e93cc1dfbe342bde8c3d2e789024bad99247717b54f4cd58b829f823b87",
    1: "sha256:35ac30f5447be82571357d5da3f9dbb59f1276e72c7490d9390368559e83dc04",
    2: "sha256:3d82583ce1d22d00af48cb92fc028b628323cffa35e27dd5d8ca21fc9f45a530",
}


@pytest.mark.parametrize("name", ["run", "packed.h5"])
def test_version_1_is_read(name: str):
    run = Run.open(DATA / "version-1" / name)

    assert run.rounds == (0, 1, 2)
    assert [(p.name, p.shape, p.offset, p.role) for p in run.parameters] == [
        ("conv.weight", (2, 3), 0, ""),
        ("fc.bias", (), 6, "output"),
    ]
    for stored, stored_type in zip(run, ("float32", "float16", "bfloat16"), strict=True):
        assert (stored.stored_type, stored.update_kind, stored.session) == (stored_type, "gradient", "session-1")
        assert stored.client_ids == ("клиент-0", "клиент-1", "клиент-2", "клиент-3")
        np.testing.assert_array_equal(stored.rows(range(4)), UPDATES)
        np.testing.assert_array_equal(np.isfinite(stored.norms), [True, True, False, True])
        np.testing.assert_allclose(stored.norms[[0, 1, 3]], np.linalg.norm(UPDATES[[0, 1, 3]], axis=1), rtol=1e-7)
        assert stored.num_examples.tolist() == [-1, 0, 1, 2]
        assert stored.trusted.tolist() == [True, False, False, False]
        assert stored.poisoned.tolist() == [-1, 1, 0, 0]
        assert stored.attack == ("", "lie", "", "")
        np.testing.assert_array_equal(stored.global_model(), np.arange(7))
        np.testing.assert_array_equal(stored.root_gradient(), np.arange(7) * 2)
        assert stored.digest == DIGESTS[stored.number]
        verify(stored)
