"""`encagg bench`, on captured honest rounds."""

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from encagg_cli import Run, attacks, filters
from encagg_cli.attacks.campaign import Campaign
from encagg_cli.attacks.schedule import get_schedule
from encagg_cli.bench import runner
from encagg_cli.bench.cells import Cell, draw_known_benign, grid
from encagg_cli.bench.run_cell import run_cell
from encagg_cli.cli import main
from encagg_cli.cli.progress import Bar
from encagg_cli.rounds.layout import Parameter
from encagg_cli.rounds.writer import RoundWriter

FEW = ["--attack", "sign-flip", "--ratio", "0.25", "--known-benign", "3", "--workers", "1", "--method", "k-means"]


def bench(run: Path, output: Path, *options: str) -> int:
    return main(["bench", str(run), "-o", str(output), *FEW, *options])


def test_every_cell_of_the_grid_is_there_once() -> None:
    cells = list(grid(["a", "b"], ["lie", "ipm"], [0.0, 0.2, 0.4], [0, 1], None))
    assert len(cells) == len(set(cells)) == 2 * 2 * (1 + 2 * 2)
    assert len({cell.key for cell in cells}) == len(cells)
    assert sum(cell.attack == "" for cell in cells) == 4


def test_known_benign_clients_are_drawn_for_each_seed() -> None:
    clients = [f"c{index}" for index in range(30)]
    drawn = {draw_known_benign(clients, frozenset(), Cell("r", "", 0.0, seed, 4)) for seed in range(20)}
    assert len(drawn) > 10
    assert all(len(chosen) == 4 for chosen in drawn)
    assert draw_known_benign(clients, frozenset({"c1"}), Cell("r", "", 0.0, 0, None)) == {"c1"}


def test_a_cell_counts_what_a_poisoned_copy_of_the_run_gives(honest_run: Path) -> None:
    cell = Cell("r", "lie", 0.25, 0, 3)
    rows = [row for row in run_cell(cell, honest_run, ["k-means"], None) if row["method"] == "k-means"]
    assert [row["round"] for row in rows] == [0, 1, 2]
    with Run.open(honest_run) as run:
        clients = sorted(run.round(0).client_ids)
        trusted = draw_known_benign(clients, frozenset(), cell)
        campaign = Campaign(
            [attacks.get("lie")],
            ratio=0.25,
            schedule=get_schedule("always"),
            seed=0,
            clients=clients,
            trusted=trusted,
        )
        for row, stored in zip(rows, run, strict=True):
            plan = campaign.plan(stored.number, stored.client_ids)
            updates = stored.rows(range(len(stored.client_ids)))
            place = {client: index for index, client in enumerate(stored.client_ids)}
            for start, stop, values in campaign.craft(stored, plan):
                updates[[place[c] for c in plan.poisoning], start:stop] = values
            decision = filters.get("k-means").decide(updates, clients=stored.client_ids, trusted=sorted(trusted))
            counted = np.array([client not in trusted for client in stored.client_ids])
            poisoned = np.array([client in plan.poisoning for client in stored.client_ids])
            assert row["tp"] == (~decision.accepted & poisoned & counted).sum()
            assert row["fp"] == (~decision.accepted & ~poisoned & counted).sum()
            assert row["tp"] + row["fn"] == len(plan.poisoning) == 3
            assert row["tn"] + row["fp"] == 6


