"""Record a training run: `Recorder` writes what clients upload, round by round, and stays out of the way.

    with Recorder("runs/mnist", trusted=["hospital-1"]) as recorder:
        with recorder.round(12, global_model=state_dict) as round:
            round.add("client-17", update, num_examples=600)

Imports neither typer, rich nor torch.
"""

import shutil
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from encagg_cli.capture import ending, flatten
from encagg_cli.capture.background import RowBuffers
from encagg_cli.capture.doubts import Doubts
from encagg_cli.capture.flatten import Update
from encagg_cli.capture.pseudonyms import pseudonym
from encagg_cli.capture.recording import RoundRecording
from encagg_cli.capture.settings import as_round, check_settings
from encagg_cli.capture.trouble import CaptureWarning, OnError, Trouble, say
from encagg_cli.errors import UsageError
from encagg_cli.rounds import layout
from encagg_cli.rounds.compression import Compression
from encagg_cli.rounds.directory import round_files
from encagg_cli.rounds.encoding import stored_dtype
from encagg_cli.rounds.estimate import human_bytes, round_bytes
from encagg_cli.rounds.layout import Parameter, StoredType, UpdateKind
from encagg_cli.rounds.limits import as_client_id
from encagg_cli.rounds.session import WritingSession
from encagg_cli.rounds.shard import read_outline
from encagg_cli.rounds.worker import Worker
from encagg_cli.rounds.writer import RoundWriter

__all__ = ["CaptureWarning", "Recorder", "RoundRecording"]


