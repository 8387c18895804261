"""Runs untrusted programs against their tests: one program, one sandbox.

The program runs in one process and its tests in another, which share nothing but two pipes for
arguments and results (`inside`). So the program can neither change the tests nor read them, equality
is decided where its classes are not known, and the result leaves by a channel that it does not hold.
When the result has arrived, every process of the sandbox has ended, as it has if the caller dies.

In every mode: limits of time, processor time, memory per process, size of a file, and open files; an
environment without the user's; no standard input; output that goes nowhere; and, on Linux, no
capabilities and no way to read or trace the process of the tests. Beyond that:

- `bubblewrap`: namespaces of its own. There are no files but the system's and Python's, read-only,
  and a small file system in memory; no /proc, no network, no other process. System calls that a
  computation does not need are refused (`syscalls`), among them every way to make a process.
- `kernel`: the same files, by landlock, and the same system calls. It sees names, sizes and times of
  files outside, the host's name and its process numbers, and may write many files in its folder.
- `limits`: nothing more, for macOS and old kernels. The program can read and write whatever the user
  can, use the network, and kill the user's processes. Processes that it starts are ended with it (on
  macOS, unless they leave its group); it can start none, nor on Linux threads, unless the user is root.

Not covered by any: the number of threads has no limit but memory; memory and processor time count for
each process, so that both together may use twice as much; macOS does not limit memory; and the
kernel's own faults. A virtual machine is the place for programs from an enemy.
"""

from powerbench.verifiers.sandbox.execution import Execution, Limits, Program
from powerbench.verifiers.sandbox.modes import MODES
from powerbench.verifiers.sandbox.probe import available, best_mode, run

__all__ = ["MODES", "Execution", "Limits", "Program", "available", "best_mode", "run"]
