"""What each command of `powerbench` does; slow imports are made by the command that needs them."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from powerbench.config import GROUPS, LAUNCHER, compose, conf_dir, expand, options, readable
from powerbench.console import EXIT_BAD_INPUT, EXIT_SOME_FAILED, console
from powerbench.errors import UserError, require, require_integer, unknown
from powerbench.store import shard

MULTIRUN = ("-m", "--multirun")
"""The options of `powerbench run` that make it a sweep."""

SERVE = ("fastapi", "uvicorn", "prometheus_client")
"""The packages of the extra `serve`."""


def run(arguments: Sequence[str]) -> None:
    """`powerbench run [-m] overrides`: everything is checked before the first run of a sweep starts."""
    if {"-h", "--help"} & set(arguments):
        print((conf_dir() / "config.yaml").read_text(encoding="utf-8"))
        catalogue()
        return
    from powerbench.cluster.sweep import check, sweep
    from powerbench.run.execute import execute
    from powerbench.run.prepare import prepare

    flags = [a for a in arguments if a.startswith("-")]
    for flag in flags:
        if flag not in MULTIRUN:
            raise unknown("option", flag, [*MULTIRUN, "--help"])
    overrides = readable([shard.expand(a) for a in arguments if a not in flags])
    runs, swept = expand(overrides, multirun=bool(flags))
    if not swept:
        execute(prepare(compose(runs[0])))
    # The flag comes first, for Hydra takes settings on one side of it only.
    elif code := sweep([*flags[:1], *overrides], check(runs)):
        sys.exit(code)


def serve(
    settings: Sequence[str],
    host: str,
    port: int,
    api_key: str | None,
    samplers: str | None,
    fixed_settings: bool,
    max_n: int,
    max_prompt: int,
    queue: int,
    timeout: float | None,
    grace: float,
) -> None:
    """Answer OpenAI's API until the process is told to end."""
    missing = [name for name in SERVE if find_spec(name) is None]
    require(
        not missing,
        f"serve needs {' and '.join(missing)}, not installed here: pip install 'powerbench[serve]'",
    )
    from powerbench.serve.server import Options, serve
    from powerbench.serve.service import Limits

    require_integer("--max-n", max_n, 1)
    require_integer("--max-prompt", max_prompt, 1)
    names = list(options("sampler")) if samplers is None else samplers.split(",")
    limits = Limits(names, not fixed_settings, max_n, max_prompt)
    serve(compose(settings), Options(host, port, api_key, queue, timeout, grace), limits)


def rescore(runs: Sequence[Path], verifier: str | None, settings: Sequence[str]) -> None:
    """Score every response of the given runs again, with their own verifier or another."""
    from powerbench.run.execute import rescore as rescore_runs
    from powerbench.store import find_runs

    if settings and verifier is None:
        raise UserError(f"{settings[0]}: name the verifier that it is for, with --verifier")
    stopped = False
    for error in rescore_runs(find_runs(runs), verifier, settings):
        print(f"powerbench: {error}", file=sys.stderr)
        stopped = True
    if stopped:
        sys.exit(EXIT_BAD_INPUT)


def rescore_likelihood(
    runs: Sequence[Path], settings: Sequence[str], batch: int, device: str
) -> None:
    """Score the responses of the given runs under the model that the settings describe."""
    from powerbench.run.likelihood import rescore
    from powerbench.store import find_runs

    require_integer("--batch", batch, 1)
    require(
        any(setting.startswith("model=") for setting in settings),
        "name the model to score with, as in: powerbench rescore-likelihood RUN model=qwen2.5-math-7b",
    )
    model = compose(settings).build("model")
    for run in find_runs(runs):
        made = rescore(run, model, batch, device)
        print(f"{run.likelihoods_file(model.name)}: {made:,} responses scored")


