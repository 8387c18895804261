"""The system calls that a program in the sandbox may make: those of a computation, by libseccomp.

Whatever is not listed fails: making processes, sockets to the outside, signals to others, tracing,
mounting, changing owners, modes or times of files, all that needs privileges, and all that kernels
may yet learn. The list is of what is allowed because a list of the dangerous is never complete.
"""

import errno
import os
import socket
import termios
from collections.abc import Iterator
from functools import cache
from typing import Any

from powerbench.verifiers.sandbox.inside.confine import FILTERED_PID

ALLOWED = """
    access brk chdir clock_getres clock_gettime clock_nanosleep close close_range
    copy_file_range dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_wait
    eventfd2 exit exit_group faccessat faccessat2 fadvise64 fallocate fchdir fdatasync flock
    fstat fstatfs fsync ftruncate futex futex_waitv getcpu getcwd getdents getdents64 getegid
    geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority
    getrandom getresgid getresuid getrlimit getrusage getsid getsockname getsockopt gettid
    gettimeofday getuid lseek lstat madvise membarrier mincore mkdir mkdirat mmap mprotect
    mremap msync munmap nanosleep newfstatat pause pipe pipe2 poll ppoll pread64 preadv pselect6
    pwrite64 pwritev read readlink readlinkat readv recvfrom rename renameat renameat2
    restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn
    rt_sigsuspend rt_sigtimedwait sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getparam sched_getscheduler sched_yield select sendfile
    set_robust_list setitimer setrlimit setsockopt shutdown sigaltstack stat statfs statx
    symlink symlinkat sysinfo time times umask uname unlink unlinkat wait4 waitid write writev
""".split()  # noqa: SIM905 (a page of quotes otherwise)
"""Without conditions."""

FORBIDDEN = ("execve", "execveat", "fork", "vfork", "socket")
"""Refused as not permitted. All others are refused as unknown, which the C library takes for an older
kernel and works around: it makes a thread by clone where clone3 is unknown."""

CLONE_THREAD = 0x10000
SOCK_TYPE = 0xF
FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 1030)
"""Duplicates, flags and locks. The other commands can have the kernel send signals to any process."""


@cache
def permitted() -> bytes:
    """The filter as a BPF program. Raises OSError in a line if it cannot be made here."""
    try:
        import pyseccomp
    except ImportError as error:
        raise OSError("pyseccomp is not installed: pip install pyseccomp") from error
    except RuntimeError as error:
        raise OSError("libseccomp is missing: install your system's package of it") from error
    rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.ENOSYS))
    for action, name, *conditions in _rules(pyseccomp):
        number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
        if number >= 0:  # else this architecture, or this version of libseccomp, has no such call
            rules.add_rule(action, number, *conditions)
    return _exported(rules)


def _rules(seccomp: Any) -> Iterator[tuple[Any, ...]]:
    """What happens to which call, and the conditions on its arguments, which must all hold."""
    allow, forbid = seccomp.ALLOW, seccomp.ERRNO(errno.EPERM)

    def equal(argument: int, value: int) -> Any:
        return seccomp.Arg(argument, seccomp.EQ, value)

    def bits(argument: int, mask: int, value: int) -> Any:
        return seccomp.Arg(argument, seccomp.MASKED_EQ, mask, value)

    yield from ((allow, name) for name in ALLOWED)
    yield from ((forbid, name) for name in FORBIDDEN)
    yield allow, "clone", bits(0, CLONE_THREAD, CLONE_THREAD)
    yield forbid, "clone", bits(0, CLONE_THREAD, 0)
    yield allow, "kill", equal(0, FILTERED_PID)
    yield allow, "tgkill", equal(0, FILTERED_PID)
    yield allow, "prlimit64", equal(0, 0)  # its own
    for name, flags in (
        ("open", 1),
        ("openat", 2),
    ):  # landlock of Linux < 6.2 lets a reader truncate
        yield allow, name, bits(flags, os.O_TRUNC, 0)
        yield allow, name, bits(flags, os.O_ACCMODE, os.O_WRONLY)
        yield allow, name, bits(flags, os.O_ACCMODE, os.O_RDWR)
    # A pair of streams stays connected; datagrams could be addressed to any socket of the machine.
    yield allow, "socketpair", equal(0, socket.AF_UNIX), bits(1, SOCK_TYPE, socket.SOCK_STREAM)
    yield allow, "sendto", equal(4, 0)
    yield from ((allow, "fcntl", equal(1, command)) for command in FCNTL)
    for request in ("TCGETS", "TIOCGWINSZ", "FIOCLEX", "FIONCLEX", "FIONBIO", "FIONREAD"):
        yield allow, "ioctl", equal(1, getattr(termios, request))


def _exported(rules: Any) -> bytes:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source:
        with os.fdopen(writing, "wb") as sink:  # which holds 64 KiB; the filter has some 2
            rules.export_bpf(sink)
        return source.read()
