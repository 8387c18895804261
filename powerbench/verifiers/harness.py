"""The inside of the sandbox: a script that runs one program under limits and reports how it ended.

It is started by its path in a bare interpreter, with the descriptor of the report as its argument,
in a folder that holds job.json: the program, the token that stands for a pass, and the limits. The
report is READY as soon as the limits hold, then the token or the reason of the failure.
"""

import json
import os
import resource
import sys

JOB = "job.json"
READY = b"ready\n"
FILE_BYTES = 2**24


def main(report: int) -> None:
    with open(JOB) as file:  # noqa: PTH123 (pathlib would double the start-up time)
        program, token, seconds, memory_mb = json.load(file)
    os.remove(JOB)  # noqa: PTH107
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_CPU, seconds)
    limit(resource.RLIMIT_AS, memory_mb * 2**20)
    limit(resource.RLIMIT_FSIZE, FILE_BYTES)
    limit(resource.RLIMIT_NPROC, 0)
    write, leave = os.write, os._exit  # the program may replace the names in `os`
    write(report, READY)
    try:
        exec(compile(program, "<program>", "exec"), {"__name__": "program"})
        ended = token
    except BaseException as error:
        ended = describe(error)
    write(report, ended.encode(errors="replace"))
    leave(0)


def limit(what: int, value: int) -> None:
    resource.setrlimit(what, (value, value))


def describe(error: BaseException) -> str:
    """One line; an AssertionError goes without its message, which is the test's and not the program's."""
    name = type(error).__name__
    message = "" if isinstance(error, AssertionError) else " ".join(str(error).split())[:200]
    return f"{name}: {message}" if message else name


if __name__ == "__main__":
    main(int(sys.argv[1]))
