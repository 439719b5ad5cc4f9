"""The command ``tinygrad-hw``: one subcommand a module of :mod:`tinygrad_hw.commands`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

# Imported when called for, so that `tinygrad-hw --help` does not load what it does not need.
COMMANDS = {
    "train": "train the handout's networks with the engine",
    "writeup": "train hw5.py's networks and write weights, figures and writeup.pdf",
    "pack": "zip hw5.py, the weights and the write-up for submission",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the result is the exit status, 2 for a user's error."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="tinygrad-hw", description="Learn gradients by heart.")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name in arguments:
            importlib.import_module(f"tinygrad_hw.commands.{name}").configure(subparser)
    options = parser.parse_args(arguments)
    try:
        command = importlib.import_module(f"tinygrad_hw.commands.{options.command}")
        status: int = command.run(options)
    except KeyboardInterrupt:
        print("tinygrad-hw: interrupted", file=sys.stderr)
        return 130
    except (OSError, ValueError, ImportError) as error:
        print(f"tinygrad-hw {options.command}: {error}", file=sys.stderr)
        return 2
    return status
