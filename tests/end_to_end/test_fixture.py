"""The captured run that comes with the project: what three filters say of it must not change unnoticed."""

from pathlib import Path

import numpy as np
import pandas as pd

from encagg_cli import Run
from encagg_cli.cli import main

FIXTURES = Path(__file__).parents[2] / "fixtures"
METHODS = ("encagg", "multi-krum(f=12,relaxed=true)", "cosine-to-known-benign")


def test_the_fixture_is_sound_and_holds_honest_and_attacked_rounds() -> None:
    assert main(["inspect", str(FIXTURES / "digits.h5"), "--verify"]) == 0
    with Run.open(FIXTURES / "digits.h5") as run:
        poisoned = {stored.number: int((stored.poisoned == 1).sum()) for stored in run}
        names = {name for stored in run for name in stored.attack if name}
        assert all(int(stored.trusted.sum()) == 4 and len(stored.client_ids) == 20 for stored in run)
    assert poisoned[0] == poisoned[4] == 0
    assert max(poisoned.values()) == 9
    assert names == {"lie", "sign-flip", "min-max"}


def test_todays_verdicts_are_the_golden_ones(tmp_path: Path) -> None:
    methods = [option for method in METHODS for option in ("--method", method)]
    output = tmp_path / "verdicts.parquet"
    assert main(["filter", str(FIXTURES / "digits.h5"), "-o", str(output), "--cache", "none", *methods]) == 0
    today, golden = pd.read_parquet(output), pd.read_parquet(FIXTURES / "digits.verdicts.parquet")
    exact = ["round", "client_id", "method", "accepted", "reason", "cluster", "trusted", "poisoned", "attack"]
    for column in exact:
        assert today[column].astype(object).equals(golden[column].astype(object)), column
    for column in ("score", "statistic", "threshold", "weight", "x", "y"):  # BLAS differs in the last digits
        np.testing.assert_allclose(today[column], golden[column], rtol=1e-3, atol=1e-5, err_msg=column)