def test_results_are_one_file_and_one_document(
    honest_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "bench.parquet"
    assert bench(honest_run, output, "--json", "--markdown", str(tmp_path / "bench.md")) == 0
    document = json.loads(capsys.readouterr().out)
    assert {result["method"].partition(":")[0] for result in document["results"]} == {"k-means", "no-filter", "oracle"}
    assert {gap["method"] for gap in document["against_oracle"]} == {"k-means"}
    table = pq.read_table(output)
    assert set(table.column("ratio").to_pylist()) == {0.0, 0.25}
    assert "k-means" in (tmp_path / "bench.md").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.md", "bench.parquet"]


def test_an_interrupted_bench_goes_on_where_it_stopped(
    honest_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole.parquet"
    assert bench(honest_run, whole) == 0
    ran: list[Cell] = []

    def interrupted(cell: Cell, *arguments: object) -> object:
        ran.append(cell)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return run_cell(cell, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "run_cell", interrupted)
    output = tmp_path / "bench.parquet"
    assert bench(honest_run, output) == 130
    assert not output.exists()
    assert bench(honest_run, output) == 0
    assert ran[0] not in ran[2:]  # the finished cell was not run again
    columns = [name for name in pq.read_schema(whole).names if name != "milliseconds"]
    assert pq.read_table(output, columns=columns).to_pylist() == pq.read_table(whole, columns=columns).to_pylist()


def test_kept_cells_of_other_rounds_are_not_gone_on_with(
    honest_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(cell: Cell, *arguments: object) -> object:
        raise KeyboardInterrupt

    run, others, output = tmp_path / "run", tmp_path / "others", tmp_path / "bench.parquet"
    shutil.copytree(honest_run, run)
    shutil.copytree(honest_run, others)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "run_cell", interrupted)
        assert bench(run, output) == 130
    assert bench(run, output, "--alternatives", str(others)) == 2
    assert main(["prune", str(run), "--keep-last", "2", "--yes"]) == 0
    assert bench(run, output) == 2
    assert capsys.readouterr().err.count("holds the cells of another bench") == 2
    shutil.rmtree(run)
    shutil.copytree(honest_run, run)
    (run / "round-000002.h5").unlink()
    assert bench(run, output) == 2


def test_two_processes_find_what_one_finds(honest_run: Path, tmp_path: Path) -> None:
    assert bench(honest_run, tmp_path / "1.parquet") == 0
    assert bench(honest_run, tmp_path / "2.parquet", "--workers", "2") == 0
    columns = [name for name in pq.read_schema(tmp_path / "1.parquet").names if name != "milliseconds"]
    one, two = (pq.read_table(tmp_path / name, columns=columns).to_pylist() for name in ("1.parquet", "2.parquet"))
    assert one == two


def test_a_bench_goes_on_when_a_worker_is_killed(honest_run: Path, tmp_path: Path) -> None:
    cells = list(grid(["r"], ["sign-flip", "lie"], [0.0, 0.25], range(4), 3))
    subjects = {"r": runner.Subject("r", honest_run, None, "digest")}
    killed: list[int] = []

    def kill(done: int, of: int) -> None:
        if 0 < done < of and not killed:
            worker = multiprocessing.active_children()[0]
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            killed.append(worker.pid)

    output = runner.run_bench(cells, subjects, ["k-means"], tmp_path / "2.parquet", workers=2, progress=kill)
    assert killed
    calm = runner.run_bench(cells, subjects, ["k-means"], tmp_path / "1.parquet", workers=1)
    one, two = (pq.read_table(path).drop_columns("milliseconds").to_pylist() for path in (calm, output))
    assert one == two


def test_methods_that_need_the_number_of_attackers_are_told_the_truth(honest_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "bench.parquet"
    options = ["--attack", "scaling", "--ratio", "0.25", "--known-benign", "3", "--workers", "1"]
    assert main(["bench", str(honest_run), "-o", str(output), *options, "--method", "multi-krum"]) == 0
    rows = [row for row in pq.read_table(output).to_pylist() if row["method"].startswith("multi-krum")]
    assert all(row["told_f"] for row in rows)
    assert all(row["tp"] + row["fp"] + row["known_benign_rejected"] == (3 if row["attack"] else 0) for row in rows)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--ratio", "1.5"], 2, "1.5"),
        (["--method", "nonsense"], 2, "nonsense"),
        (["--attack", "nonsense"], 2, "nonsense"),
        (["--known-benign", "12"], 2, "12"),
        (["--known-benign", "3", "--ratio", "0.2", "--ratio", "0.9"], 2, "only 9 are not known-benign"),
        (["--ratio", "0.01"], 2, "no attacker at all"),
        (["--ratio", "0.98"], 2, "no honest client"),
        (["--attack", "lie", "--attack", "label-flip"], 2, "label-flip needs updates trained on changed labels"),
        (["--attack", "adaptive"], 2, "--known-benign K"),
        (["--method", "anchored-views"], 2, "--known-benign K"),
        (["--method", "fltrust"], 2, "fltrust needs the stored root gradient"),
        (["--method", "k-means", "--method", "k-means"], 2, "named twice"),
        (["--recipe", "nonsense"], 2, "nonsense"),
        (["--recipe", "mnist-dirichlet-a"], 2, "--data-dir"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    honest_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, message: str
) -> None:
    output = tmp_path / "bench.parquet"
    runs = ["--runs-dir", str(tmp_path / "runs")]
    assert main(["bench", str(honest_run), "-o", str(output), "--workers", "1", *runs, *options]) == code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())  # nothing was trained, no cell was run


def test_an_attack_that_needs_what_the_run_lacks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    with RoundWriter(run, 0, session="s", parameters=[Parameter("update", (30,), 0)]) as writer:
        for row, update in enumerate(np.random.default_rng(0).standard_normal((12, 30)).astype(np.float32)):
            writer.add(f"c{row}", update)
    output = tmp_path / "bench.parquet"
    options = ["--known-benign", "3", "--workers", "1", "--method", "k-means", "--ratio", "0.25"]
    assert main(["bench", str(run), "-o", str(output), *options, "--attack", "xfed-like"]) == 4
    message = " ".join(capsys.readouterr().err.split())
    assert f"{run}: xfed-like needs the global model of every round" in message
    assert main(["bench", str(run), "-o", str(output), *options]) == 0  # the bench's own: left out, with a word
    message = " ".join(capsys.readouterr().err.split())
    assert "xfed-like needs the global model of every round" in message
    assert "label-flip needs updates trained on changed labels" in message
    attacks_run = set(pq.read_table(output).column("attack").to_pylist())
    assert "lie" in attacks_run
    assert not {"xfed-like", "label-flip"} & attacks_run


def test_labels_changed_in_another_way_than_the_recipes_are_refused(tmp_path, capsys):
    options = ["--recipe", "digits-small", "--runs-dir", str(tmp_path / "runs"), "-o", str(tmp_path / "b.parquet")]
    chosen = ["--method", "k-means", "--ratio", "0.2", "--workers", "1"]
    assert main(["bench", *options, *chosen, "--attack", "label-flip(mapping=pair)"]) == 2
    assert "those of a recipe are trained by label-flip" in " ".join(capsys.readouterr().err.split())
    assert main(["bench", *options, *chosen, "--attack", "label-flip(mapping=reverse)"]) == 0
    assert "label-flip" in pq.read_table(tmp_path / "b.parquet").column("attack").to_pylist()


def test_shares_of_the_bench_that_a_run_does_not_allow_are_left_out(
    honest_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "bench.parquet"
    options = ["--attack", "ipm", "--known-benign", "5", "--workers", "1", "--method", "k-means"]
    assert main(["bench", str(honest_run), "-o", str(output), *options]) == 0
    assert set(pq.read_table(output).column("ratio").to_pylist()) == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6}
    assert "only 7 are not known-benign" in " ".join(capsys.readouterr().err.split())


def test_nothing_is_trained_before_all_that_was_named_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, kept = tmp_path / "empty", tmp_path / "kept"
    empty.mkdir()
    recipes = ["--recipe", "digits-small", "--recipe", "mnist-dirichlet-a", "--runs-dir", str(kept)]
    output = ["-o", str(tmp_path / "bench.parquet"), "--workers", "1"]
    assert main(["bench", *recipes, *output, "--data-dir", str(empty)]) == 4
    assert "train-images" in capsys.readouterr().err
    assert main(["bench", *recipes, *output, "--data-dir", str(tmp_path / "nowhere")]) == 2
    assert main(["bench", "--recipe", "digits-small", "--runs-dir", str(kept), *output, "--method", "nonsense"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_no_bar_is_shown_for_what_is_not_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Bar("training"):
        pass
    assert not capsys.readouterr().err
    with Bar("training") as bar:
        bar.show(1, 2)
    assert capsys.readouterr().err


def test_the_tables_fit_a_terminal(
    honest_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert bench(honest_run, tmp_path / "bench.parquet", "--method", "encagg") == 0
    printed = capsys.readouterr()
    assert all(len(line) <= 80 for line in printed.out.splitlines() if str(honest_run) not in line)
    for title in ("harm to the aggregate", "k-means against the best oracle", "encagg against the best oracle"):
        assert title in printed.out
    assert "2 of 2 cells need no crafted update" in " ".join(printed.err.split())


def test_a_bench_needs_honest_rounds(attacked_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(attacked_run, tmp_path / "bench.parquet") == 4
    assert "honest" in capsys.readouterr().err


def test_a_bench_needs_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 2
    assert "recipe" in capsys.readouterr().err
