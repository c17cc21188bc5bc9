"""The command line's parser, and what turns errors into messages and exit codes."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from .._version import __version__
from ..render import PLAINER
from .common import FAILED, USAGE, CommandError, Parser

#: One module each, in the order of the help.
_COMMANDS = (
    "sessions", "show", "replay", "scores", "compare", "rescore", "export", "verify", "witness", "keys",
    "shred", "recover", "ingest", "trace", "sight", "demo", "doctor",
)  # fmt: skip

_DESCRIPTION = "Read, replay, compare and export what a rubriscope recorder wrote."

_EPILOG = """\
A TARGET is what rs.record() took: a path to a database or .jsonl file, sqlite:///path, jsonl:path or
postgresql://user@host:port/database.
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
  rubriscope rescore runs.db --session grpo --rubric rewards:Strict --into grpo-strict
  rubriscope export runs.db results.json
  rubriscope verify runs.db
  rubriscope show sealed.db --key-file vault.key
  rubriscope recover runs.db
  rubriscope trace view --status error
  rubriscope ingest redis://host:6379/0 --to runs.db
  rubriscope sight inject --pid 4242 Policy.forward --metric execution_time_ms
  rubriscope demo first-light

exit codes:
  0    done
  1    a finding (a comparison's drop, a damaged journal, a record that is not what was signed,
       a problem doctor found) or a failure on the way
  2    wrong usage, or no such target, session, step, rubric or episode
  130  interrupted
  141  the reader of the output went away (a pipe into head)
"""


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser, with the one subcommand where ``command`` names it, else with all.

    A command's module is imported with its parser, and most need more than the one that was asked for: numpy
    alone takes longer to import than a trace file of 64 MB to read.
    """
    top = Parser(prog="rubriscope", description=_DESCRIPTION, epilog=_EPILOG)
    top.add_argument("--version", action="version", version=f"rubriscope {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=Parser)
    for name in (command,) if command in _COMMANDS else _COMMANDS:
        import_module(f".{name}", __package__).register(commands)
    return top


def run(argv: Sequence[str] | None = None) -> int:
    """Parses and runs; never lets an expected error out as a traceback."""
    given = list(sys.argv[1:] if argv is None else argv)
    top = parser(given[0] if given else None)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Captured text may hold what the terminal's encoding, or no encoding, can: print it all the same.
        sys.stdout.reconfigure(errors=PLAINER)
    try:
        arguments = top.parse_args(given)
        if arguments.command is None:
            top.print_help(sys.stderr)
            return USAGE
        if arguments.key_file and "new_key_file" not in arguments:
            from ..vault import KEY_FILE_VARIABLE

            os.environ[KEY_FILE_VARIABLE] = arguments.key_file
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
