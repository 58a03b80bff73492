"""Gates as JUnit XML, for GitLab, Jenkins and the reporters of GitHub Actions.

Every gate is a test case with a name of its own, so that reporters, which match by name, follow it from build to
build. What failed is said in the failure's attribute and again in its body, since some show only the one and some only
the other. One case, `scored`, is always there: an empty report breaks the build in Jenkins, and says nothing in others.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Final

from encagg_cli import console
from encagg_cli.score.gate import Outcome, shown

_CLASS: Final = "encagg.score"
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(outcomes: Sequence[Outcome], signature: str = "", *, error: str | None = None) -> bytes:
    """The report. `error` says why nothing could be scored; it makes the case `scored` an error."""
    failed = sum(not outcome.passed for outcome in outcomes)
    totals = {
        "name": "encagg score",
        "tests": str(len(outcomes) + 1),
        "failures": str(failed),
        "errors": str(int(error is not None)),
        "time": "0",
    }
    root = ET.Element("testsuites", totals)
    suite = ET.SubElement(root, "testsuite", {**totals, "skipped": "0"})
    scored = ET.SubElement(suite, "testcase", {"classname": _CLASS, "name": "scored", "time": "0"})
    if error is not None:
        _say(ET.SubElement(scored, "error", {"type": "NotScored"}), error)
    elif signature:
        ET.SubElement(scored, "system-out").text = _safe(signature)
    names = {"scored"}
    for outcome in outcomes:
        name = _unique(_safe(outcome.name), names)
        case = ET.SubElement(suite, "testcase", {"classname": _CLASS, "name": name, "time": "0"})
        if outcome.passed:
            ET.SubElement(case, "system-out").text = _safe(f"{outcome.metric} = {shown(outcome.figure)}")
        else:
            _say(ET.SubElement(case, "failure", {"type": "GateFailed"}), f"{outcome.name}: {outcome.why}")
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'.encode()


def _say(element: ET.Element, message: str) -> None:
    element.set("message", _safe(message))
    element.text = _safe(message)


def _safe(text: str) -> str:
    """Text with only characters that XML 1.0 allows, on one line."""
    return _NOT_XML.sub(lambda match: f"\\u{ord(match[0]):04x}", console.plain(text))


def _unique(name: str, taken: set[str]) -> str:
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name} ({number})"
    taken.add(unique)
    return unique
