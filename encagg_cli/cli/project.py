"""`[tool.encagg]` in pyproject.toml: defaults for the options of subcommands.

What is written there must mean something: a gate that is misspelt would otherwise be one that never fails.
"""

import tomllib
from pathlib import Path
from typing import Any

import typer

from encagg_cli.errors import UsageError


def project_settings(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The nearest pyproject.toml and its table `tool.encagg`; None where there is no file or no such table."""
    for parent in (folder, *folder.parents):
        path = parent / "pyproject.toml"
        if path.is_file():
            try:
                table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("encagg")
            except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise UsageError(f"{path} is not valid TOML: {error}") from error
            return (path, table) if table else None
    return None


def defaults(app: typer.Typer, folder: Path) -> dict[str, Any]:
    """Defaults by subcommand and parameter, as click takes them. Options are named as on the command line.

    An option that may be repeated takes one value, a list, or a table (`min-recall = {lie = 0.9}` is `lie=0.9`).
    Raises UsageError for what no command or option is called.
    """
    found = project_settings(folder)
    if found is None:
        return {}
    path, table = found
    commands = getattr(typer.main.get_command(app), "commands", {})
    made: dict[str, Any] = {}
    for command, options in table.items():
        if command not in commands or not isinstance(options, dict):
            raise UsageError(f"{path}: encagg has no command {command!r}", hint="write [tool.encagg.COMMAND]")
        parameters = {
            name.lstrip("-").replace("-", "_"): parameter
            for parameter in commands[command].params
            for name in parameter.opts
            if name.startswith("--")
        }
        made[command] = {}
        for key, value in options.items():
            parameter = parameters.get(key.replace("-", "_"))
            where = f"{path}: [tool.encagg.{command}] {key}"
            if parameter is None:
                raise UsageError(f"{where}: there is no such option", hint=f"see encagg {command} --help")
            made[command][parameter.name] = _value(value, where, repeats=getattr(parameter, "multiple", False))
    return made


def _value(value: Any, where: str, *, repeats: bool) -> Any:
    if not repeats:
        if isinstance(value, list | dict):
            raise UsageError(f"{where}: takes one value")
        return value
    if isinstance(value, dict):
        return [f"{name}={item}" for name, item in value.items()]
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]
