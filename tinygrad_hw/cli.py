"""The command ``tinygrad-hw``: one subcommand a module of :mod:`tinygrad_hw.commands`."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from . import __version__

# Of each, only the summary is known here: its module is imported when it is called.
COMMANDS = {
    "train": "train the handout's networks with the engine",
    "writeup": "train hw5.py's networks; write weights, figures and writeup.pdf",
    "pack": "zip hw5.py, the weights and the write-up for submission",
    "check": "test the functions of a hw5.py, yours or a student's, against the handout",
    "draw": "picture the graph of mlp, cnn, or what a function of yours returns",
    "doctor": "say which data, renderers and extras are here, and how to get the rest",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the result is the exit status, 2 for a user's error."""
    summary = "\n".join(f"  {name:10}{text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="tinygrad-hw",
        usage="tinygrad-hw [-h] [--version] COMMAND ...",
        description="Gradients in NumPy: the homework, its networks, their pictures.",
        epilog=f"commands:\n{summary}\n\n`tinygrad-hw COMMAND --help` tells more of one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tinygrad_hw {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    for name in ("stdout", "stderr"):
        # One that the shell has closed is None.
        stream = getattr(sys, name) or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
        setattr(sys, name, stream)
        # Pictures and files' names hold what not every terminal can show.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if arguments is None else arguments
    if not given:
        parser.print_help(sys.stderr)
        return 2
    chosen = parser.parse_args(given)
    with _stoppable():
        return _run(chosen.command, chosen.arguments)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as SIGINT does, so that it leaves nothing behind."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(number)

    before = {}
    for name in {"SIGTERM", "SIGHUP"} & set(dir(signal)):
        number = getattr(signal, name)
        # What `nohup` has set stays, and outside the main thread there are no handlers.
        if signal.getsignal(number) is signal.SIG_DFL:
            with suppress(ValueError):
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(name: str, arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog=f"tinygrad-hw {name}", description=COMMANDS[name])
    try:
        command = importlib.import_module(f"tinygrad_hw.commands.{name}")
        command.configure(parser)
        status: int = command.run(parser.parse_args(arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads, `head` say, has enough: what is left to be written goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # What a shell gives for a program that SIGPIPE ended.
    except KeyboardInterrupt as stopped:
        said = "; ".join(getattr(stopped, "__notes__", ["interrupted"]))
        print(f"tinygrad-hw {name}: {said}", file=sys.stderr)
        return 128 + int(stopped.args[0] if stopped.args else signal.SIGINT)
    except (OSError, ValueError, ImportError) as error:
        print(f"tinygrad-hw {name}: {error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
