"""The command line: one module a subcommand, which parses, calls and prints.

Nothing heavy is imported before a command runs: `encagg --help` must answer at once.
"""

import os
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import typer

from encagg_cli.cli import capture, filter as filter_command, score
from encagg_cli.errors import EncaggError, UsageError

EXIT_DEFECT = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="encagg",
    help="Who poisoned this round? Record federated-learning updates, filter them offline, score the verdicts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "ENCAGG"},
)
