"""A bench's summary as rows of text, for terminals and Markdown."""

from collections.abc import Sequence

from encagg_cli.bench.summary import MethodSummary

HEADINGS = ("method", "F1", "±", "worst", "FPR", "clean", "AUROC", "ms")


def cells(summary: MethodSummary) -> tuple[str, ...]:
    """One row under `HEADINGS`."""
    name = summary.method.replace("(f=oracle,relaxed=true)", "").replace("f=oracle,relaxed=true", "")
    spread = "" if summary.interval is None else f"{(summary.interval[1] - summary.interval[0]) / 2:.2f}"
    return (
        f"{name}*" if summary.told_f and not name.startswith("oracle") else name,
        _figure(summary.f1, 3),
        spread,
        "-" if summary.worst is None else _figure(summary.worst[1], 2),
        _figure(summary.fpr, 3),
        _figure(summary.clean_fpr, 3),
        _figure(summary.auroc, 3),
        _figure(summary.milliseconds, 1),
    )


def as_markdown(summaries: Sequence[MethodSummary]) -> str:
    """A table a run, and the F1 by attack of every method."""
    parts: list[str] = []
    for run in dict.fromkeys(summary.run for summary in summaries):
        chosen = [summary for summary in summaries if summary.run == run]
        parts += [f"## {_escape(run)}", "", _table(HEADINGS, [cells(summary) for summary in chosen]), ""]
        attacks = list(dict.fromkeys(name for summary in chosen for name in summary.by_attack))
        rows = [
            (cells(summary)[0], *(_figure(summary.by_attack.get(name), 2) for name in attacks)) for summary in chosen
        ]
        parts += ["F1 by attack:", "", _table(("method", *attacks), rows), ""]
    return "\n".join(parts)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(map(_escape, headings)) + " |", "|" + "---|" * len(headings)]
    lines += ["| " + " | ".join(map(_escape, row)) + " |" for row in rows]
    return "\n".join(lines)


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("\n", " ")
