"""What a process gives up before it meets the program. All of it is inherited, none can be undone."""

import os
import resource
import sys

MIB = 2**20
DESCRIPTORS = 64
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP = 1, 4, 22
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
SECCOMP_MODE_FILTER = 2
SIGKILL = 9
LANDLOCK_RESTRICT_SELF = 446
CAPABILITY_VERSION_3 = 0x20080522
FILTERED_PID = 0x7FFFFFF0
"""Stands in a system-call filter for the process that it is installed in."""

LINUX = sys.platform == "linux"
if LINUX:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)


def limit(cpu_seconds: int, memory_mb: int, file_mb: int) -> None:
    """For each process on its own: processor time, address space, size of a file, open files."""
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: file_mb * MIB,
        resource.RLIMIT_NOFILE: DESCRIPTORS,
    }
    if LINUX:  # macOS does not have it
        limits[resource.RLIMIT_AS] = memory_mb * MIB
    for what, most in limits.items():
        resource.setrlimit(what, (most, most))


def renounce(ruleset: int | None) -> None:
    """On Linux: all capabilities, set-user-ID programs, being traced or read by processes of the user,
    and every file outside the landlock ruleset of this descriptor. Orphans come to this process."""
    if not LINUX:
        return
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_SET_DUMPABLE, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    _checked(libc.capset(header, (ctypes.c_uint32 * 6)()))
    if ruleset is not None:
        _checked(libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0))
        os.close(ruleset)


def close_doors(parent: int, syscalls: bytes) -> None:
    """In a process just forked by `parent`: die with it, make no process, make no forbidden system call.

    `syscalls`: the filter as a BPF program; where it is empty, the user's limit of processes has to do.
    """
    if LINUX:
        _prctl(PR_SET_PDEATHSIG, SIGKILL)
        if os.getppid() != parent:
            raise ProcessLookupError("orphaned at birth")
    if syscalls:
        _install(_addressed(syscalls))
    else:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def _addressed(syscalls: bytes) -> bytes:
    """The filter with this process in the place of FILTERED_PID: an instruction ends in its operand."""
    here, there = (pid.to_bytes(4, sys.byteorder) for pid in (os.getpid(), FILTERED_PID))
    instructions = (syscalls[i : i + 8] for i in range(0, len(syscalls), 8))
    return b"".join(i[:4] + (here if i[4:] == there else i[4:]) for i in instructions)


def _install(syscalls: bytes) -> None:
    class Program(ctypes.Structure):
        """struct sock_fprog of linux/filter.h."""

        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    program = Program(len(syscalls) // 8, syscalls)
    _checked(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0))


def _prctl(option: int, value: int) -> None:
    _checked(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
