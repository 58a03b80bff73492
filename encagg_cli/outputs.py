"""Outputs that are whole or absent: written beside their place, fsynced, then renamed into it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from encagg_cli.errors import OutputError, OutputExists

PARTIAL_SUFFIX = ".partial"


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise OutputExists unless `path` is free or `force` is set. Call it before any work is done."""
    if path.exists() and not force:
        raise OutputExists(f"{path} exists", hint="give another name, or --force to replace it")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}")


@contextmanager
def published(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path; when the body ends well, its file takes the place of `path`, otherwise it is removed.

    Raises OutputExists (exit 2) where `path` exists and `force` is not set, OutputError (exit 6) where it cannot be
    written: full disk, permissions, no such folder. The file is readable by its owner alone.
    """
    refuse_existing(path, force=force)
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        with writing(path):
            partial.touch(mode=0o600)
            yield partial
            sync(partial)
            partial.replace(path)
            sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into an OutputError."""
    try:
        yield
    except (OutputError, BrokenPipeError):
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        hint = "free some space, then run it again" if error.errno in {errno.ENOSPC, errno.EDQUOT} else None
        raise OutputError(f"cannot write {path}: {reason}", hint=hint) from error


def sync(path: Path) -> None:
    """Wait until a file's contents, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
