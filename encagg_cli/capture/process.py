"""A process that runs under `encagg capture`: what stands behind `record` once something is recorded.

Each process of the session has its own recorder, and so its own files. Recording never stops training unless `--strict`
asks for it: what goes wrong is said once on stderr, and reported to `encagg capture`, which fails in the end.
"""

import atexit
import operator
import os
import secrets
import signal
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

from encagg_cli.capture import session_folder
from encagg_cli.capture.recorder import CaptureWarning, Recorder, RoundRecording
from encagg_cli.capture.session_folder import CaptureSettings
from encagg_cli.errors import EncaggError, OutputError

_PATIENCE_AT_THE_END_SECONDS: Final = 30.0

_active: "CapturedProcess | None" = None
_starting = threading.Lock()


def active() -> "CapturedProcess":
    """This process's part in the session that the environment names."""
    global _active
    session = os.environ.get(session_folder.SESSION_VARIABLE, "")
    with _starting:
        if _active is None or _active.session != session:
            if _active is not None:
                _active.end_round()
            _active = CapturedProcess(
                Path(os.environ[session_folder.RUN_VARIABLE]),
                session,
                Path(os.environ.get(session_folder.FOLDER_VARIABLE, "")),
            )
        return _active


class CapturedProcess:
    """Records uploads into the session's run, one round after the other. Any thread may call it."""

    def __init__(self, run: Path, session: str, folder: Path) -> None:
        self.session = session
        self._run = run
        self._folder = folder
        self._lock = threading.RLock()  # held again by the handler of a signal that came while it was held
        self._name = _new_name()
        self._settings: CaptureSettings | None = None
        self._recorder: Recorder | None = None
        self._number: int | None = None
        self._round: RoundRecording | None = None
        self._has_warned = False
        self._ends_well = False
        self._publishing_thread: int | None = None
        self._awaiting_signal: int | None = None

    def record(
        self,
        number: int,
        client_id: str,
        update: Any,
        *,
        global_model: Any = None,
        root_gradient: Any = None,
        **facts: Any,
    ) -> None:
        """Record an upload; see `encagg_cli.record`."""
        with suppress(TypeError):
            number = operator.index(number)  # NumPy's integers become Python's
        with self._lock:
            if number != self._number:
                self.end_round()
                self._begin(number, global_model, root_gradient)
            if self._round is None:
                return  # it is passed over, or has failed
            try:
                self._round.add(client_id, update, **facts)
            except Exception as error:  # noqa: BLE001 - whatever it is, training goes on
                is_lost = not self._round.is_recorded
                self._fail("failed" if is_lost else "refused", error)
                if is_lost:
                    self._round = None

    def end_round(self) -> None:
        """Publish the round that is open."""
        with self._lock:
            self._number = None
            recording, self._round = self._round, None
            if recording is None:
                return
            self._publishing_thread = threading.get_ident()
            try:
                self._publish(recording)
            finally:
                self._publishing_thread = None
                if self._awaiting_signal is not None:
                    _die_of(self._awaiting_signal)

    def puts_off(self, number: int) -> bool:
        """Whether a signal that ends the process has to wait, as it interrupted this very thread in publishing."""
        if self._publishing_thread != threading.get_ident():
            return False
        self._awaiting_signal = number
        return True

    def finish(self) -> None:
        """Publish what is open and wait until it is on the disk. Called from the handler of a signal, too."""
        with suppress(Exception):  # reported already; there is nobody to raise to
            self.end_round()
        if self._recorder is not None:
            self._recorder.background.submit(lambda: None).wait(_PATIENCE_AT_THE_END_SECONDS)

    def become_forked(self) -> None:
        """In a forked child: a process of its own in the same session. The recorder sees to itself."""
        self._lock = threading.RLock()
        self._name = _new_name()
        self._number = None
        self._round = None
        self._has_warned = False
        self._ends_well = False
        self._publishing_thread = None

    def _publish(self, recording: RoundRecording) -> None:
        try:
            recording.close()
        except Exception as error:  # noqa: BLE001 - as above
            self._fail("failed", error, recording.number)
            return
        if recording.path is not None:
            self._report("published", recording.number, uploads=len(recording.client_ids))
        else:
            self._report("passed over", recording.number)  # all of its uploads were refused

    def _begin(self, number: int, global_model: Any, root_gradient: Any) -> None:
        self._number = number
        if not self._ends_well:
            self._ends_well = True
            _end_with_the_process()
        try:
            recorder = self._open()
            self._report("begun", number)
            recording = recorder.round(number, global_model=global_model, root_gradient=root_gradient)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail("failed", error)
            return
        if recording.is_recorded:
            self._round = recording
        else:
            self._report("passed over", number)

    def _open(self) -> Recorder:
        if self._recorder is None:
            try:
                settings = self._settings = session_folder.read_settings(self._folder)
            except FileNotFoundError:
                raise OutputError("the capture that this process belongs to has ended") from None
            if not settings.strict:  # not even where training turns warnings into errors
                warnings.filterwarnings("always", category=CaptureWarning)
            self._recorder = Recorder(
                self._run,
                trusted=settings.trusted,
                update_kind=settings.update_kind,
                dtype=settings.dtype,
                compression=settings.compression,
                every=settings.every,
                output_layer=settings.output_layer,
                pseudonyms=settings.pseudonyms,
                force=settings.force,
                session=self.session,
            )
        return self._recorder

    def _fail(self, event: session_folder.Event, error: Exception, number: int | None = None) -> None:
        """Report what went wrong, then warn once, or raise where the user chose so."""
        number = self._number if number is None else number
        text = str(error) if isinstance(error, EncaggError) else f"{type(error).__name__}: {error}"
        if isinstance(error, EncaggError) and error.hint:
            text += f" ({error.hint})"
        if f"round {number}" not in text:
            text = f"round {number}: {text}"
        self._report(event, number, error=text)
        if self._settings is not None and self._settings.strict:
            raise error
        if not self._has_warned:
            self._has_warned = True
            lost = "an upload" if event == "refused" else "a round"
            with suppress(OSError, ValueError, AttributeError):  # stderr may be closed
                sys.stderr.write(f"encagg: recording failed, training goes on without {lost}: {text}\n")

    def _report(self, event: session_folder.Event, number: Any, **facts: object) -> None:
        number = number if isinstance(number, int) else repr(number)  # whatever training took for one
        with suppress(OSError):  # the folder goes when the command ends; a process may outlive it
            session_folder.report(self._folder, self._name, event, number, **facts)


def _new_name() -> str:
    return f"{os.getpid()}-{secrets.token_hex(4)}"


def _end_with_the_process() -> None:
    """Processes of `multiprocessing` end without `atexit`, and pools end theirs with SIGTERM."""
    atexit.unregister(_at_exit)  # of the process that this one was forked from
    atexit.register(_at_exit)
    multiprocessing_process = sys.modules.get("multiprocessing.process")
    if multiprocessing_process is not None and multiprocessing_process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, _at_exit, exitpriority=100)
    is_main = threading.current_thread() is threading.main_thread()
    # The recorder has a handler of its own, which gives up what is open. Uploads that came through `record` are
    # published as at any other end of the process.
    if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_termination)


def _at_exit() -> None:
    if _active is not None:
        _active.finish()


def _on_termination(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough: a second one must not end us while we publish
    if _active is not None and _active.puts_off(number):
        return
    _at_exit()
    _die_of(number)


def _die_of(number: int) -> None:
    """End as training would have without us."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _after_fork_in_child() -> None:
    global _starting
    _starting = threading.Lock()
    if _active is not None:
        _active.become_forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
