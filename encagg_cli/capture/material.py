"""All that goes into one round of a run: its files in the spool, what is said of its clients, and the settings."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from encagg_cli.capture.labels import Label
from encagg_cli.capture.selection import Selection
from encagg_cli.capture.session_folder import CaptureSettings
from encagg_cli.capture.spool import SpoolRound
from encagg_cli.capture.tensors import TensorFile, open_tensors
from encagg_cli.capture.updates import GlobalModel
from encagg_cli.errors import UnusableInput


@dataclass(frozen=True)
class RoundMaterial:
    """A spool round ready to be recorded.

    `clients` maps the id that a client is stored under to its own id and its file; `labels` and `trusted` are by a
    client's own id. With `weights`, files hold whole models and not updates.
    """

    found: SpoolRound
    clients: dict[str, tuple[str, Path]]
    labels: dict[str, Label]
    trusted: frozenset[str]
    settings: CaptureSettings
    selection: Selection
    weights: bool

    def fingerprint(self) -> str:
        """What tells this state of files, labels and settings from any other, without reading the files."""
        return self.found.fingerprint(
            list(self.clients),
            sorted((client_id, label.poisoned, label.attack) for client_id, label in self.labels.items()),
            sorted(self.trusted),
            (self.selection.include, self.selection.exclude, self.weights),
            (self.settings.update_kind, self.settings.dtype),
        )

    def open_vectors(self, files: ExitStack) -> tuple[GlobalModel | None, TensorFile | None]:
        """The global model and the root gradient, where the round has them; `files` closes them."""
        if self.weights and self.found.global_model is None:
            raise UnusableInput(
                f"round {self.found.number} has no {self.found.folder.name}/_global file",
                hint="--weights needs the model that the round started from",
            )
        model = root = None
        if self.found.global_model is not None:
            model = GlobalModel(files.enter_context(open_tensors(self.found.global_model)))
        if self.found.root_gradient is not None:
            root = files.enter_context(open_tensors(self.found.root_gradient))
        return model, root
