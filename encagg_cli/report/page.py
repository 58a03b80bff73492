"""The page: one HTML file with its data, its style, its script and a plotting library inside, and no network at all."""

import json
from base64 import b64encode
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Any, Final

from encagg_cli.errors import UsageError

_ASSETS = files("encagg_cli.report") / "assets"
_SCRIPTS: Final = ("charts.js", "plane.js", "tables.js", "page.js")


def render(document: dict[str, Any]) -> str:
    """The page as text. Raises UsageError where the plotting library is not installed.

    A content security policy names both scripts by their digests: nothing else runs, and nothing is fetched. Write it
    without changing line ends, or the digests no longer hold.
    """
    # In a script element only "<" could end it; as an escape, no text of a client can.
    data = json.dumps(document, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    library = plotting_library()
    script = "\n".join(_asset(name) for name in _SCRIPTS)
    parts = {
        "TITLE": escape(str(document["title"])),
        "DIGESTS": f"{_digest(library)} {_digest(script)}",
        "STYLE": _asset("page.css"),
        "DATA": data,
        "VEGA": library,
        "SCRIPT": script,
    }
    # Split first and fill then, so that nothing which is filled in is taken for a place to fill.
    pieces = _asset("page.html").split("@@")
    pieces[1::2] = [parts[name] for name in pieces[1::2]]
    return "".join(pieces)


@cache
def plotting_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from vl-convert, which carries them."""
    try:
        import vl_convert
    except ImportError as error:
        raise UsageError("a report needs its plotting library", hint="pip install vl-convert-python") from error
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # A browser reads every line end as "\n", and the digest is of what it reads.
    return bundle.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"
