"""Runs one job of a sweep, inside the process that the launcher starts.

A job never ends the others: what stops it goes to its output, and to where the command that started the
sweep finds it.
"""

import os
import subprocess
import sys
import traceback
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from powerbench.cluster.outcome import LOGS, log_of, report_failure
from powerbench.config import LAUNCHER, RunConfig
from powerbench.console import EXIT_SOME_FAILED, TIED, open_streams, show_log
from powerbench.errors import UserError, one_line
from powerbench.run.execute import execute
from powerbench.run.prepare import prepare
from powerbench.store.owner import LOG

SHARED = ("joblib", "ray")
"""Launchers whose workers serve job after job: there, each job is run in a separate process, so that
what kills it kills nothing else."""


def work(values: DictConfig) -> None:
    """The function that Hydra's launchers call for each job; they pickle it by its name."""
    open_streams(must_arrive=False)
    show_log()
    hydra = HydraConfig.get()
    launcher = hydra.runtime.choices[LAUNCHER]
    if launcher in SHARED:
        _run_apart(hydra)
        return
    if launcher == "slurm":
        _name_log()
    config = RunConfig(values, dict(hydra.runtime.choices), tuple(hydra.overrides.task))
    reason = _attempt(config)
    if reason is not None:
        report_failure(hydra.job.num, reason)
    if reason is not None and launcher == "slurm":
        sys.exit(EXIT_SOME_FAILED)  # so that the scheduler says FAILED too


def _attempt(config: RunConfig) -> str | None:
    """Execute a run in this process; why that failed, if it did."""
    try:
        execute(prepare(config))
        return None
    except (UserError, OSError) as error:
        reason = one_line(error)
        print(f"powerbench: {reason}", file=sys.stderr)
        return reason
    except Exception as error:  # whatever it is, the other jobs go on
        traceback.print_exc()
        return f"{type(error).__name__}: {one_line(error)}".splitlines()[0]


def _run_apart(hydra: DictConfig) -> None:
    """Run the job as `powerbench run` would, in a separate process."""
    log = log_of(Path(os.environ[LOGS]), hydra.job.num)
    command = [sys.executable, "-m", "powerbench.cli", "run", *hydra.overrides.task]
    environment = os.environ | {LOG: str(log), TIED: "1"}
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [*command, "hydra.mode=RUN", f"{LAUNCHER}=basic"],  # whatever an experiment sets
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=hydra.runtime.cwd,
            env=environment,
        ) as process,
    ):
        process.wait()


def _name_log() -> None:
    import submitit

    os.environ[LOG] = str(submitit.JobEnvironment().paths.stdout)
