"""What lies at a path, told at a glance, so that a command which is given the wrong thing can say what to do."""

from pathlib import Path
from typing import Final

from encagg_cli.errors import EncaggError, UnusableInput, UsageError

_PARQUET: Final = b"PAR1"
_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_SHOWN: Final = 3

_SAME: Final = {".hdf5": ".h5", ".htm": ".html"}
_FORMATS: Final = frozenset(
    {".parquet", ".csv", ".tsv", ".txt", ".json", ".jsonl", ".xml", ".html", ".htm", ".md", ".pdf", ".xlsx", ".xls"}
    | {".ods", ".h5", ".hdf5", ".npy", ".npz", ".pt", ".pth", ".safetensors", ".pkl", ".feather", ".arrow", ".zip"}
)


def expect_run(path: Path) -> None:
    """Raise UnusableInput where `path` is a spool, a folder of runs, or verdicts; anything else is for the reader."""
    if path.is_dir():
        if _is_run(path):
            return
        runs = _runs_in(path)
        if runs:
            raise UnusableInput(f"{path} is a folder of runs, not a run", hint=f"name one of them: {runs}")
        if _is_spool(path):
            raise UnusableInput(f"{path} is a spool, not a run", hint=f"import it: encagg capture RUN --from {path}")
    elif _begins_with(path, _PARQUET):
        hint = f"if it holds verdicts, score them: encagg score {path}"
        raise UnusableInput(f"{path} is a Parquet file, not a run", hint=hint)


def expect_verdicts(path: Path) -> None:
    """Raise UnusableInput where `path` is a folder (a run, a spool, …) or HDF5; anything else is for the reader."""
    if path.is_dir():
        if _is_run(path):
            what, hint = "a run", f"filter it first: encagg filter {path} -o verdicts.parquet"
        elif runs := _runs_in(path):
            what, hint = "a folder of runs", f"filter one of them first: {runs}"
        elif _is_spool(path):
            what, hint = "a spool", f"import it (encagg capture RUN --from {path}), then filter the run"
        else:
            what, hint = "a folder", "`encagg filter RUN -o FILE` writes verdicts"
        raise UnusableInput(f"{path} is {what}, not a file of verdicts", hint=hint)
    if _begins_with(path, _HDF5):
        hint = f"if it is a packed run, filter it first: encagg filter {path} -o verdicts.parquet"
        raise UnusableInput(f"{path} is an HDF5 file, not one of verdicts", hint=hint)


def refuse_suffix(path: Path, written: str, suffix: str) -> None:
    """Raise UsageError where the name of an output promises another format than the one that is `written`.

    No suffix, or one that is nobody's, is fine.
    """
    given = path.suffix.lower()
    if given in _FORMATS and _SAME.get(given, given) != suffix:
        raise UsageError(f"{path}: {written}, not {given}", hint=f"name it {path.with_suffix(suffix)}")


def _is_run(folder: Path) -> bool:
    from encagg_cli.rounds.directory import partial_files, round_files

    return bool(round_files(folder) or partial_files(folder))


def _is_spool(folder: Path) -> bool:
    """Whether it holds numbered folders with files of updates: a folder that only ends in a number is no round."""
    from encagg_cli.capture.spool import look_at_round, round_folders

    try:
        return any(look_at_round(number, found).clients for number, found in round_folders(folder).items())
    except EncaggError:
        return True  # what a spool's own reader complains of is one


def _runs_in(folder: Path) -> str:
    """The first few runs in a folder, as text; "" where there is none."""
    try:
        found = sorted(entry for entry in folder.iterdir() if entry.is_dir() and _is_run(entry))
    except OSError:
        return ""
    return ", ".join(map(str, found[:_SHOWN])) + (", …" if len(found) > _SHOWN else "")


def _begins_with(path: Path, magic: bytes) -> bool:
    if not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(len(magic)) == magic
    except OSError:
        return False
