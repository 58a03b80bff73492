"""The command line: one module a subcommand, which parses, calls and prints.

Nothing heavy is imported before a command runs: `encagg --help` must answer at once. So the modules here import only
the standard library, typer, `encagg_cli.errors` and `encagg_cli.console` at their top, the rest inside functions.
"""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any

import typer

from encagg_cli import __version__, console
from encagg_cli.cli.project import defaults
from encagg_cli.errors import EncaggError, UsageError

EXIT_DEFECT = 1
EXIT_INTERRUPTED = 130

# In the order of `encagg --help`. Each module encagg_cli.cli.NAME has a function `command`.
COMMANDS: tuple[str, ...] = (
    "capture",
    "filter",
    "score",
    "simulate",
    "attack",
    "bench",
    "report",
    "inspect",
    "pack",
    "prune",
    "methods",
    "attacks",
    "demo",
)

app = typer.Typer(
    name="encagg",
    help="Who poisoned this round? Record federated-learning updates, filter them offline, score the verdicts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "ENCAGG"},
)


def _help(docstring: str) -> str:
    """A docstring for a terminal of any width: each paragraph one line, examples (which are indented) as they stand."""
    paragraphs = cleandoc(docstring).split("\n\n")
    return "\n\n".join(text if text.startswith(" ") else text.replace("\n", " ") for text in paragraphs)


for _name in COMMANDS:
    _module = import_module(f"encagg_cli.cli.{_name}")
    app.command(_name, help=_help(_module.command.__doc__ or ""))(_module.command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"encagg {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    """Who poisoned this round? Record federated-learning updates, filter them offline, score the verdicts."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors become one or two lines on stderr."""
    arguments, debug = _take_debug(sys.argv[1:] if arguments is None else list(arguments))
    try:
        with console.patient_stdout():
            code = _command()(
                args=arguments, prog_name="encagg", standalone_mode=False, default_map=defaults(app, Path.cwd())
            )
    except EncaggError as error:
        if debug:
            traceback.print_exc()
        _complain(error.message, error.hint)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last resort, told as a defect
        # typer's own usage errors: its click is `click` in older releases and inside typer in newer ones.
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            context = getattr(error, "ctx", None)
            hint = None if context is None else _usage_hint(context, arguments)
            if error.format_message():  # empty where help was asked for by giving no command
                _complain(error.format_message(), hint)
            return int(error.exit_code)
        if debug:
            traceback.print_exc()
        _complain(f"a defect in encagg: {type(error).__name__}: {error}", "please report it with the output of --debug")
        return EXIT_DEFECT
    return code if isinstance(code, int) else 0


def _usage_hint(context: Any, arguments: Sequence[str]) -> str:
    """What the command itself makes of arguments that could not be parsed; else where its help is."""
    known = context.info_name in COMMANDS
    own = getattr(import_module(f"encagg_cli.cli.{context.info_name}"), "usage_hint", None) if known else None
    return (own and own(arguments)) or f"see {context.command_path} --help"


def _take_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """The arguments without `--debug`, which may stand anywhere before a `--`, and whether it was there.

    Looked up by hand, because an error can come before the option is parsed.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    rest = [argument for argument in arguments[:end] if argument != "--debug"] + arguments[end:]
    return rest, len(rest) < len(arguments) or bool(os.environ.get("ENCAGG_DEBUG"))


def _command() -> Any:
    """The whole command line. Its help leaves out the environment variables, which the README explains once."""
    group: Any = typer.main.get_command(app)
    for command in (group, *group.commands.values()):
        for parameter in command.params:
            parameter.show_envvar = False
    for command in group.commands.values():
        command.invoke = partial(_invoke, command, command.invoke)
    return group


def _invoke(command: Any, invoke: Callable[[Any], Any], context: Any) -> Any:
    """Run a command that has all it requires: older releases of typer let newer ones of click pass what is missing."""
    for parameter in command.params:
        if parameter.required and context.params.get(parameter.name) is None:
            missing = f"Missing {parameter.param_type_name} {parameter.get_error_hint(context)}."
            raise UsageError(missing, hint=f"see {context.command_path} --help")
    return invoke(context)


def _complain(message: str, hint: str | None) -> None:
    console.stderr().print(f"encagg: {console.plain(message)}", style="bold red", markup=False, soft_wrap=True)
    for line in (hint or "").splitlines():
        console.note(f"  {line}")


def run() -> None:
    """The console script."""
    sys.exit(main())
