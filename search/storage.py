"""Where studies are kept: SQLite for one machine, PostgreSQL for several; and a lock that all their workers share."""

import fcntl
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from cellseg.wording import first_line

BUSY_SECONDS = 60
"""that a worker waits for SQLite while others write"""
KEEPALIVE = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
"""a minute after a machine vanished, PostgreSQL frees the lock that it held"""


@dataclass(frozen=True)
class Storage:
    """An open storage; what reads and then writes holds its lock."""

    address: str
    backend: RDBStorage

    def locked(self) -> AbstractContextManager[None]:
        """One process at a time."""
        return locked(self.address)

    def beat(self, study: str, trial: int) -> None:
        """Say that this trial of this study is alive."""
        self.backend.record_heartbeat(self._trial_id(study, trial))

    def mark(self, study: str, trial: int, name: str, value: object) -> None:
        """Set an attribute of a trial that another process runs."""
        self.backend.set_trial_user_attr(self._trial_id(study, trial), name, value)

    def _trial_id(self, study: str, trial: int) -> int:
        return self.backend.get_trial_id_from_study_id_trial_number(self.backend.get_study_id_from_name(study), trial)


def open_storage(address: str, heartbeat: int) -> Storage:
    """The storage of an address, made where it is new; a trial is dead after three heartbeats of silence, in seconds.

    Raises ValueError where the address cannot be used, or another Optuna made its tables.
    """
    connect = {"timeout": BUSY_SECONDS} if _url(address).get_backend_name() == "sqlite" else {"options": KEEPALIVE}
    try:
        with locked(address), warnings.catch_warnings():  # a database that several processes make at once breaks
            warnings.simplefilter("ignore", ExperimentalWarning)
            backend = RDBStorage(
                address,
                engine_kwargs={"connect_args": connect, "pool_pre_ping": True},
                heartbeat_interval=heartbeat,
                grace_period=3 * heartbeat,
            )
    except (SQLAlchemyError, ImportError) as error:
        raise _unusable(address, error) from error
    except RuntimeError as error:  # of other tables; it names both versions and what to do
        raise ValueError(f"--storage {shown(address)}: {' '.join(str(error).split())}") from error
    return Storage(address, backend)


@contextmanager
def one_line_if_lost(address: str) -> Iterator[None]:
    """Raises ValueError where the block loses its connection to the storage."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = first_line(error.__cause__ or error)
        raise ValueError(
            f"--storage {shown(address)}: lost on the way ({cause}); once it is back, the same command goes on"
        ) from error


@contextmanager
def locked(address: str) -> Iterator[None]:
    """One process at a time, on this machine (SQLite) or on all (PostgreSQL); the lock of a process that dies is free.

    Raises ValueError where the address cannot be used.
    """
    url = _url(address)
    if url.get_backend_name() == "sqlite":
        with _file_locked(address, Path(url.database or "")):
            yield
    else:
        with _server_locked(address, url):
            yield


@contextmanager
def _file_locked(address: str, database: Path) -> Iterator[None]:
    try:
        held = database.with_name(f"{database.name}.lock").open("w")
    except (OSError, ValueError) as error:  # ValueError: no name at all
        raise _unusable(address, error) from error
    with held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


@contextmanager
def _server_locked(address: str, url: URL) -> Iterator[None]:
    key = int.from_bytes(blake2b(b"cellseg search", digest_size=8).digest(), signed=True)
    try:
        engine = create_engine(
            url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args={"options": KEEPALIVE}
        )
        connection = engine.connect()
    except (SQLAlchemyError, ImportError) as error:
        raise _unusable(address, error) from error
    with connection:  # closing it frees the lock, and so does the death of this process
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": key})
        yield


def _url(address: str) -> URL:
    """The parsed address. Raises ValueError for what is neither SQLite nor PostgreSQL."""
    try:
        url = make_url(address)
    except (SQLAlchemyError, ValueError) as error:
        raise _unusable(address, ValueError("no such address")) from error
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise _unusable(address, ValueError(f"{url.get_backend_name()} is not known here"))
    return url


def _unusable(address: str, error: Exception) -> ValueError:
    """One line without the password."""
    reason = first_line(error)
    if isinstance(error, ImportError):
        reason = "its driver is missing: pip install 'cellseg[postgres]'"
    expected = "expected sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
    if isinstance(error, OSError):
        reason, expected = str(error.strerror).lower(), "name a file in a folder that is there and can be written to"
    return ValueError(f"--storage {shown(address)}: no study can be kept there ({reason}); {expected}")


def shown(address: str) -> str:
    """The address without its password, which may also be a part of its query."""
    try:
        url = make_url(address)
    except (SQLAlchemyError, ValueError):  # ValueError: no number for a port
        return address.partition("://")[0]
    secret = dict.fromkeys((name for name in url.query if "pass" in name), "hidden")
    return url.update_query_dict(secret).render_as_string(hide_password=True)
