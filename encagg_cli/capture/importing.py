"""Rounds of a spool, recorded into a run: each once, whole, and as it was when its files were complete."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from encagg_cli.capture.imported import ImportedIndex, difference
from encagg_cli.capture.labels import UNLABELLED, Label, read_labels, read_trusted
from encagg_cli.capture.material import RoundMaterial
from encagg_cli.capture.recorder import Recorder, RoundRecording
from encagg_cli.capture.selection import Selection, by_name
from encagg_cli.capture.session_folder import CaptureSettings
from encagg_cli.capture.spool import LABELS, TRUSTED, SpoolRound, look_at_round
from encagg_cli.capture.tensors import TensorFile, open_tensors
from encagg_cli.capture.updates import FileUpdate, GlobalModel, looks_like_a_model, num_examples_of, update_of
from encagg_cli.errors import OutputExists, UnusableInput, UsageError
from encagg_cli.rounds.directory import round_files
from encagg_cli.rounds.estimate import round_bytes
from encagg_cli.rounds.layout import ROLE_OUTPUT

Outcome = Literal["imported", "known", "removed", "passed over", "empty"]
_SHOWN_NAMES: Final = 4


class RoundChangedError(UnusableInput):
    """A round's files changed while they were read: it is still being written (exit 4)."""


