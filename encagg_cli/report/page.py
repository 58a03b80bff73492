"""The page: one HTML file with its data, its style, its script and a plotting library inside, and no network at all."""

import json
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from encagg_cli.errors import UsageError

_ASSETS = files("encagg_cli.report") / "assets"


def render(document: dict[str, Any]) -> str:
    """The page as text. Raises UsageError where the plotting library is not installed."""
    # In a script element only "<" could end it; as an escape, no text of a client can.
    data = json.dumps(document, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "TITLE": escape(str(document["title"])),
        "STYLE": (_ASSETS / "page.css").read_text(encoding="utf-8"),
        "DATA": data,
        "VEGA": plotting_library(),
        "SCRIPT": "\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in ("charts.js", "page.js")),
    }
    page = (_ASSETS / "page.html").read_text(encoding="utf-8")
    # Split first and fill then, so that nothing which is filled in is taken for a place to fill.
    pieces = page.split("@@")
    pieces[1::2] = [parts[name] for name in pieces[1::2]]
    return "".join(pieces)


@cache
def plotting_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from vl-convert, which carries them."""
    try:
        import vl_convert
    except ImportError as error:
        raise UsageError("a report needs its plotting library", hint="pip install 'encagg[report]'") from error
    bundle: str = vl_convert.javascript_bundle()
    return bundle.replace("</script", "<\\/script")
