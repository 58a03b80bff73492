"""Pseudonyms of clients, and the secret key behind them: a file that is made where it is missing, away from the run."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final

from encagg_cli.errors import UnusableInput, UsageError
from encagg_cli.outputs import writing

_KEY_BYTES: Final = 32
_DIGITS: Final = 32
_SHORTEST: Final = 16  # characters: shorter keys can be guessed, and client ids with them


def pseudonym(client_id: str, key: bytes) -> str:
    """The id that a client is stored under: its keyed hash (HMAC-SHA256), cut to 128 bits."""
    return hmac.new(key, client_id.encode(), hashlib.sha256).hexdigest()[:_DIGITS]


def read_or_make_key(path: Path, run: Path) -> str:
    """The key in a file, which is made, readable by its owner alone, where there is none.

    Raises UsageError where it lies within the run (whoever gets the run would get the names), UnusableInput where it
    holds no key, OutputError where it cannot be made.
    """
    if path.absolute().is_relative_to(run.absolute()):
        raise UsageError(f"the key {path} must not lie in the run {run}", hint="whoever has both knows the clients")
    with writing(path):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return _read(path)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            key = secrets.token_hex(_KEY_BYTES)
            file.write(key + "\n")
            file.flush()
            os.fsync(file.fileno())
    return key


def _read(path: Path) -> str:
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableInput(f"cannot read the key {path}: {error}") from error
    if len(key) < _SHORTEST:
        raise UnusableInput(
            f"{path} holds no key of at least {_SHORTEST} characters",
            hint="name a file that does not exist: it is made",
        )
    return key
