"""What can be stored, and what is refused before anything is written."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from encagg_cli.errors import UnusableInput, UsageError
from encagg_cli.rounds import layout
from encagg_cli.rounds.compression import COMPRESSIONS
from encagg_cli.rounds.layout import Parameter
from encagg_cli.rounds.storage import Upload


def check_settings(number: Any, parameters: Sequence[Parameter], kind: str, stored: str, packing: str | None) -> None:
    """Raise UsageError or UnusableInput where a round of this kind cannot be stored."""
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= layout.LAST_ROUND:
        raise UsageError(f"a round's number is between 0 and {layout.LAST_ROUND}, not {number!r}")
    for what, value, known in (
        ("update_kind", kind, layout.UPDATE_KINDS),
        ("dtype", stored, layout.STORED_TYPES),
        ("compression", packing, (None, *COMPRESSIONS)),
    ):
        if value not in known:
            raise UsageError(f"{what} {value!r} is not one of {', '.join(map(str, known))}")
    offset = 0
    for parameter in parameters:
        if not parameter.name or len(parameter.name.encode()) > layout.TEXT_BYTES_LIMIT or "\0" in parameter.name:
            raise UnusableInput(f"round {number}: {parameter.name[:40]!r} cannot be the name of a tensor")
        if parameter.offset != offset:
            raise UsageError(f"round {number}: tensor {parameter.name!r} does not begin where the last one ends")
        offset += parameter.size
    if not offset:
        raise UnusableInput(f"round {number}: the model has no parameters")


def as_client_id(client_id: Any) -> Any:
    """A client id as it is stored: training loops often number their clients, and ids are text."""
    is_number = isinstance(client_id, Integral) and not isinstance(client_id, bool)
    return str(int(client_id)) if is_number else client_id


def check_upload(number: int, upload: Upload) -> None:
    """Raise UnusableInput or UsageError where the facts of an upload cannot be stored."""
    for what, text in (("client id", upload.client_id), ("attack", upload.attack)):
        if not isinstance(text, str):
            raise UsageError(f"round {number}: a {what} is text, not {text!r}")
        try:
            encoded = text.encode()
        except UnicodeEncodeError:
            raise UnusableInput(f"round {number}: the {what} {text!r} is not valid Unicode") from None
        if len(encoded) > layout.TEXT_BYTES_LIMIT or b"\0" in encoded:
            shown = text if len(text) < 40 else text[:40] + "…"
            raise UnusableInput(
                f"round {number}: the {what} {shown!r} holds NUL or is longer than {layout.TEXT_BYTES_LIMIT} bytes"
            )
    if not upload.client_id:
        raise UnusableInput(f"round {number}: a client id is empty")
    if not layout.EXAMPLES_UNKNOWN <= upload.num_examples < 2**63:
        raise UnusableInput(f"round {number}, client {upload.client_id!r}: {upload.num_examples} examples")
