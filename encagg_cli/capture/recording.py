"""One round while it is recorded: uploads are copied and handed to the background; closing waits for the disk."""

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from math import prod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from numpy.typing import NDArray

from encagg_cli.capture import flatten
from encagg_cli.capture.background import RowBuffers
from encagg_cli.capture.flatten import Update
from encagg_cli.capture.trouble import CaptureWarning, say
from encagg_cli.errors import NothingToDo, UnusableInput, UsageError
from encagg_cli.rounds.encoding import stored_dtype
from encagg_cli.rounds.layout import EXAMPLES_UNKNOWN, GLOBAL_MODEL, Parameter
from encagg_cli.rounds.limits import as_client_id, check_upload
from encagg_cli.rounds.storage import Upload
from encagg_cli.rounds.writer import RoundWriter

_HANDED_ON_BYTES: Final = 2**18  # of small rows, before the background is woken

if TYPE_CHECKING:
    from encagg_cli.capture.recorder import Recorder


class RoundRecording:
    """A round that is being recorded; `Recorder.round` makes it. Uploads may be added from several threads.

    Used in a `with`, it is published at the end of the body; if the body raises, nothing of the round is stored, and
    a warning says so. `is_recorded` is false for a round that is passed over (`every`), or that was given up.
    `path` is where it was published.
    """

    def __init__(self, recorder: "Recorder", number: int, *, is_recorded: bool) -> None:
        self.number = number
        self.is_recorded = is_recorded
        self.path: Path | None = None
        self._recorder = recorder
        self._is_open = True
        self._pid = os.getpid()
        self._lock = threading.RLock()  # held again by the handler of a signal that came while it was held
        self._clients: set[str] = set()
        self._waiting: list[tuple[Upload, NDArray[np.generic]]] = []
        self._waiting_bytes = 0
        self._vectors: dict[str, NDArray[np.float32]] = {}
        self._buffers: RowBuffers | None = None
        self._writer: RoundWriter | None = None  # belongs to the background once it is there
        self._error: Exception | None = None  # of the background
        self._told_of_overflow = False
        self._model: NDArray[np.float32] | None = None  # until an upload was compared with it
        self.has_trusted = False

    def begin(self, global_model: Update | None, root_gradient: Update | None) -> None:
        """Take copies of what the round starts from."""
        recorder = self._recorder
        tensors = global_model if isinstance(global_model, Mapping) else root_gradient
        tentative = recorder.parameters
        if not tentative and isinstance(tensors, Mapping):
            tentative = recorder.parameters_of(tensors, keep_order=tensors is global_model)
        for name, vector in (("global_model", global_model), ("root_gradient", root_gradient)):
            if vector is not None:
                whose = f"round {self.number}, {name}"
                parameters = tentative or flatten.bare_parameters(prod(flatten.shape_of(vector)))
                copy = np.empty(sum(parameter.size for parameter in parameters), dtype=np.float32)
                flatten.flatten(vector, parameters, "float32", copy, whose)
                self._vectors[name] = copy
        recorder.settle_parameters(tentative)  # only now: what cannot be stored decides nothing

    def add(
        self,
        client_id: str | int,
        update: Update,
        *,
        num_examples: int | None = None,
        trusted: bool | None = None,
        poisoned: bool | None = None,
        attack: str = "",
    ) -> None:
        """Record one upload; when this returns, `update` may be reused.

        `update` is an array, a tensor, or a mapping of names to those; a number for a client id is stored as text.
        `trusted` is taken from the recorder's list where it is None; `poisoned` and `attack` are ground truth, where
        somebody knows it. Waits while two updates are on their way to the disk already.

        Raises UnusableInput, naming client and tensor, for an update of other tensors than the run's, and for a second
        upload of a client: it is not stored, and the round goes on. Raises OutputError where the round cannot be
        written. With `on_error="warn"`, all of them become warnings.
        """
        try:
            if not self._is_going_on():
                return
            name: str = as_client_id(client_id)
            examples = EXAMPLES_UNKNOWN if num_examples is None else int(num_examples)
            is_trusted = name in self._recorder.trusted if trusted is None else bool(trusted)
            upload = Upload(name, examples, is_trusted, None if poisoned is None else bool(poisoned), attack)
            check_upload(self.number, upload)
            known_as = self._recorder.pseudonym(name)
            if known_as != name:
                upload = replace(upload, client_id=known_as)
            self._claim(known_as, name)
            try:
                doubts = self._hand_over(upload, update, f"round {self.number}, client {name!r}")
            except BaseException:
                self._clients.discard(known_as)
                raise
            self.has_trusted |= is_trusted or name in self._recorder.trusted
        except Exception as error:  # noqa: BLE001 - raised or told, as the user chose
            self._recorder.trouble.meet(error, "this upload is not stored")
            return
        for doubt in doubts:  # where warnings are errors, this raises: the upload is stored all the same
            say(doubt)

    def close(self) -> None:
        """Publish the round; when this returns, it is on the disk. Does nothing the second time."""
        if not self._is_open or self._pid != os.getpid():
            return
        self._end(is_given_up=False)
        if not self.is_recorded:
            return
        try:
            self.path = self._recorder.background.submit(self._publish).result()
            self._recorder.count(self)
        except NothingToDo as nothing:
            say(str(nothing))
        except CaptureWarning:
            raise  # where warnings are errors: the round is stored
        except Exception as error:  # noqa: BLE001 - raised or told, as the user chose
            self._recorder.trouble.meet(error, f"round {self.number} is not stored as a whole")

    def abort(self) -> None:
        """Give the round up: nothing of it is stored."""
        if self._is_open and self._pid == os.getpid():
            self._end()
            self._recorder.background.submit(self.give_up).wait()
            self.is_recorded = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        was_recorded = self._is_open and self.is_recorded and self._pid == os.getpid()
        self.abort()
        if was_recorded:
            with suppress(CaptureWarning):  # the body's own exception is on its way
                say(f"round {self.number} is not stored, because {kind.__name__} was raised in it")

    @property
    def client_ids(self) -> frozenset[str]:
        """The clients so far, as they are stored."""
        return frozenset(self._clients)

    def _is_going_on(self) -> bool:
        """Whether uploads are still taken; raises, or warns once, where the background has failed."""
        if not self._is_open:
            raise UsageError(f"round {self.number} is closed already")
        if self._pid != os.getpid():
            raise UsageError(
                f"round {self.number} was opened by the process that forked this one",
                hint="open a round in this process: it is stored beside the other, and both are read as one",
            )
        error, self._error = self._error, None
        if error is not None:
            self.is_recorded = False
            self._recorder.trouble.meet(error, f"round {self.number} is not stored")
        return self.is_recorded

    def _claim(self, client: str, shown: str) -> None:
        with self._lock:
            if client in self._clients:
                raise UnusableInput(f"round {self.number}: client {shown!r} has uploaded already")
            self._clients.add(client)

    def _hand_over(self, upload: Upload, update: Update, whose: str) -> list[str]:
        """Copy the update and have it written; what is to be said of it."""
        buffers = self._prepared(update, whose)
        parameters = self._recorder.parameters
        flatten.check(update, parameters, whose)
        row = buffers.take()
        try:
            overflowed = flatten.fill(update, parameters, self._recorder.stored_type, row, whose)
        except BaseException:
            buffers.give_back(row)
            raise
        model, self._model = self._model, None
        is_model = model is not None and self._recorder.doubts.is_model(row, self._recorder.stored_type, model)
        self._wait_in_line(upload, row, buffers)
        doubts = []
        if is_model:
            doubts.append(
                f"{whose}: the upload is close to the global model: if it is a whole model, record its difference "
                "from the global model instead"
            )
        if overflowed and not self._told_of_overflow:
            self._told_of_overflow = True
            doubts.append(f"{whose}: values out of the range of {self._recorder.stored_type} are stored as infinite")
        return doubts

    def _wait_in_line(self, upload: Upload, row: NDArray[np.generic], buffers: RowBuffers) -> None:
        """Hand an upload to the background, small ones together: to wake it costs more than what it does with one."""
        with self._lock:
            if not self._is_open:
                buffers.give_back(row)
                raise UsageError(f"round {self.number} is closed already")
            self._waiting.append((upload, row))
            self._waiting_bytes += row.nbytes
            if self._waiting_bytes >= _HANDED_ON_BYTES or 2 * len(self._waiting) >= buffers.count:
                self._hand_on()

    def _hand_on(self) -> None:
        with self._lock:
            uploads, self._waiting, self._waiting_bytes = self._waiting, [], 0
            if uploads:
                self._recorder.background.submit(lambda: self._write(uploads))

    def _prepared(self, update: Update, whose: str) -> RowBuffers:
        """The buffers of this round; the first upload has the background begin the file."""
        with self._lock:
            if self._buffers is None:
                recorder = self._recorder
                flatten.check_kinds(update, whose)
                if not recorder.parameters:
                    recorder.settle_parameters(self._tried(update, whose))
                flatten.check(update, recorder.parameters, whose)
                self._buffers = recorder.buffers()
                vectors, self._vectors = self._vectors, {}
                self._model = recorder.doubts.model(vectors.get(GLOBAL_MODEL))
                parameters = recorder.parameters
                # The first vector is on its way beside the rows; a second one would make more than three updates.
                held = max(0, len(vectors) - 1)
                self._buffers.hold(held)
                recorder.background.submit(lambda: self._open(parameters, vectors, held))
            return self._buffers

    def _tried(self, update: Update, whose: str) -> tuple[Parameter, ...]:
        """The run's tensors as its first upload has them; raises UnusableInput where it cannot be stored.

        It is flattened to be sure: a list, or a file, shows what it holds only then.
        """
        if isinstance(update, Mapping):
            parameters = self._recorder.parameters_of(update, keep_order=False)
        else:
            parameters = flatten.bare_parameters(prod(flatten.shape_of(update)))
        stored_type = self._recorder.stored_type
        row = np.empty(sum(parameter.size for parameter in parameters), dtype=stored_dtype(stored_type))
        flatten.flatten(update, parameters, stored_type, row, whose)
        return parameters

    # In the background:

    def _open(self, parameters: tuple[Parameter, ...], vectors: dict[str, NDArray[np.float32]], held: int) -> None:
        try:
            self._writer = self._recorder.open_writer(self.number, parameters, vectors)
        except Exception as error:  # noqa: BLE001 - training is told at its next call
            self._error = error
        finally:
            vectors.clear()
            self._recorder.buffers().release(held)

    def _write(self, uploads: list[tuple[Upload, NDArray[np.generic]]]) -> None:
        buffers = self._recorder.buffers()
        for upload, row in uploads:
            try:
                if self._error is None and self._writer is not None:
                    self._writer.add_stored(upload, row)
            except Exception as error:  # noqa: BLE001 - as above
                self._error = error
                self.give_up()
            finally:
                buffers.give_back(row)

    def _publish(self) -> Path:
        error, self._error = self._error, None
        if error is not None:
            raise error
        if self._writer is None:
            raise NothingToDo(f"round {self.number} received no uploads: nothing is stored")
        writer, self._writer = self._writer, None
        return writer.close()

    def give_up(self) -> None:
        """Remove what was written of it."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()

    def _end(self, *, is_given_up: bool = True) -> None:
        with self._lock:
            self._is_open = False
            if is_given_up:
                for _, row in self._waiting:
                    self._recorder.buffers().give_back(row)
                self._waiting = []
            self._hand_on()
        self._vectors.clear()
        self._recorder.forget(self)