class Recorder:
    """Records client updates into the run `path`, a folder that is made where it is missing.

    trusted       ids of the known-benign clients
    update_kind   what clients upload: "delta" (of weights) or "gradient"
    dtype         how it is stored: "float32", "float16" or "bfloat16"
    compression   None, or "gzip", which costs far more time than it saves space on most updates
    force         replace rounds that another session has stored, instead of refusing them
    session       what the processes of one training have in common; by default every recorder is its own session
    every         record only the rounds whose number it divides
    on_error      "raise", or "warn": training goes on without the round or the upload that could not be stored
    expected_rounds  how many rounds the training will have: if the disk is too small for them, a warning says so after
                  the first one (`estimate` says how much they take)
    output_layer  a prefix of the names of the output layer's tensors; by default the last module's
    pseudonyms    a secret key: client ids are stored as keyed hashes (HMAC-SHA256), the same in every run of that key

    Tensors are flattened in the order that the first `global_model` has, else by name; a run keeps the order of its
    first round. `failures` lists what went wrong, `interrupted` the unfinished rounds that a killed capture had left
    here, `n_recorded` counts the rounds that were published.

    Raises OutputError where another session records into this run or it cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        trusted: Iterable[str | int] = (),
        update_kind: UpdateKind = "delta",
        dtype: StoredType = "float32",
        compression: Compression | None = None,
        force: bool = False,
        session: str | None = None,
        every: int = 1,
        on_error: OnError = "raise",
        expected_rounds: int | None = None,
        output_layer: str | None = None,
        pseudonyms: str | bytes | None = None,
    ) -> None:
        check_settings(update_kind, dtype, compression, every, on_error)
        self.path = Path(path)
        named = (trusted,) if isinstance(trusted, str) else trusted
        self.trusted = frozenset(as_client_id(client) for client in named)
        self.stored_type: StoredType = dtype
        self.parameters: tuple[Parameter, ...] = ()
        self.n_recorded = 0
        self.interrupted: tuple[Path, ...] = ()
        self.trouble = Trouble(on_error)
        # Of a session's several processes, each sees a part of the clients.
        self.doubts = Doubts(self.trusted if session is None else ())
        self.background = Worker("encagg-record")
        self._update_kind: UpdateKind = update_kind
        self._compression = compression
        self._force = force
        self._session_name = session
        self._every = every
        self._expected_rounds = expected_rounds
        self._output_layer = output_layer
        self._key = pseudonyms.encode() if isinstance(pseudonyms, str) else pseudonyms
        self._lock = threading.Lock()
        self._session: WritingSession | None = None
        self._current: RoundRecording | None = None
        self._buffers: RowBuffers | None = None
        self._expected_clients = 1
        self._n_vectors = 0
        self._is_closed = False
        self._is_inert = False
        try:
            self._open()
        except Exception as error:  # noqa: BLE001 - raised or told, as the user chose
            self._is_inert = True
            self.trouble.meet(error, "nothing is recorded")
        ending.watch(self)

    @property
    def session(self) -> str | None:
        """The session that this recorder belongs to; None where it could not begin."""
        return self._session_name

    @property
    def failures(self) -> tuple[Exception, ...]:
        return tuple(self.trouble.failures)

    def round(
        self, number: int, *, global_model: Update | None = None, root_gradient: Update | None = None
    ) -> RoundRecording:
        """Begin to record a round; one at a time.

        `global_model` is the model that the round starts from, `root_gradient` the server's own gradient on trusted
        data: arrays, tensors, or mappings of them, copied here. Raises OutputExists where another session has stored
        this round and `force` is not set, UnusableInput where the model is not the run's.
        """
        try:
            return self._begin(as_round(number), global_model, root_gradient)
        except Exception as error:  # noqa: BLE001 - raised or told, as the user chose
            self.trouble.meet(error, f"round {number} is not stored")
            return RoundRecording(self, number, is_recorded=False)

    def close(self) -> None:
        """Stop recording. A round that is still open is given up, with a warning."""
        if self._is_closed:
            return
        self._is_closed = True
        unfinished, self._current = self._current, None
        if unfinished is not None:
            unfinished.abort()
        self._let_go()
        if unfinished is not None:
            say(f"round {unfinished.number} was not closed: nothing of it is stored")

    def _let_go(self) -> None:
        self.background.stop()
        if self._session is not None:
            self._session.close()
        ending.unwatch(self)

    def __del__(self) -> None:
        # A recorder that is forgotten ends too. Nothing is waited for: this may run in the background's own thread.
        if getattr(self, "_is_closed", True):
            return
        self._is_closed = True
        if self._current is not None:
            self.background.submit(self._current.give_up)
        self._let_go()
        if self._current is not None:
            say(f"round {self._current.number} was not closed: nothing of it is stored")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        with suppress(CaptureWarning):  # the body's own exception is on its way
            self.close()

    def pseudonym(self, client_id: str) -> str:
        """The id that a client is stored under."""
        return client_id if self._key is None else pseudonym(client_id, self._key)

    def estimate(self, n_rounds: int, *, n_clients: int | None = None) -> int:
        """Bytes on the disk of so many further rounds of the training, of which every `every`-th is recorded.

        The model's size is known from the first upload or global model on, `n_clients` from the first round on.
        Without compression; raises UsageError where the size is not known yet.
        """
        size = sum(parameter.size for parameter in self.parameters)
        if not size:
            raise UsageError("the size of the model is not known before its first round")
        clients = self._expected_clients if n_clients is None else n_clients
        one = round_bytes(clients, size, self.stored_type, vectors=self._n_vectors)
        return one * -(-n_rounds // self._every)

    # For the recording of a round:

    def parameters_of(self, tensors: Mapping[str, Any], *, keep_order: bool) -> tuple[Parameter, ...]:
        """What the run's tensors and their order would be, if this model decided them."""
        return flatten.parameters_of(tensors, keep_order=keep_order, output_layer=self._output_layer)

    def settle_parameters(self, parameters: tuple[Parameter, ...]) -> None:
        """Decide the run's tensors and their order, where no earlier round has."""
        with self._lock:
            self.parameters = self.parameters or parameters

    def buffers(self) -> RowBuffers:
        if self._buffers is None:
            size = sum(parameter.size for parameter in self.parameters)
            self._buffers = RowBuffers(size, stored_dtype(self.stored_type))
        return self._buffers

    def open_writer(
        self, number: int, parameters: tuple[Parameter, ...], vectors: Mapping[str, NDArray[np.float32]]
    ) -> RoundWriter:
        self._n_vectors = len(vectors)
        return self._open().round(
            number,
            parameters=parameters,
            update_kind=self._update_kind,
            stored_type=self.stored_type,
            compression=self._compression,
            expected_clients=self._expected_clients,
            **vectors,
        )

    def count(self, recording: RoundRecording) -> None:
        self.n_recorded += 1
        self._expected_clients = len(recording.client_ids)
        self.doubts.end_round(recording.number, has_trusted=recording.has_trusted)
        if self.n_recorded == 1 and self._expected_rounds is not None and self._compression is None:
            rest, free = self.estimate(self._expected_rounds - 1), shutil.disk_usage(self.path).free
            if rest > free:
                say(
                    f"{self.path}: the rounds to come will take about {human_bytes(rest)}, "
                    f"and the disk has {human_bytes(free)} free"
                )

    def forget(self, recording: RoundRecording) -> None:
        if self._current is recording:
            self._current = None

    def _begin(self, number: int, global_model: Update | None, root_gradient: Update | None) -> RoundRecording:
        if self._is_closed:
            raise UsageError("the recorder is closed")
        if self._current is not None:
            raise UsageError(f"round {self._current.number} is still open", hint="close it before the next one")
        if self._is_inert or number % self._every:
            return RoundRecording(self, number, is_recorded=False)
        self._open().refuse_repeat(number)
        recording = RoundRecording(self, number, is_recorded=True)
        recording.begin(global_model, root_gradient)
        self._current = recording
        return recording

    def _open(self) -> WritingSession:
        """Take the run, once in each process; a forked one becomes a further process of the session."""
        if self._session is not None:
            return self._session
        session = WritingSession(self.path, session=self._session_name, force=self._force)
        try:
            self._session_name = session.session
            self.interrupted = tuple(partial.path for partial in session.interrupted)
            stored = round_files(self.path)
            if stored and not self.parameters:
                self.parameters, _ = read_outline(next(iter(stored.values()))[0].path)
            for path in self.interrupted:
                say(f"{path.name.removesuffix(layout.PARTIAL_SUFFIX)} was interrupted when it was recorded: it is lost")
        except BaseException:
            session.close()
            raise
        self._session = session
        return session

    # For the end of the process:

    def abandon(self, patience: float) -> None:
        """End from within a signal handler: what is being closed is finished, what is open is dropped."""
        if not self._is_closed:
            self._is_closed = True
            current = self._current
            self.background.submit(lambda: None if current is None else current.give_up()).wait(patience)

    def become_forked(self) -> None:
        """In a forked child: hold nothing of the parent's; the child's first round opens the run anew."""
        self.doubts.silence()
        self._session = None
        self._current = None
        self._buffers = None
        self._lock = threading.Lock()
        self.background = Worker("encagg-record")