def report(runs: Sequence[Path], out: Path | None, published: bool, each: bool) -> None:
    """Print the table of the given runs and write their report; or what papers publish, if asked to."""
    if published:
        show_published(out)
    if published and not runs:
        return
    require(bool(runs), "name run folders to report on, such as runs/, or ask for --published")
    require(not (each and out), "--each writes into the runs' own folders: leave --out away")
    from powerbench.report.build import write
    from powerbench.report.models import read_all
    from powerbench.run.progress import print_table
    from powerbench.store import Run, find_runs

    folders: dict[Path, list[Run]] = {}
    for run in find_runs(runs):
        folder = out or runs[0] / "report"
        if each:  # <runs>/<task>/<model>/<sampler>-<hash>
            folder = run.path.resolve().parents[2] / "report"
        folders.setdefault(folder, []).append(run)
    for folder, some in folders.items():
        results = read_all(some)
        print_table([r.summary for r in results])
        page = write(results, folder)
        print(f"report: {page.with_name('report.md')}\npage:   {page}")


def compare(
    runs: Sequence[Path],
    tokens: float | None,
    passes: float | None,
    seconds: float | None,
    out: Path | None,
) -> None:
    """Print the samplers of the given runs side by side, and write the tables to `out` if it is given."""
    from powerbench.report.build import comparison
    from powerbench.report.models import read_all
    from powerbench.report.tables.table import write_tables
    from powerbench.run.progress import print_any
    from powerbench.store import find_runs

    found = comparison(read_all(find_runs(runs)), tokens, passes, seconds)
    for table in found:
        print(f"{table.title}\n")
        print_any(table)
    if out is not None:
        write_tables(found, out)
        print(f"tables: {out}")


def show_published(out: Path | None) -> None:
    """Print the paper's Table 1 and the values of all sources, and write them to `out` if it is given."""
    from powerbench.report.tables.published import table as published_table
    from powerbench.report.tables.published import write_published
    from powerbench.report.tables.sources import all_sources, swaps
    from powerbench.run.progress import print_any

    print_any(published_table())
    for found in (all_sources(), swaps()):
        console().print(f"[bold]{found.title}[/bold]")
        print_any(found)
        console().print(escape(found.note), end="\n\n")
    for file in write_published(out) if out else []:
        print(file)


def status(runs: Sequence[Path], watch: float | None, json: bool) -> None:
    """Show how far the given runs are: once, again and again, or for a program."""
    from powerbench.cluster.status import as_json, show, show_again

    require(watch is None or watch > 0, f"--watch must be > 0 seconds, got {watch}")
    if json:
        print(as_json(runs))
    elif watch is not None:
        show_again(runs, console(), watch)
    else:
        show(runs, console())


def export(runs: Sequence[Path], out: Path | None) -> None:
    """Write the responses of the given runs as a dataset."""
    from powerbench.store import find_runs
    from powerbench.store.export import export as write_dataset

    folder = out or runs[0] / "export"
    card = write_dataset(find_runs(runs), folder)
    print(f"card: {card}\nload: datasets.load_dataset({str(folder)!r}, split='train')")


def verify(runs: Sequence[Path], repair: bool) -> None:
    """Check everything in the given run folders, and repair it first if asked to."""
    from powerbench.cluster.status import lease_timeout, settings_of
    from powerbench.store import find_runs
    from powerbench.store.repair import repair as repair_run
    from powerbench.store.verify import lines
    from powerbench.store.verify import verify as verify_run

    damaged = 0
    for run in find_runs(runs):
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


def estimate(
    settings: Sequence[str], gpu: str, tokens_per_pass: float, rows_per_token: float
) -> None:
    """Print what the runs of a command would decode and take on a GPU; nothing is fetched or run."""
    from powerbench.bench.estimate import Drafts, table
    from powerbench.run.progress import print_any

    found = table(gpu, settings, Drafts(tokens_per_pass, rows_per_token))
    print_any(found)
    print(found.note)


def doctor(device: str | None) -> None:
    """Print what this machine can run; or, with a device, whether it computes what it should."""
    from powerbench.run.doctor import check_device, diagnose

    checks = diagnose() if device is None else iter([check_device(device)])
    table = Table(box=None, show_header=False, padding=(0, 2))
    for check in checks:
        table.add_row("[green]ok" if check.ok else "[yellow]--", check.subject, escape(check.what))
    console().print(table)
