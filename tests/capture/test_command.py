"""A command runs under us as it would without us: streams, signals, exit codes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from encagg_cli.capture.command import CommandNotExecutableError, CommandNotFoundError, run_command

US = """
import os, sys
from encagg_cli.capture.command import run_command
sys.exit(run_command(sys.argv[1:], os.environ))
"""

# Announces that it is ready, then says which signals arrive until SIGTERM, SIGHUP or the end of its patience.
LISTENER = """
import signal, sys, time
def heard(number, frame):
    print(signal.Signals(number).name, flush=True)
    if number in (signal.SIGTERM, signal.SIGHUP):
        sys.exit(40 + number)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, heard)
print("ready", flush=True)
for _ in range(300):
    time.sleep(0.1)  # short ones: a signal just before a sleep is heard after it
"""


@pytest.fixture(autouse=True)
def default_signals():
    """Tests run under nohup, or in a shell's background, inherit ignored signals, which are rightly not passed on."""
    defaults = {
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGQUIT: signal.SIG_DFL,
        signal.SIGINT: signal.default_int_handler,
    }
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def start(*command: str, **options) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", US, *command], text=True, **options)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.parametrize("code", [0, 1, 3, 77, 255])
def test_the_exit_code_is_the_commands(code):
    assert run_command(python(f"raise SystemExit({code})"), os.environ) == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGINT])
def test_a_command_that_a_signal_ended_returns_128_and_its_number(number):
    code = run_command(python(f"import os; os.kill(os.getpid(), {number:d})"), os.environ)
    assert code == 128 + number


def test_a_missing_command_is_127_and_one_that_cannot_run_is_126(tmp_path):
    plain_file = tmp_path / "plain"
    plain_file.write_text("echo no")
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\x00\x01\x02")
    garbage.chmod(0o755)
    with pytest.raises(CommandNotFoundError) as missing:
        run_command([str(tmp_path / "nowhere")], os.environ)
    with pytest.raises(CommandNotExecutableError) as forbidden:
        run_command([str(plain_file)], os.environ)
    with pytest.raises(CommandNotExecutableError) as unreadable:
        run_command([str(garbage)], os.environ)
    assert (missing.value.exit_code, forbidden.value.exit_code, unreadable.value.exit_code) == (127, 126, 126)


def test_streams_pass_untouched():
    code = "import sys; sys.stderr.write('to stderr'); sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])"
    data = bytes(range(256)) * 400
    ended = subprocess.run([sys.executable, "-c", US, *python(code)], input=data, capture_output=True, check=True)
    assert ended.stdout == data[::-1]
    assert ended.stderr == b"to stderr"


def test_arguments_and_environment_pass_untouched(tmp_path):
    arguments = ["--force", "--", "-x", "", "a b", "*", "ü", "--debug"]
    witness = tmp_path / "seen"
    code = f"import os, sys; open({str(witness)!r}, 'w').write(repr((sys.argv[1:], os.environ['WITNESS'])))"
    assert run_command([*python(code), *arguments], {**os.environ, "WITNESS": "here"}) == 0
    assert witness.read_text() == repr((arguments, "here"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_on_and_the_command_decides_what_becomes_of_it(number):
    with start(*python(LISTENER), stdout=subprocess.PIPE) as us:
        assert us.stdout.readline() == "ready\n"
        us.send_signal(number)
        assert us.wait(10) == 40 + number
        assert us.stdout.read() == f"{signal.Signals(number).name}\n"


def test_every_signal_arrives_once_and_in_order():
    sent = [signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGINT, signal.SIGTERM]
    with start(*python(LISTENER), stdout=subprocess.PIPE) as us:
        assert us.stdout.readline() == "ready\n"
        for number in sent:
            us.send_signal(number)
            assert us.stdout.readline() == f"{signal.Signals(number).name}\n"
        assert us.wait(10) == 40 + signal.SIGTERM
        assert us.stdout.read() == ""


def test_a_command_that_dies_of_a_forwarded_signal_returns_128_and_its_number():
    with start(*python("import time; print('ready', flush=True); time.sleep(30)"), stdout=subprocess.PIPE) as us:
        us.stdout.readline()
        us.terminate()
        assert us.wait(10) == 128 + signal.SIGTERM


def test_ctrl_c_in_a_terminal_reaches_the_command_once():
    terminal, inside = os.openpty()
    code = f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); exec({US!r})"
    with subprocess.Popen(
        [sys.executable, "-c", code, *python(LISTENER)],
        start_new_session=True,
        stdin=inside,
        stdout=inside,
        stderr=inside,
    ) as us:
        os.close(inside)
        seen = _read_until(terminal, "ready")
        os.write(terminal, b"\x03")
        seen += _read_until(terminal, "SIGINT")
        time.sleep(0.3)  # a second delivery would follow at once
        us.send_signal(signal.SIGTERM)
        seen += _read_until(terminal, "SIGTERM")
        assert us.wait(10) == 40 + signal.SIGTERM
    os.close(terminal)
    assert seen.count("SIGINT") == 1


def _read_until(terminal: int, expected: str) -> str:
    seen = ""
    while expected not in seen:
        seen += os.read(terminal, 1024).decode()
    return seen


def test_what_was_ignored_stays_ignored():
    """As under nohup: the command ignores the hang-up too, and so do we."""
    code = "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, flush=True); input()"
    ignoring = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); exec({US!r})"
    with subprocess.Popen(
        [sys.executable, "-c", ignoring, *python(code)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as us:
        assert us.stdout.readline() == "True\n"
        us.send_signal(signal.SIGHUP)
        us.stdin.write("\n")
        us.stdin.close()
        assert us.wait(10) == 0


def test_the_command_starts_with_the_signals_of_a_fresh_program():
    """Python ignores SIGPIPE for itself; `head` and its like rely on it."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("needs /proc")
    ended = subprocess.run(
        [sys.executable, "-c", US, "grep", "-E", "^Sig(Blk|Ign)", str(status)],
        capture_output=True,
        text=True,
        check=True,
    )
    masks = dict(line.split(":") for line in ended.stdout.split("\n") if line)
    assert int(masks["SigBlk"], 16) == 0
    assert int(masks["SigIgn"], 16) >> (signal.SIGPIPE - 1) & 1 == 0


def test_our_own_signals_are_as_before_afterwards():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    run_command(["true"], os.environ)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_an_inherited_disregard_for_children_does_not_lose_the_exit_code():
    ignoring = f"import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); exec({US!r})"
    ended = subprocess.run([sys.executable, "-c", ignoring, *python("raise SystemExit(9)")], check=False, timeout=20)
    assert ended.returncode == 9
