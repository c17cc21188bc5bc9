"""The command line's parser, and what turns errors into messages and exit codes."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from .._version import __version__
from ..render import PLAINER
from . import compare, doctor, export, recover, replay, scores, sessions, show
from .common import FAILED, USAGE, CommandError, Parser

_DESCRIPTION = "Read, replay, compare and export what a rubriscope recorder wrote."

_EPILOG = """\
A TARGET is what rs.record() took: a path to a database or .jsonl file, sqlite:///path or jsonl:path.
TARGET:SESSION names a session of it. A session is given by name, UUID (or its first 6 characters) or number,
and may be left out where there is one.

examples:
  rubriscope sessions runs.db
  rubriscope show runs.db grpo-digits
  rubriscope show runs.db --step 12
  rubriscope replay runs.db --speed 4 --from 10 --to 20
  rubriscope scores runs.db root format.tag --plot curves.png
  rubriscope compare runs.db sft grpo
  rubriscope compare a.db:sft b.db:grpo --json
  rubriscope export runs.db results.json
  rubriscope recover runs.db

exit codes:
  0    done
  1    a finding (a comparison's drop, a damaged journal, a problem doctor found) or a failure on the way
  2    wrong usage, or no such target, session, step, rubric or episode
  130  interrupted
  141  the reader of the output went away (a pipe into head)
"""


def parser() -> argparse.ArgumentParser:
    """The whole parser, one subcommand a module."""
    top = Parser(prog="rubriscope", description=_DESCRIPTION, epilog=_EPILOG)
    top.add_argument("--version", action="version", version=f"rubriscope {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=Parser)
    for module in (sessions, show, replay, scores, compare, export, recover, doctor):
        module.register(commands)
    return top


def run(argv: Sequence[str] | None = None) -> int:
    """Parses and runs; never lets an expected error out as a traceback."""
    top = parser()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Captured text may hold what the terminal's encoding, or no encoding, can: print it all the same.
        sys.stdout.reconfigure(errors=PLAINER)
    try:
        arguments = top.parse_args(argv)
        if arguments.command is None:
            top.print_help(sys.stderr)
            return USAGE
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except SystemExit as leaving:  # argparse: --help, --version, wrong usage
        return leaving.code if isinstance(leaving.code, int) else FAILED
    except BrokenPipeError:
        # What is still buffered has nowhere to go; the interpreter must not try again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    except CommandError as error:
        return _fail(str(error), error.code)
    except KeyError as error:
        return _fail(str(error.args[0]) if error.args else str(error), USAGE)
    except (FileNotFoundError, IsADirectoryError) as error:
        return _fail(f"{error.filename}: {error.strerror}", USAGE)
    except OSError as error:
        return _fail(str(error), FAILED)
    except (ValueError, ImportError, RuntimeError) as error:
        return _fail(str(error), USAGE if isinstance(error, (ValueError, ImportError)) else FAILED)
    return code


def _fail(message: str, code: int) -> int:
    print(f"rubriscope: {message}", file=sys.stderr)
    return code
