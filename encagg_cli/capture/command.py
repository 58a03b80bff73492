"""Run a training command in its own right: same terminal, same streams, same signals, same exit code."""

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final

from encagg_cli.errors import EncaggError

_SIGNAL_BASE: Final = 128

_FORWARDED: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
# A terminal sends these to the command as well as to us; passing them on would deliver them twice.
_FROM_TERMINALS: Final = ("SIGINT", "SIGQUIT", "SIGHUP")
# Python ignores these, and what is ignored stays so in a new program.
_IGNORED_BY_PYTHON: Final = ("SIGPIPE", "SIGXFSZ")
_LONGEST_WAIT: Final = 0.5  # seconds: the end of the command wakes us at once, unless another thread took the signal


class CommandNotExecutableError(EncaggError):
    """The command is there and could not be started (exit 126, as a shell would)."""

    exit_code = 126


class CommandNotFoundError(EncaggError):
    """There is no such command (exit 127, as a shell would)."""

    exit_code = 127


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run `command` with this environment, pass on the signals that reach us, and return its exit code (128 + n for a
    signal n that ended it).

    The command stays in our process group and session, so that job control and terminals work as without us. Signals
    are waited for and not handled: nothing is interrupted, and one that came with the command's end is not lost.
    Raises CommandNotFoundError or CommandNotExecutableError.
    """
    forwarded = {
        number
        for number in (getattr(signal, name) for name in _FORWARDED)
        if signal.getsignal(number) is not signal.SIG_IGN  # nohup's choice, for us and for the command
    }
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # otherwise the system throws exit codes away
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, forwarded | {signal.SIGCHLD})
    try:
        process = _spawn(command, environment, mask)
        while True:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                break
            _forward(process, forwarded)
        for number in forwarded & signal.sigpending():
            signal.sigwait({number})  # it was meant for the command, which has ended
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else _SIGNAL_BASE - code


def _spawn(command: Sequence[str], environment: Mapping[str, str], mask: set[signal.Signals | int]) -> int:
    defaults = [getattr(signal, name) for name in _IGNORED_BY_PYTHON]
    try:
        return os.posix_spawnp(command[0], list(command), environment, setsigmask=mask, setsigdef=defaults)
    except FileNotFoundError as error:
        raise CommandNotFoundError(f"cannot start {command[0]}: there is no such command") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in an argument
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise CommandNotExecutableError(f"cannot start {command[0]}: {reason}") from error


def _forward(process: int, forwarded: set[signal.Signals]) -> None:
    """Wait for a signal, and pass it on unless it tells of the command's end or reached the command by itself."""
    awaited = forwarded | {signal.SIGCHLD}
    if hasattr(signal, "sigtimedwait"):
        received = signal.sigtimedwait(awaited, _LONGEST_WAIT)
        if received is None:
            return
        number, by_kernel = received.si_signo, received.si_code > 0
    else:  # macOS cannot tell who sent a signal
        number = signal.sigwait(awaited)
        by_kernel = _in_foreground()
    if number == signal.SIGCHLD or (by_kernel and signal.Signals(number).name in _FROM_TERMINALS):
        return
    os.kill(process, number)


def _in_foreground() -> bool:
    """Whether our process group is the one that the terminal's keys reach."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