class SpoolImporter:
    """Imports rounds of `spool` into the run `path`. Close it, or use it in a `with`; `tell` is given notes for people.

    With `weights`, client files hold whole models: their updates are the difference to the round's global model,
    taken in float64. Raises UsageError where the settings contradict each other, and what `Recorder` raises.
    """

    def __init__(
        self,
        path: Path,
        spool: Path,
        settings: CaptureSettings,
        *,
        selection: Selection | None = None,
        weights: bool = False,
        tell: Callable[[str], None] = lambda message: None,
    ) -> None:
        if weights and settings.update_kind != "delta":
            raise UsageError("weights less the global model are a delta, not a gradient", hint="leave out --kind")
        self.path = path
        self.spool = spool
        self.settings = settings
        self.selection = Selection() if selection is None else selection
        self.weights = weights
        self._tell = tell
        self._told: set[str] = set()
        self._seen_clients: set[str] = set()
        self._labels_seen: tuple[object, dict[int, dict[str, Label]]] = (None, {})
        self._recorder = self._new_recorder()
        self._stored = set(round_files(path))
        self._index = ImportedIndex(path)

    def import_round(self, found: SpoolRound) -> Outcome:
        """Record a round of the spool, unless it is in the run already.

        One that was imported from the very same files and is there no more (`encagg prune` took it, say) is "removed":
        it is imported again only with `force`.

        Raises UnusableInput, naming file or round, client and tensor, where it cannot be stored as a whole: then
        nothing of it is. Raises OutputExists where the run has this round with other content, and no `force`.
        """
        if found.number % self.settings.every:
            return "passed over"
        self._seen_clients.update(client_id for client_id, _ in found.clients)
        for name in found.ignored:
            self._tell_once(name, f"ignored {found.folder.name}/{name}: it is not a kind of tensor file that is known")
        if not found.clients:
            return "empty"
        material = self._material(found)
        fingerprint = material.fingerprint()
        if found.number in self._stored:
            if self._index.get(found.number) == fingerprint:
                return "known"
            other = difference(self.path, material)
            if other is None:
                self._index.put(found.number, fingerprint)
                return "known"
            if not self.settings.force:
                raise OutputExists(
                    f"round {found.number} is in {self.path} already, and {other}",
                    hint="--force replaces it by what the spool holds now",
                )
        elif self._was_removed(found.number, fingerprint):
            return "removed"
        self._record(material)
        self._stored.add(found.number)
        self._index.put(found.number, fingerprint)
        return "imported"

    def estimate(self, rounds: Iterable[SpoolRound]) -> int:
        """About how many bytes those of these rounds that the run lacks will take in it, without compression."""
        total = 0
        size: int | None = None
        for found in rounds:
            if not found.clients or found.number % self.settings.every or found.number in self._stored:
                continue
            if self._was_removed(found.number, self._material(found).fingerprint()):
                continue
            if size is None:
                with open_tensors(found.clients[0][1]) as tensors:
                    chosen = tensors.entries if tensors.is_bare else self.selection.taken(tensors.entries)
                    size = sum(entry.size for entry in chosen.values())
            vectors = (found.global_model is not None) + (found.root_gradient is not None)
            total += round_bytes(len(found.clients), size, self.settings.dtype, vectors=vectors)
        return total

    def never_seen(self) -> list[str]:
        """Clients that are trusted and were in no round: probably misspelt."""
        return sorted(self._trusted() - self._seen_clients)

    def close(self) -> None:
        self._recorder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _was_removed(self, number: int, fingerprint: str) -> bool:
        """Of a round that the run lacks: whether it once was imported as it is now, and is not wanted again."""
        return not self.settings.force and self._index.get(number) == fingerprint

    def _new_recorder(self) -> Recorder:
        settings = self.settings
        recorder = Recorder(
            self.path,
            update_kind=settings.update_kind,
            dtype=settings.dtype,
            compression=settings.compression,
            output_layer=settings.output_layer,
            pseudonyms=settings.pseudonyms,
            force=settings.force,
        )
        recorder.doubts.silence()  # what a spool holds is looked at here
        return recorder

    def _material(self, found: SpoolRound) -> RoundMaterial:
        own_ids = {client_id for client_id, _ in found.clients}
        return RoundMaterial(
            found=found,
            clients={self._recorder.pseudonym(client_id): (client_id, path) for client_id, path in found.clients},
            labels={key: label for key, label in self._labels().get(found.number, {}).items() if key in own_ids},
            trusted=self._trusted().intersection(own_ids),
            settings=self.settings,
            selection=self.selection,
            weights=self.weights,
        )

    def _record(self, material: RoundMaterial) -> None:
        is_first = not self._recorder.parameters
        with ExitStack() as files:
            model, root = material.open_vectors(files)
            self._say_what_is_left_out(material.found, model)
            try:
                recording = self._recorder.round(
                    material.found.number,
                    global_model=None if model is None else self._in_order(model.tensors),
                    root_gradient=None if root is None else update_of(root, self.selection),
                )
                try:
                    self._add_clients(recording, material, model)
                except BaseException:
                    recording.abort()
                    raise
                recording.close()
            except UnusableInput:
                if is_first:  # what this round said of the model does not bind the next one
                    self._recorder.close()
                    self._recorder = self._new_recorder()
                raise
        if is_first:
            self._say_output_layer(material.found)

    def _add_clients(self, recording: RoundRecording, material: RoundMaterial, model: GlobalModel | None) -> None:
        found = material.found
        for client_id, path in material.clients.values():
            with open_tensors(path) as tensors:
                if model is not None and not self.weights:
                    self._suspect_weights(tensors, model)
                label = material.labels.get(client_id, UNLABELLED)
                recording.add(
                    client_id,
                    update_of(tensors, self.selection, model if self.weights else None),
                    num_examples=num_examples_of(tensors),
                    trusted=client_id in material.trusted,
                    poisoned=label.poisoned,
                    attack=label.attack,
                )
        if look_at_round(found.number, [found.folder]).states != found.states:
            raise RoundChangedError(
                f"round {found.number} of the spool changed while it was read",
                hint="import it when it is complete, or follow the spool with --watch",
            )

    def _in_order(self, tensors: TensorFile) -> FileUpdate:
        """The global model in its file's order, where the file has one, else by name."""
        update = update_of(tensors, self.selection)
        if isinstance(update, dict) and not tensors.has_order:
            return {name: update[name] for name in by_name(update)}
        return update

    def _labels(self) -> dict[int, dict[str, Label]]:
        """Labels by round; the file is read again when it has changed."""
        path = self.spool / LABELS
        try:
            status = path.lstat()
        except FileNotFoundError:
            return {}
        state = (status.st_size, status.st_mtime_ns, status.st_ino)
        if self._labels_seen[0] != state:
            by_round: dict[int, dict[str, Label]] = {}
            for (number, client_id), label in read_labels(path).items():
                by_round.setdefault(number, {})[client_id] = label
            self._labels_seen = (state, by_round)
        return self._labels_seen[1]

    def _trusted(self) -> frozenset[str]:
        path = self.spool / TRUSTED
        listed = read_trusted(path) if path.is_symlink() or path.exists() else ()
        return frozenset((*self.settings.trusted, *listed))

    def _suspect_weights(self, tensors: TensorFile, model: GlobalModel) -> None:
        if "weights" not in self._told:
            self._told.add("weights")
            if looks_like_a_model(tensors, model, self.selection):
                self._tell(
                    f"{tensors.path} is close to the global model: if these files hold whole models, say --weights"
                )

    def _say_what_is_left_out(self, found: SpoolRound, model: GlobalModel | None) -> None:
        if self.selection.include or "left out" in self._told:
            return
        self._told.add("left out")
        with ExitStack() as files:
            tensors = files.enter_context(open_tensors(found.clients[0][1])) if model is None else model.tensors
            by_default = tensors.entries if tensors.is_bare else Selection().taken(tensors.entries)
            left_out = [name for name in tensors.entries if name not in by_default]
        if left_out:
            self._tell(f"left out, as state that is not trained: {_some(left_out)} (--include '*' takes every tensor)")

    def _say_output_layer(self, found: SpoolRound) -> None:
        names = [parameter.name for parameter in self._recorder.parameters if parameter.role == ROLE_OUTPUT]
        if names and self.settings.output_layer is None:
            source = found.global_model
            has_order = source is not None and source.suffix.lower() != ".safetensors"
            order = f"in the order of {source.name}" if has_order and source is not None else "by name"
            self._tell(f"output layer: {_some(names)}, the last {order} (--output-layer PREFIX names another)")

    def _tell_once(self, subject: str, message: str) -> None:
        if subject not in self._told:
            self._told.add(subject)
            self._tell(message)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more
