"""Answers of an endpoint, kept on disk by their request: no request is paid for twice."""

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from powerbench.verifiers.common import CannotScore

FILE = "answers.sqlite"
BUSY_TIMEOUT = 30.0
"""Seconds to wait while another process writes to the database."""


@dataclass(frozen=True)
class Answer:
    """What an endpoint answered to a request for one token."""

    logprobs: Mapping[str, float]
    """The most likely tokens and their log-probabilities, nats; empty if the endpoint gave none."""
    model: str
    """The model, as the endpoint names it."""
    prompt_tokens: int
    completion_tokens: int
    time: float
    """When it came, in seconds since 1970."""


class Answers:
    """A table in a SQLite file, for any number of threads and processes.

    An answer is durable when `put` returns: a process that is killed tears nothing. `get` and
    `put` raise CannotScore, with the file and the remedy, if the file cannot be used; from then on
    they do so at once, until `close`: not every thread waits for the timeout anew.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._trouble: str | None = None

    def get(self, key: str) -> Answer | None:
        """The answer kept under this key; None if there is none."""
        with self._opened() as database:
            query = "select answer from answers where key = ?"
            row = database.execute(query, (key,)).fetchone()
            return None if row is None else Answer(**json.loads(row[0]))

    def put(self, key: str, answer: Answer) -> None:
        with self._opened() as database:
            row = (key, json.dumps(asdict(answer)))
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
                raise CannotScore(self._trouble)
            try:
                if self._database is None:
                    self._database = self._open()
                yield self._database
            except (sqlite3.Error, OSError, TypeError, ValueError) as error:
                why = getattr(error, "strerror", None) or error
                self._trouble = (
                    f"the cache of the judge's answers, {self.path}, cannot be used: {why}; "
                    f"fix that, or set verifier.cache to another folder"
                )
                raise CannotScore(self._trouble) from error

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
