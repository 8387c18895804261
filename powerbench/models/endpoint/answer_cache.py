"""Answers of an endpoint, kept on disk by their request: no request is paid for twice."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from powerbench.models.endpoint.failures import CannotAsk
from powerbench.models.endpoint.settings import Names

FILE = "answers.sqlite"
BUSY_TIMEOUT = 30.0
"""Seconds to wait while another process writes to the database."""


class Paid(Protocol):
    """An answer of an endpoint, as its cache keeps it: a dataclass of plain data (JSON)."""

    @property
    def prompt_tokens(self) -> int: ...

    @property
    def completion_tokens(self) -> int: ...


A = TypeVar("A", bound=Paid)


class Answers(Generic[A]):
    """A table in a SQLite file, for any number of threads and processes.

    An answer is durable when `put` returns: a process that is killed tears nothing. `get` and
    `put` raise CannotAsk, with the file and the remedy, if the file cannot be used; from then on
    they do so at once, until `close`: not every thread waits for the timeout anew.
    """

    def __init__(self, folder: Path, kind: type[A], names: Names) -> None:
        self.path = folder / FILE
        self._kind: Any = kind
        self._names = names
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._trouble: str | None = None

    def get(self, key: str) -> A | None:
        """The answer kept under this key; None if there is none."""
        with self._opened() as database:
            query = "select answer from answers where key = ?"
            row = database.execute(query, (key,)).fetchone()
            return None if row is None else self._kind(**json.loads(row[0]))

    def put(self, key: str, answer: A) -> None:
        with self._opened() as database:
            row = (key, json.dumps(asdict(answer)))  # type: ignore[call-overload]
            database.execute("insert or replace into answers values (?, ?)", row)

    def close(self) -> None:
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = self._trouble = None

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._trouble is not None:
                raise CannotAsk(self._trouble)
            try:
                if self._database is None:
                    self._database = self._open()
                yield self._database
            except (sqlite3.Error, OSError, TypeError, ValueError) as error:
                why = getattr(error, "strerror", None) or error
                self._trouble = (
                    f"the cache of {self._names.who}'s answers, {self.path}, cannot be used: {why}; "
                    f"fix that, or set {self._names.section}.cache to another folder"
                )
                raise CannotAsk(self._trouble) from error

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # The rollback journal, which is the default, also works on network file systems; WAL does not.
        database = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        try:
            database.execute(
                "create table if not exists answers (key text primary key, answer text not null)"
            )
        except sqlite3.Error:
            database.close()
            raise
        return database
