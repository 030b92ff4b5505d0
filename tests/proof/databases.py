"""Databases on the mount: PostgreSQL and SQLite as they are, with a witness of what they acknowledged.

`Postgres` runs a server of its own over a directory, as an ordinary user where we are root (it refuses root). `Witness` threads commit numbered
rows one after another and note when each was acknowledged: after a crash every row that was must be there, and the databases' own checks must pass.
"""

from __future__ import annotations

import abc
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS_MAX = 120
PGBENCH_SCALE = 1
USER = "postgres"
BALANCES = (
    "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)"
    " AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(delta) FROM pgbench_history)"
    " AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(delta) FROM pgbench_history)"
)
"""Every transaction of pgbench adds one delta to one account, one teller, one branch and the history."""


def programs() -> Path:
    """Where the server's programs are. Raises FileNotFoundError with the remedy."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and not on_path:
        raise FileNotFoundError("PostgreSQL is not installed; run: apt-get install postgresql")
    return found[-1].parent if found else Path(str(on_path)).parent


class Postgres:
    """One server over `data`, reached by a socket in a directory of its own."""

    def __init__(self, data: Path) -> None:
        self._data, self._bin = data, programs()
        self._sockets = Path(tempfile.mkdtemp(prefix="pg-"))
        if os.geteuid() == 0:
            shutil.chown(self._sockets, USER)

    def make(self) -> None:
        self._data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(self._data, USER)
        self._run("initdb", "-D", self._data, "-U", USER, "--auth=trust", "--no-instructions")
        self.start()
        self._run("pgbench", *self._where(), "-i", "-q", "-s", str(PGBENCH_SCALE))
        self.ask("CREATE TABLE witness (number int PRIMARY KEY)")

    def forget_process(self) -> None:
        """After power loss no process of before runs. On this machine its number may be one that is in use, or that nobody has waited for yet."""
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def start(self) -> None:
        options = f"-k {self._sockets} -c listen_addresses= -c shared_buffers=16MB"
        log = self._sockets / "log"
        try:
            self._run("pg_ctl", "-D", self._data, "-w", "-t", str(START_SECONDS_MAX), "-l", log, "-o", options, "start")
        except RuntimeError as error:
            said = log.read_text(errors="replace")[-2000:] if log.exists() else "nothing"
            raise RuntimeError(f"{error}; the server said: {said}") from None

    def bench(self, seconds: float, clients: int) -> subprocess.Popen[bytes]:
        argv = self._argv("pgbench", *self._where(), "-n", "-c", str(clients), "-T", str(int(seconds)))
        return subprocess.Popen(argv, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def session(self) -> subprocess.Popen[str]:
        argv = self._argv("psql", *self._where(), "-qAtX", "-v", "ON_ERROR_STOP=1")
        return subprocess.Popen(argv, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def ask(self, query: str) -> str:
        return self._run("psql", *self._where(), "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", query).strip()

    def stop(self, mode: str = "immediate") -> None:
        """Also where the data are gone."""
        subprocess.run(self._argv("pg_ctl", "-D", self._data, "-m", mode, "-t", "20", "stop"), cwd="/", capture_output=True, check=False)
        shutil.rmtree(self._sockets, ignore_errors=True)

    def faults(self) -> list[str]:
        """What the database itself finds wrong after recovery, one sentence each."""
        found = [] if self.ask(BALANCES) == "t" else ["PostgreSQL: the balances do not add up"]
        check = subprocess.run(
            self._argv("pg_amcheck", *self._where(), "--install-missing", "--heapallindexed"), cwd="/", capture_output=True, text=True
        )
        return found + ([f"PostgreSQL: {check.stdout.strip()[:300]} {check.stderr.strip()[:300]}"] if check.returncode else [])

    def _where(self) -> Sequence[str]:
        return ("-h", str(self._sockets), "-U", USER)

    def _argv(self, program: str, *arguments: object) -> list[str]:
        command = [str(self._bin / program), *(str(argument) for argument in arguments)]
        return ["runuser", "-u", USER, "--", *command] if os.geteuid() == 0 else command

    def _run(self, program: str, *arguments: object) -> str:
        ended = subprocess.run(self._argv(program, *arguments), cwd="/", capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"{program} failed: {ended.stdout[-500:]}{ended.stderr[-500:]}")
        return ended.stdout


@dataclass
class Acknowledged:
    """When each numbered row was acknowledged, by its number."""

    at_ns: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def by(self, moment_ns: int | None) -> int:
        return sum(moment_ns is None or at <= moment_ns for at in self.at_ns)


class Witness(threading.Thread, abc.ABC):
    """Commits row after row until it is stopped, or until the database does not answer any more."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name=type(self).__name__)
        self.acknowledged = Acknowledged()
        self.stopping = threading.Event()

    def run(self) -> None:
        try:
            while not self.stopping.is_set():
                self.commit(len(self.acknowledged.at_ns))
                self.acknowledged.at_ns.append(time.monotonic_ns())
        except (OSError, sqlite3.Error) as error:
            self.acknowledged.errors.append(f"{self.name}: {error}")
        finally:
            self.close()

    @abc.abstractmethod
    def commit(self, number: int) -> None:
        """Returns once the row is acknowledged. Raises OSError or sqlite3.Error."""

    @abc.abstractmethod
    def close(self) -> None:
        """Lets go of the database. In the thread that committed."""

    def end(self) -> None:
        self.stopping.set()
        self.join(60)


class PostgresWitness(Witness):
    def __init__(self, server: Postgres) -> None:
        super().__init__()
        self._session = server.session()

    def commit(self, number: int) -> None:
        assert self._session.stdin and self._session.stdout
        self._session.stdin.write(f"INSERT INTO witness VALUES ({number}) RETURNING number;\n")
        if self._session.stdout.readline().strip() != str(number):
            raise OSError("the session ended")

    def close(self) -> None:
        self._session.kill()
        with self._session:
            return


class SqliteWitness(Witness):
    """One journal mode, one database."""

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__()
        self._path, self._mode = path, mode
        with sqlite3.connect(path) as connection:
            connection.execute(f"PRAGMA journal_mode={mode}")
            connection.execute("CREATE TABLE witness (number INTEGER PRIMARY KEY, text TEXT)")
            connection.execute("CREATE INDEX by_text ON witness (text)")
        connection.close()
        self._connection: sqlite3.Connection | None = None

    def commit(self, number: int) -> None:
        if self._connection is None:
            # In the thread that uses it.
            self._connection = sqlite3.connect(self._path, isolation_level=None)
            self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("INSERT INTO witness VALUES (?, ?)", (number, str(number) * 100))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def sqlite_faults(path: Path, acknowledged: Acknowledged, before_ns: int | None = None) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        sound = connection.execute("PRAGMA integrity_check").fetchone()[0]
        rows = [row[0] for row in connection.execute("SELECT number FROM witness ORDER BY number")]
    finally:
        connection.close()
    return ([] if sound == "ok" else [f"SQLite {path.name}: {sound}"]) + row_faults(f"SQLite {path.name}", rows, acknowledged.by(before_ns))


def row_faults(name: str, rows: Sequence[int], acknowledged: int) -> list[str]:
    if list(rows) != list(range(len(rows))):
        return [f"{name}: rows are missing in between"]
    return [] if len(rows) >= acknowledged else [f"{name}: {acknowledged} rows were acknowledged, {len(rows)} are there"]
