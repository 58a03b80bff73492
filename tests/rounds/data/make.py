"""Makes the stored rounds beside this file, which are kept and reread: run it once for a new format version.

python tests/rounds/data/make.py VERSION
"""

import sys
from pathlib import Path

import numpy as np


def updates(n: int, d: int) -> np.ndarray:
    """Numbers that every stored type holds exactly, some of them not finite."""
    values = (np.arange(n * d, dtype=np.float32).reshape(n, d) - 10) / 4
    values[2, 1] = np.nan
    return values


def main() -> None:
    from encagg_cli.rounds.layout import FORMAT_VERSION, STORED_TYPES, Parameter
    from encagg_cli.rounds.pack import pack
    from encagg_cli.rounds.reader import Run
    from encagg_cli.rounds.writer import RoundWriter

    folder = Path(__file__).parent / f"version-{FORMAT_VERSION}"
    if sys.argv[1:] != [str(FORMAT_VERSION)] or folder.exists():
        raise SystemExit(f"give the version, {FORMAT_VERSION}; what is there is never made anew")
    parameters = [Parameter("conv.weight", (2, 3), 0), Parameter("fc.bias", (), 6, "output")]
    for number, stored_type in enumerate(STORED_TYPES):
        for writer in (None, "p2"):
            with RoundWriter(
                folder / "run",
                number,
                session="session-1",
                parameters=parameters,
                update_kind="gradient",
                stored_type=stored_type,
                compression="gzip" if number == 1 else None,
                writer=writer,
                global_model=np.arange(7.0),
                root_gradient=np.arange(7.0) * 2 if writer is None else None,
            ) as round_writer:
                for row, update in enumerate(updates(4, 7)):
                    if (row < 3) == (writer is None):
                        label = {"poisoned": row == 1, "attack": "lie" if row == 1 else ""} if row else {}
                        round_writer.add(f"клиент-{row}", update, num_examples=row - 1, trusted=row == 0, **label)
    for _ in pack(Run.open(folder / "run"), folder / "packed.h5"):
        pass
    for lock in (folder / "run").glob(".*.lock"):
        lock.unlink()


if __name__ == "__main__":
    main()
