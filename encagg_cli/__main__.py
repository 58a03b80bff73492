"""`python -m encagg_cli`: the command line, where its script is not on the path."""

from encagg_cli.cli import run

run()
