"""`encagg capture`: what it takes, what it says, and with which code it ends."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from encagg_cli import Run
from encagg_cli.cli import main

RECORDS_ONE_ROUND = "import numpy as np; from encagg_cli import record; record(1, 'a', np.ones(3))"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def put(number: int, client: str, values: np.ndarray) -> None:
    folder = Path("spool") / f"round-{number:04d}"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{client}.npy", values)


# --- a command -------------------------------------------------------------------------------------------------------


def test_a_command_is_recorded(capfd):
    assert main(["capture", "run", "--trusted", "a,b", "--", *python(RECORDS_ONE_ROUND)]) == 0
    stored = Run.open("run").round(1)
    assert (stored.client_ids, stored.trusted.tolist()) == (("a",), [True])
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "1 round, 1 upload recorded into run\n"


def test_the_commands_own_options_stay_its_own():
    arguments = ["--force", "--debug", "-h", "--help", "--", "--from", "x", "-"]
    code = "import sys; open('seen', 'w').write(repr(sys.argv[1:])); " + RECORDS_ONE_ROUND
    assert main(["capture", "run", "--", *python(code, *arguments)]) == 0
    assert Path("seen").read_text() == repr(arguments)


def test_debug_behind_the_dashes_is_not_ours(capfd):
    assert main(["capture", "run", "--", "no-such-command", "--debug"]) == 127
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(("code", "expected"), [("raise SystemExit(9)", 9), ("", 5), (RECORDS_ONE_ROUND, 0)])
def test_the_exit_code_is_the_commands_or_5_if_nothing_was_recorded(code, expected):
    assert main(["capture", "run", "--", *python(code)]) == expected
    assert Path("run").exists() == (expected == 0)


def test_a_command_that_records_nothing_is_shown_how(capfd):
    main(["capture", "run", "--", "true"])
    assert capfd.readouterr().err.splitlines() == [
        "encagg: the command recorded nothing",
        "  record from its training loop, after each client's upload:",
        "      from encagg_cli import record",
        "      record(round_number, client_id, update)",
    ]


def test_a_failed_recording_of_a_command_that_ended_well_is_6(capfd):
    command = ["capture", "run", "--", *python(RECORDS_ONE_ROUND)]
    assert main(command) == 0
    assert main(command) == 6
    assert "round 1 is stored already" in capfd.readouterr().err
    assert main(["capture", "run", "--force", *command[2:]]) == 0


def test_known_benign_ids_that_nobody_has_are_told(capfd):
    for name, trusted, told in (("one", "A,z", True), ("two", "a,z", False)):
        command = ["capture", name, "--trusted", trusted, "--pseudonyms", "key", "--", *python(RECORDS_ONE_ROUND)]
        assert main(command) == 0
        said = capfd.readouterr().err
        assert ("none of the known-benign clients has uploaded ('A', 'z'): is this how" in said) == told


def test_strict_lets_the_command_fail():
    assert main(["capture", "run", "--", *python(RECORDS_ONE_ROUND)]) == 0
    assert main(["capture", "run", "--strict", "--", *python(RECORDS_ONE_ROUND)]) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, 137)])
def test_a_command_that_a_signal_ended(number, code):
    kill = f"import os, signal; signal.signal(2, signal.SIG_DFL); os.kill(os.getpid(), {number:d})"
    assert main(["capture", "run", "--", *python(kill)]) == code


def test_a_command_that_cannot_start():
    Path("plain").write_text("")
    assert main(["capture", "run", "--", "./plain"]) == 126
    assert main(["capture", "run", "--", "./missing"]) == 127
    assert not Path("run").exists()


def test_a_signal_to_us_reaches_the_command_and_what_it_recorded_is_stored():
    code = RECORDS_ONE_ROUND + "; import time; print('ready', flush=True); [time.sleep(0.1) for _ in range(300)]"
    start = "from encagg_cli.cli import run; run()"
    command = [sys.executable, "-c", start, "capture", "run", "--", *python(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as us:
        assert us.stdout.readline() == "ready\n"
        us.terminate()
        assert us.wait(20) == 143
    assert Run.open("run").rounds == (1,)


def test_an_environment_that_says_capture_does_not_name_the_run(monkeypatch, capfd):
    monkeypatch.setenv("ENCAGG_CAPTURE_RUN", "elsewhere")
    assert main(["capture"]) == 2
    assert "run" in capfd.readouterr().err.lower()


# --- usage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "name one source"),
        (["--from", "spool", "--watch", "spool"], "name one source of updates, not several"),
        (["--from", "spool", "--", "true"], "name one source of updates, not several"),
        (["--weights", "--", "true"], "about files"),
        (["--include", "*", "--", "true"], "about files"),
        (["--idle", "3", "--from", "spool"], "--idle needs --watch"),
        (["--strict", "--from", "spool"], "--strict is about a command"),
        (["--kind", "weights", "--from", "spool"], "--kind is delta or gradient, not 'weights'"),
        (["--dtype", "int8", "--from", "spool"], "--dtype is float32 or float16 or bfloat16"),
        (["--every", "0", "--from", "spool"], "--every"),
        (["--weights", "--kind", "gradient", "--from", "spool"], "not a gradient"),
        (["--trusted", "@missing", "--from", "spool"], "missing"),
        (["--pseudonyms", "run/key", "--from", "spool"], "must not lie in the run"),
        (["--output-layer", "head", "--from", "named"], "'head'"),
    ],
)
def test_what_cannot_be_meant_is_2(arguments, problem, capfd):
    put(1, "a", np.ones(3))
    Path("named/round-1").mkdir(parents=True)
    np.savez("named/round-1/a.npz", w=np.ones(3))
    assert main(["capture", "run", *arguments]) == 2
    assert problem in capfd.readouterr().err
    assert not list(Path().glob("run/round*"))


# --- a spool ---------------------------------------------------------------------------------------------------------


def test_a_spool_is_imported_and_a_second_time_nothing_is_new(capfd):
    for number in (1, 2):
        for client in "ab":
            put(number, client, np.full(3, number))
    Path("trusted").write_text("a\n")
    assert main(["capture", "run", "--from", "spool", "--trusted", "@trusted"]) == 0
    assert capfd.readouterr() == ("", "2 rounds, 4 uploads imported into run\n")
    assert Run.open("run").round(2).trusted.tolist() == [True, False]
    put(3, "a", np.full(3, 3))
    assert main(["capture", "run", "--from", "spool", "--trusted", "@trusted"]) == 0
    assert capfd.readouterr() == ("", "1 round, 1 upload imported into run; 2 were there already\n")


def test_a_pruned_run_is_not_filled_again(capfd):
    for number in (1, 2):
        put(number, "a", np.full(3, number))
    main(["capture", "run", "--from", "spool"])
    main(["prune", "run", "--keep-last", "0", "--yes"])
    capfd.readouterr()
    assert main(["capture", "run", "--from", "spool"]) == 0
    assert capfd.readouterr().err == (
        "0 rounds, 0 uploads imported into run; 2 were imported before and removed since (--force imports them again)\n"
    )
    assert main(["capture", "run", "--from", "spool", "--force"]) == 0
    assert Run.open("run").rounds == (1, 2)


def test_options_reach_the_import():
    Path("spool/round-2").mkdir(parents=True)
    base = {
        "bn.running_mean": np.zeros(2, np.float32),
        "fc.w": np.full(2, 5, np.float32),
        "head.w": np.ones(1, np.float32),
    }
    save_file(base, "spool/round-2/_global.safetensors")
    save_file({name: values + 1 for name, values in base.items()}, "spool/round-2/a.safetensors")
    put(3, "a", np.ones(5))  # passed over
    options = (
        "--weights --include * --exclude head.* --dtype float16 --compress --every 2 --output-layer bn --pseudonyms key"
    )
    assert main(["capture", "run", "--from", "spool", *options.split()]) == 0
    run = Run.open("run")
    assert run.rounds == (2,)
    stored = run.round(2)
    assert [(parameter.name, parameter.role) for parameter in run.parameters] == [
        ("bn.running_mean", "output"),
        ("fc.w", ""),
    ]
    assert stored.rows([0]).tolist() == [[1, 1, 1, 1]]
    assert stored.stored_type == "float16"
    assert stored.client_ids[0] != "a"
    assert stat.S_IMODE(Path("key").stat().st_mode) == 0o600
    assert len(Path("key").read_text().strip()) == 64


def test_a_key_is_kept_and_one_that_could_be_guessed_is_refused(capfd):
    put(1, "a", np.ones(3))
    assert main(["capture", "run", "--from", "spool", "--pseudonyms", "key"]) == 0
    assert main(["capture", "other", "--from", "spool", "--pseudonyms", "key"]) == 0
    assert Run.open("run").round(1).client_ids == Run.open("other").round(1).client_ids
    Path("short").write_text("secret")
    assert main(["capture", "third", "--from", "spool", "--pseudonyms", "short"]) == 4
    assert "no key of at least 16" in capfd.readouterr().err


def test_what_is_remarkable_is_said_on_stderr(capfd):
    put(1, "a", np.ones(3))
    put(2, "a", np.ones(3))
    Path("spool/round-0001/b.npy.tmp").touch()
    Path("spool/round-0004").mkdir()
    np.save("spool/stray.npy", np.ones(3))
    assert main(["capture", "run", "--from", "spool", "--trusted", "hospital-1", "--every", "2"]) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "spool/stray.npy" in err
    assert "b.npy.tmp is still being written" in err
    assert "1 round, 1 upload imported into run; 1 passed over; 1 without uploads" in err
    assert "trusted, but in no round: hospital-1" in err


@pytest.mark.parametrize("make", [lambda: Path("spool").mkdir(), lambda: Path("spool/round-1").mkdir(parents=True)])
def test_a_spool_without_updates_is_5(make):
    make()
    assert main(["capture", "run", "--from", "spool"]) == 5


def test_a_missing_spool_is_4_and_makes_no_run():
    assert main(["capture", "run", "--from", "spool"]) == 4
    assert not Path("run").exists()


def test_hostile_files_are_4_and_nothing_of_them_is_run_or_stored(capfd):
    class Payload:
        def __reduce__(self):
            return os.system, ("touch witness",)

    Path("spool/round-1").mkdir(parents=True)
    torch.save(Payload(), "spool/round-1/a.pt")
    assert main(["capture", "run", "--from", "spool"]) == 4
    np.save("spool/round-1/a.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    Path("spool/round-1/a.pt").unlink()
    assert main(["capture", "run", "--from", "spool"]) == 4
    assert not Path("witness").exists()
    assert not list(Path("run").glob("round*"))
    assert "Traceback" not in capfd.readouterr().err


def test_names_that_would_speak_to_the_terminal_are_shown_and_not_obeyed(capfd):
    put(1, "a", np.ones(3))
    put(1, "b\x1b[31m\n", np.ones(4))
    assert main(["capture", "run", "--from", "spool"]) == 4
    assert "\x1b[31m\n" not in capfd.readouterr().err


def test_a_changed_round_is_2_and_force_replaces_it():
    put(1, "a", np.ones(3))
    assert main(["capture", "run", "--from", "spool"]) == 0
    put(1, "a", np.full(3, 2))
    assert main(["capture", "run", "--from", "spool"]) == 2
    assert main(["capture", "run", "--from", "spool", "--force"]) == 0
    assert Run.open("run").round(1).rows([0]).tolist() == [[2, 2, 2]]


def test_a_run_that_is_a_file_is_2():
    put(1, "a", np.ones(3))
    Path("run").write_text("")
    assert main(["capture", "run", "--from", "spool"]) == 2
    assert main(["capture", "run", "--", "true"]) == 2


# --- a watched spool -------------------------------------------------------------------------------------------------


def test_a_watch_ends_with_the_spool(capfd):
    put(1, "a", np.ones(3))
    put(2, "a", np.ones(3))
    Path("spool/_end").touch()
    assert main(["capture", "run", "--watch", "spool"]) == 0
    assert Run.open("run").rounds == (1, 2)
    out, err = capfd.readouterr()
    assert out == ""
    assert "2 rounds imported into run" in err


def test_a_watch_with_an_unusable_round_is_4_and_without_any_5():
    Path("empty").mkdir()
    Path("empty/_end").touch()
    assert main(["capture", "run", "--watch", "empty"]) == 5
    put(1, "a", np.ones(3))
    put(2, "a", np.ones(3))
    Path("spool/round-0001/b.npy").symlink_to("a.npy")
    Path("spool/_end").touch()
    assert main(["capture", "run", "--watch", "spool"]) == 4
    assert Run.open("run").rounds == (2,)


def test_signals_are_as_before_after_a_watch():
    before = signal.getsignal(signal.SIGINT)
    put(1, "a", np.ones(3))
    Path("spool/_end").touch()
    main(["capture", "run", "--watch", "spool"])
    assert signal.getsignal(signal.SIGINT) == before


def test_settings_may_come_from_the_project(capfd):
    Path("pyproject.toml").write_text("[tool.encagg.capture]\nevery = 2\noutput-layer = 'update'\n")
    put(1, "a", np.ones(3))
    put(2, "a", np.ones(3))
    assert main(["capture", "run", "--from", "spool"]) == 0
    assert Run.open("run").rounds == (2,)


def test_help_says_how_it_ends(capfd):
    assert main(["capture", "--help"]) == 0
    text = capfd.readouterr().out
    assert all(word in text for word in ("--from", "--watch", "--weights", "encagg_cli.record", "exit code"))
