"""The command line: powerbench run | status | score | rescore-likelihood | report | compare | export |
verify | list | doctor.

Mistakes of the user end in one line and exit code 2; an interrupted run in exit code 130.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rich.markup import escape
from rich.table import Table

from powerbench.config import GROUPS, LAUNCHER, conf_dir, expand, options
from powerbench.console import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    console,
    end_with_parent,
    mistakes_in_one_line,
    show_log,
)
from powerbench.errors import UserError, require, require_integer
from powerbench.store import shard


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `powerbench`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, _interrupt)
    end_with_parent()
    show_log()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it narrates every retry
    try:
        with mistakes_in_one_line():
            _parser_main(list(arguments))
    except KeyboardInterrupt:
        kept = "samples and verdicts so far are kept; the same command goes on"
        print(f"interrupted: {kept}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser_main(arguments: list[str]) -> None:
    if arguments[:1] == ["run"]:  # Hydra has a grammar of its own
        run(arguments[1:])
        return
    group = {"score": "verifier.", "rescore-likelihood": "model"}.get(*arguments[:1] or [""])
    settings = [a for a in arguments if group and a.startswith(group) and "=" in a]
    parser = argparse.ArgumentParser(
        prog="powerbench", description="Sampling from p(x)^alpha, against its rivals."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(
        commands, "run", "run a model on a task with a sampler: powerbench run [-m] GROUP=NAME ..."
    )
    scoring = _add(commands, "score", "score a run folder's responses again, without generating")
    scoring.add_argument("run", type=Path, nargs="+", help="run folders, or folders of them")
    scoring.add_argument(
        "--verifier", help=f"default: each run's own; or one of: {', '.join(options('verifier'))}"
    )
    scoring.epilog = "With --verifier come its settings, as in: verifier.timeout=10"
    scoring.set_defaults(command=lambda a: rescore(a.run, a.verifier, settings))
    likely = _add(
        commands,
        "rescore-likelihood",
        "log-likelihood and entropy of responses under another model",
    )
    likely.add_argument("run", type=Path, nargs="+", help="run folders, or folders of them")
    likely.add_argument("--batch", type=int, default=8192, help="tokens in a pass (default: 8192)")
    likely.add_argument("--device", default="auto", help="auto, cpu, or cuda")
    likely.epilog = (
        "The model is a setting, as for a run: model=qwen2.5-math-7b model.dtype=bfloat16"
    )
    likely.set_defaults(command=lambda a: rescore_likelihood(a.run, settings, a.batch, a.device))
    reporting = _add(commands, "report", "write the table, the figures and the page of run folders")
    reporting.add_argument("runs", type=Path, nargs="*", help="run folders, or folders of them")
    reporting.add_argument("--out", type=Path, help="default: <the first folder>/report")
    reporting.add_argument(
        "--published",
        action="store_true",
        help="the paper's Table 1; with --out as Markdown, CSV, LaTeX",
    )
    reporting.add_argument(
        "--each",
        action="store_true",
        help="a report for each folder that runs were made in (runs=...), within it",
    )
    reporting.set_defaults(command=lambda a: report(a.runs, a.out, a.published, a.each))
    comparing = _add(
        commands, "compare", "put samplers side by side at equal tokens and at equal wall-clock"
    )
    comparing.add_argument("runs", type=Path, nargs="+", help="run folders, or folders of them")
    comparing.add_argument(
        "--tokens", type=float, help="decoded for a problem (default: what the costliest decodes)"
    )
    comparing.add_argument(
        "--seconds", type=float, help="for a problem (default: what the slowest takes)"
    )
    comparing.add_argument("--out", type=Path, help="a folder for the tables as CSV and LaTeX")
    comparing.set_defaults(command=lambda a: compare(a.runs, a.tokens, a.seconds, a.out))
    looking = _add(commands, "status", "how far runs are, on this machine and on others")
    looking.add_argument("runs", type=Path, nargs="+", help="run folders, or folders of them")
    looking.add_argument("--watch", type=float, metavar="SECONDS", help="look again so often")
    looking.add_argument("--json", action="store_true", help="for a program: one object a shard")
    looking.set_defaults(command=lambda a: status(a.runs, a.watch, a.json))
    exporting = _add(commands, "export", "write responses, scores and steps as Parquet")
    exporting.add_argument("runs", type=Path, nargs="+", help="run folders, or folders of them")
    exporting.add_argument("--out", type=Path, help="default: <the first folder>/export")
    exporting.set_defaults(command=lambda a: export(a.runs, a.out))
    verifying = _add(commands, "verify", "check every line of run folders; exit code 1 if damaged")
    verifying.add_argument("runs", type=Path, nargs="+", help="run folders, or folders of them")
    verifying.add_argument("--repair", action="store_true", help="quarantine damaged lines")
    verifying.set_defaults(command=lambda a: verify(a.runs, a.repair))
    _add(commands, "list", "all models, tasks, samplers, engines ...").set_defaults(
        command=lambda a: catalogue()
    )
    _add(commands, "doctor", "what this machine can run, and what is missing").set_defaults(
        command=lambda a: doctor()
    )
    chosen = parser.parse_args([a for a in arguments if a not in settings])
    command: Callable[[argparse.Namespace], None] = chosen.command
    command(chosen)


def _add(commands: Any, name: str, what: str) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=what, description=what)


def run(arguments: list[str]) -> None:
    """`powerbench run [-m] overrides`: every job is checked before the first one starts."""
    if {"-h", "--help"} & set(arguments):
        print((conf_dir() / "config.yaml").read_text())
        catalogue()
        return
    from powerbench.cluster.sweep import check, launch, sweep

    flags = {"-m", "--multirun"} & set(arguments)
    # First, for Hydra takes settings on one side of them only.
    arguments = [*flags, *(shard.expand(a) for a in arguments if a not in flags)]
    overrides = [a for a in arguments if not a.startswith("-")]
    jobs = expand(overrides, multirun=bool(flags))
    plans = check(jobs.overrides)
    if not jobs.swept:
        launch(arguments)
    elif code := sweep(arguments, plans):
        sys.exit(code)


def rescore(paths: Sequence[Path], verifier: str | None, settings: Sequence[str]) -> None:
    """Score every response of the given runs again, with their own verifier or another."""
    from powerbench.run.execute import rescore as rescore_runs
    from powerbench.store import find_runs

    if settings and verifier is None:
        raise UserError(f"{settings[0]}: name the verifier that it is for, with --verifier")
    stopped = False
    for error in rescore_runs(find_runs(paths), verifier, settings, console()):
        print(f"powerbench: {error}", file=sys.stderr)
        stopped = True
    if stopped:
        sys.exit(EXIT_BAD_INPUT)


def rescore_likelihood(
    paths: Sequence[Path], settings: Sequence[str], batch: int, device: str
) -> None:
    """Score the responses of the given runs under the model that the settings describe."""
    from powerbench.config import compose
    from powerbench.run.likelihood import rescore
    from powerbench.store import find_runs

    require_integer("--batch", batch, 1)
    require(
        any(setting.startswith("model=") for setting in settings),
        "name the model to score with, as in: powerbench rescore-likelihood RUN model=qwen2.5-math-7b",
    )
    model = compose(settings).build("model")
    for run in find_runs(paths):
        made = rescore(run, model, batch, device)
        print(f"{run.likelihoods_file(model.name)}: {made:,} responses scored")


def report(paths: Sequence[Path], out: Path | None, published: bool, each: bool) -> None:
    """Print the table of the given runs and write their report; or the paper's table, if asked to."""
    if published:
        show_published(out)
    if published and not paths:
        return
    require(bool(paths), "name run folders to report on, such as runs/, or ask for --published")
    require(not (each and out), "--each writes into the runs' own folders: leave --out away")
    from powerbench.report.build import write
    from powerbench.report.summary import Results
    from powerbench.run.progress import print_table
    from powerbench.store import Run, find_runs

    folders: dict[Path, list[Run]] = {}
    for run in find_runs(paths):
        folder = out or paths[0] / "report"
        if each:  # <runs>/<task>/<model>/<sampler>-<hash>
            folder = run.path.resolve().parents[2] / "report"
        folders.setdefault(folder, []).append(run)
    for folder, some in folders.items():
        results = [Results.read(run) for run in some]
        print_table(console(), [r.summary for r in results])
        page = write(results, folder)
        print(f"report: {page.with_name('report.md')}\npage:   {page}")


