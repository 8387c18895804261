"""The command line: powerbench run | serve | status | score | rescore-likelihood | report | compare | export |
verify | estimate | list | doctor.

Mistakes of the user end in one line and exit code 2; an interrupted run in exit code 130.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from powerbench import commands
from powerbench.config import options
from powerbench.console import (
    EXIT_INTERRUPTED,
    end_with_parent,
    mistakes_in_one_line,
    open_streams,
    show_log,
    speak_utf_8,
)
from powerbench.machine.threads import choose_threads

RESULT_IN_FOLDER = {"run", "serve", "score", "rescore-likelihood"}
"""The commands that are not for what they print."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `powerbench`."""
    choose_threads()
    if arguments is None:
        speak_utf_8()
        arguments = sys.argv[1:]
    signal.signal(signal.SIGTERM, _interrupt)
    open_streams(must_arrive=not {*arguments[:1]} & RESULT_IN_FOLDER)
    end_with_parent()
    show_log()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it narrates every retry
    try:
        with mistakes_in_one_line():
            try:
                _main(list(arguments))
            finally:
                sys.stdout.flush()  # here, where a full disk is told in one line
    except KeyboardInterrupt:
        kept = "samples and scores so far are kept; the same command goes on"
        print(f"interrupted: {kept}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class Argument(NamedTuple):
    """An argument of a command: its names, and what argparse knows of it."""

    names: tuple[str, ...]
    options: Mapping[str, Any]


def _argument(*names: str, **options: Any) -> Argument:
    return Argument(names, options)


class Command(NamedTuple):
    """A command of `powerbench`: what it is called, what it calls, what it takes."""

    name: str
    what: str
    function: Callable[..., None]
    """Called with the arguments by name; with `settings` too, where the command takes settings."""
    arguments: Sequence[Argument] = ()
    settings: str | None = None
    """How the settings that it takes begin, such as `verifier.`; None: it takes none."""
    epilog: str = ""


def _commands() -> tuple[Command, ...]:
    runs = _argument(
        "runs", metavar="RUN", type=Path, nargs="+", help="run folders, or folders of them"
    )
    return (
        Command(
            "run",
            "run a model on a task with a sampler: powerbench run [-m] GROUP=NAME ...",
            commands.run,
        ),
        Command(
            "serve",
            "answer OpenAI's API with a model and a sampler: powerbench serve GROUP=NAME ...",
            commands.serve,
            (
                _argument(
                    "settings", nargs="*", help="as for run; the task gives prompts their identity"
                ),
                _argument(
                    "--host", default="127.0.0.1", help="default: this machine alone (127.0.0.1)"
                ),
                _argument(
                    "--port", type=int, default=8000, help="default: 8000; 0: one that is free"
                ),
                _argument(
                    "--api-key",
                    metavar="KEY",
                    help="that requests must give; better: POWERBENCH_API_KEY",
                ),
                _argument(
                    "--samplers",
                    metavar="NAMES",
                    help="those that requests may choose, by commas (default: all)",
                ),
                _argument(
                    "--fixed-settings",
                    action="store_true",
                    help="requests may set no sampler's settings but max_tokens and temperature",
                ),
                _argument(
                    "--max-n", type=int, default=16, help="answers to one prompt, at most (16)"
                ),
                _argument(
                    "--max-prompt",
                    type=int,
                    default=1024,
                    help="tokens that memory is planned for (1024)",
                ),
                _argument(
                    "--queue", type=int, default=256, help="answers that may wait, at most (256)"
                ),
                _argument(
                    "--timeout", type=float, help="seconds that a request may take (default: any)"
                ),
                _argument(
                    "--grace",
                    type=float,
                    default=30.0,
                    help="seconds to end in, when told to end (30)",
                ),
            ),
        ),
        Command(
            "status",
            "how far runs are, on this machine and on others",
            commands.status,
            (
                runs,
                _argument("--watch", type=float, metavar="SECONDS", help="show it again so often"),
                _argument("--json", action="store_true", help="for a program: one object a shard"),
            ),
        ),
        Command(
            "score",
            "score a run folder's responses again, without generating",
            commands.rescore,
            (
                runs,
                _argument(
                    "--verifier",
                    help=f"default: each run's own; or one of: {', '.join(options('verifier'))}",
                ),
            ),
            settings="verifier.",
            epilog="With --verifier come its settings, as in: verifier.timeout=10",
        ),
        Command(
            "rescore-likelihood",
            "log-likelihood and entropy of responses under another model",
            commands.rescore_likelihood,
            (
                runs,
                _argument(
                    "--batch", type=int, default=8192, help="tokens in a pass (default: 8192)"
                ),
                _argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ..., or mps"),
            ),
            settings="model",
            epilog="The model is a setting, as for a run: model=qwen2.5-math-7b model.dtype=bfloat16",
        ),
        Command(
            "report",
            "write the table, the figures and the page of run folders",
            commands.report,
            (
                runs._replace(options={**runs.options, "nargs": "*"}),
                _argument("--out", type=Path, help="default: <the first folder>/report"),
                _argument(
                    "--published",
                    action="store_true",
                    help="Table 1 and all sources' values side by side; with --out as Markdown, CSV, LaTeX",
                ),
                _argument(
                    "--each",
                    action="store_true",
                    help="a report for each folder that runs were made in (runs=...), within it",
                ),
            ),
        ),
        Command(
            "compare",
            "put samplers side by side at equal tokens, equal passes and equal wall-clock",
            commands.compare,
            (
                runs,
                _argument(
                    "--tokens",
                    type=float,
                    help="decoded per problem (default: what the costliest sampler decodes)",
                ),
                _argument("--passes", type=float, help="forward passes that decode; likewise"),
                _argument(
                    "--seconds", type=float, help="per problem (default: what the slowest takes)"
                ),
                _argument("--out", type=Path, help="a folder for the tables as CSV and LaTeX"),
            ),
        ),
        Command(
            "export",
            "write responses, scores and steps as Parquet",
            commands.export,
            (runs, _argument("--out", type=Path, help="default: <the first folder>/export")),
        ),
        Command(
            "verify",
            "check every line of run folders; exit code 1 if damaged",
            commands.verify,
            (runs, _argument("--repair", action="store_true", help="quarantine damaged lines")),
        ),
        Command(
            "estimate",
            "what runs would decode and take on a GPU: powerbench estimate GROUP=NAME ...",
            commands.estimate,
            (
                _argument("settings", nargs="*", help="as for run; default: all paper experiments"),
                _argument("--gpu", default="h100", help="a100-40, a100-80, h100 or h200"),
                _argument(
                    "--tokens-per-pass",
                    type=float,
                    default=1.0,
                    metavar="X",
                    help="of a chain's verified drafts, as measured; default: 1, none",
                ),
                _argument(
                    "--rows-per-token",
                    type=float,
                    default=1.0,
                    metavar="X",
                    help="positions that those passes compute for each token decoded",
                ),
            ),
        ),
        Command("list", "all models, tasks, samplers, engines ...", commands.catalogue),
        Command(
            "doctor",
            "what this machine can run, and what is missing",
            commands.doctor,
            (
                _argument(
                    "--device",
                    nargs="?",
                    const="auto",
                    help="whether engine=hf computes on it what a plain pass does: seconds, random weights",
                ),
            ),
        ),
    )


def _main(arguments: list[str]) -> None:
    """Call the function of the command that the arguments name."""
    if arguments[:1] == ["run"]:  # Hydra has a grammar of its own
        commands.run(arguments[1:])
        return
    parser = argparse.ArgumentParser(
        prog="powerbench", description="Sampling from p(x)^alpha, against its rivals."
    )
    parsers = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    known = {command.name: command for command in _commands()}
    for command in known.values():
        own = parsers.add_parser(
            command.name, help=command.what, description=command.what, epilog=command.epilog
        )
        for argument in command.arguments:
            own.add_argument(*argument.names, **argument.options)
    prefix = known[arguments[0]].settings if arguments and arguments[0] in known else None
    settings = [a for a in arguments if prefix and a.startswith(prefix) and "=" in a]
    given = vars(parser.parse_args([a for a in arguments if a not in settings]))
    command = known[given.pop("command")]
    command.function(**given, **({"settings": settings} if command.settings else {}))


if __name__ == "__main__":
    main()