def compare(
    paths: Sequence[Path], tokens: float | None, seconds: float | None, out: Path | None
) -> None:
    """Print the samplers of the given runs side by side, and write the tables if there is a place for them."""
    from powerbench.report.build import comparison
    from powerbench.report.summary import Results
    from powerbench.report.tables.table import write_tables
    from powerbench.run.progress import print_any
    from powerbench.store import find_runs

    found = comparison(list(map(Results.read, find_runs(paths))), tokens, seconds)
    for table in found:
        print_any(console(), table)
    if out is not None:
        write_tables(found, out)
        print(f"tables: {out}")


def show_published(out: Path | None) -> None:
    """Print the paper's Table 1, and write it if there is a place for it."""
    from powerbench.report.tables.published import table as published_table
    from powerbench.report.tables.published import write_published
    from powerbench.run.progress import print_any

    print_any(console(), published_table())
    for file in write_published(out) if out else []:
        print(file)


def status(paths: Sequence[Path], every: float | None, json: bool) -> None:
    """Show how far the given runs are: once, again and again, or for a program."""
    from powerbench.cluster.status import as_json, show, watch

    require(every is None or every > 0, f"--watch must be > 0 seconds, got {every}")
    if json:
        print(as_json(paths))
    elif every is not None:
        watch(paths, console(), every)
    else:
        show(paths, console())


def export(paths: Sequence[Path], out: Path | None) -> None:
    """Write the responses of the given runs as a dataset."""
    from powerbench.store import find_runs
    from powerbench.store.export import export as write_dataset

    folder = out or paths[0] / "export"
    card = write_dataset(find_runs(paths), folder)
    print(f"card: {card}\nload: datasets.load_dataset({str(folder)!r}, split='train')")


def verify(paths: Sequence[Path], repair: bool) -> None:
    """Check everything in the given run folders, and repair it first if asked to."""
    from powerbench.cluster.status import lease_timeout, settings_of
    from powerbench.store import find_runs
    from powerbench.store.repair import repair as repair_run
    from powerbench.store.verify import lines
    from powerbench.store.verify import verify as verify_run

    damaged = 0
    for run in find_runs(paths):
        if repair:
            repair_run(run, lease_timeout(settings_of(run)))
        health = verify_run(run)
        damaged += health.damaged
        print("\n".join(lines(health)))
    if damaged:
        sys.exit(EXIT_SOME_FAILED)


def catalogue() -> None:
    """Print the names in every group of the configuration, with a line on each."""
    out = console()
    for group in (*GROUPS, LAUNCHER):
        table = Table(
            box=None, show_header=False, title=group, title_justify="left", padding=(0, 2)
        )
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for name, what in options(group).items():
            table.add_row(name, escape(what))
        out.print(table)


def doctor() -> None:
    """Print what this machine can run."""
    from powerbench.run.doctor import examine

    table = Table(box=None, show_header=False, padding=(0, 2))
    for finding in examine():
        table.add_row(
            "[green]ok" if finding.ok else "[yellow]--", finding.subject, escape(finding.what)
        )
    console().print(table)


if __name__ == "__main__":
    main()
