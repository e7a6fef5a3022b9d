"""Storages: a real PostgreSQL server for several machines, SQLite for one; the lock that their workers share."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import optuna
import pytest
import sqlalchemy
import storage
from mlflow_server import free_port
from studies import HELD, MORTAL, finish, let_go, running_past_an_epoch, start, trials, until, worker_of
from study import earlier_tries
from test_workers import assert_every_trial_ended_once

INITDB = [*sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb"))), shutil.which("initdb") or ""]
"""of Debian, which keeps it off the path, and of others"""


@pytest.fixture(scope="module")
def server():
    """The address of a PostgreSQL server of its own, run by a user who is not root, since initdb refuses root."""
    programs = Path(next(filter(None, INITDB), "")).parent
    if not (programs / "initdb").exists():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql (.ci/run does)")
    user = ("postgres" if "postgres" in Path("/etc/passwd").read_text() else "nobody") if os.getuid() == 0 else None
    place = Path(tempfile.mkdtemp(prefix="cellseg-postgres-", dir="/tmp"))  # sockets want a short path
    if user:
        shutil.chown(place, user)
    port = free_port()

    def run(program, *arguments):
        command = [str(programs / program), *arguments]
        done = subprocess.run(command, user=user, cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    folder = str(place / "data")
    run("initdb", "-D", folder, "-U", "tester", "-A", "trust", "--no-sync")
    options = f"-p {port} -k {place} -c listen_addresses=127.0.0.1 -c fsync=off"
    run("pg_ctl", "-D", folder, "-w", "-l", str(place / "log"), "-o", options, "start")
    yield f"postgresql://tester:pa55phrase@127.0.0.1:{port}/postgres"
    run("pg_ctl", "-D", folder, "-m", "immediate", "stop")
    shutil.rmtree(place)


def test_two_machines_on_postgresql_finish_a_study_though_one_is_killed(tmp_path, folder, server):
    few = ["--trials", "5", "--trial-epochs", "2", *MORTAL, "--storage", server, "--yardsticks", "trials"]
    places = [tmp_path / "first", tmp_path / "second"]
    for place in places:
        place.mkdir()
    commands = [start(place, folder, *few, script=HELD) for place in places]  # at once, on a server without any table
    victim = until(lambda: running_past_an_epoch(server, workers=2), *commands)
    killed = [command.pid for command in commands].index(worker_of(victim))
    commands[killed].kill()
    finish(places[killed], commands[killed], code=-signal.SIGKILL)
    let_go(*places)
    commands[killed] = start(places[killed], folder, *few, script=HELD)
    for place, command in zip(places, commands, strict=True):
        finish(place, command)
    assert_every_trial_ended_once(server, 5)
    assert [victim.number] in [earlier_tries(trial) for trial in trials(server)]
    assert len({trial.user_attrs["worker"] for trial in trials(server) if "worker" in trial.user_attrs}) >= 2
    assert all(
        b"pa55phrase" not in path.read_bytes() for place in places for path in place.rglob("*") if path.is_file()
    )
    tables = [(place / "search/results/s/trials.csv").read_text().splitlines() for place in places]
    assert len(max(tables, key=len)) == 1 + len(trials(server))


def opened(address, failures):
    """Open a storage in a process of its own; what went wrong goes into failures."""
    try:
        storage.open_storage(address, 1)
    except Exception as error:
        failures.put(repr(error))


def test_eight_processes_that_open_a_fresh_storage_at_once_all_can(tmp_path):
    context = multiprocessing.get_context("fork")
    failures = context.SimpleQueue()
    address = f"sqlite:///{tmp_path / 'optuna.db'}"
    processes = [context.Process(target=opened, args=(address, failures)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert failures.empty()
    assert [process.exitcode for process in processes] == [0] * 8
    assert trials(address) == []


def holder_of(address):
    """A process that takes a lock and keeps it until it is killed, and what it says once it has it."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def take():
        with storage.locked(address):
            answers.put("taken")
            signal.pause()

    process = context.Process(target=take)
    process.start()
    return process, answers


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_lock_is_held_by_one_and_freed_by_the_death_of_its_holder(tmp_path, kind, request):
    address = f"sqlite:///{tmp_path / 'optuna.db'}" if kind == "sqlite" else request.getfixturevalue("server")
    first, answers = holder_of(address)
    until(lambda: not answers.empty())
    second, later = holder_of(address)
    try:
        time.sleep(0.5)  # a lock that locks nothing would be taken by now
        assert later.empty()
        first.kill()
        until(lambda: not later.empty())
    finally:
        for process in (first, second):
            process.kill()
            process.join()


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:////no/such/folder/optuna.db",
        "sqlite://",
        "postgres",
        "nosuch://host/db",
        "mysql://host/db",
        "postgresql://me:secret@127.0.0.1:1/db",
    ],
)
def test_a_storage_that_cannot_be_used_is_named_in_one_line_without_its_password(address):
    with pytest.raises(ValueError, match=r"--storage .*no study can be kept there") as refused:
        storage.open_storage(address, 1)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_tables_of_another_optuna_are_named_in_one_line(tmp_path):
    address = f"sqlite:///{tmp_path / 'optuna.db'}"
    engine = storage.open_storage(address, 1).backend.engine
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = 'v99.0.0.a'"))
    with pytest.raises(ValueError, match=r"--storage sqlite:.*optuna\.db: .*try updating optuna") as refused:
        storage.open_storage(address, 1)
    assert "\n" not in str(refused.value)


def test_a_storage_that_is_lost_on_the_way_is_one_line_without_its_password():
    address = "postgresql://me:secret@127.0.0.1:1/db"
    engine = sqlalchemy.create_engine(address)
    lost = pytest.raises(ValueError, match=r"lost on the way .*the same command goes on")
    with lost as told, storage.one_line_if_lost(address), engine.connect():
        pass
    assert "secret" not in str(told.value)
    assert "\n" not in str(told.value)


def test_the_dashboard_shows_the_studies_of_the_same_storage(tmp_path, monkeypatch):
    opened_here = storage.open_storage(f"sqlite:///{tmp_path / 'optuna.db'}", 1)
    study = optuna.create_study(study_name="s", storage=opened_here.backend, direction="maximize")
    study.add_trial(optuna.create_trial(value=0.5))
    monkeypatch.chdir(tmp_path)
    program = str(Path(sys.executable).with_name("optuna-dashboard"))
    port = str(free_port())
    command = [program, "sqlite:///optuna.db", "--host", "127.0.0.1", "--port", port]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            listed = until(lambda: fetched(f"http://127.0.0.1:{port}/api/studies"), server)
            (summary,) = listed["study_summaries"]
            assert summary["study_name"] == "s"
            shown = fetched(f"http://127.0.0.1:{port}/api/studies/{summary['study_id']}?after=0")
            assert [trial["state"] for trial in shown["trials"]] == ["Complete"]
        finally:
            server.terminate()


def fetched(address):
    """The JSON at an address of this machine, or nothing while nobody answers."""
    with suppress(OSError), urlopen(address, timeout=30) as answer:
        return json.load(answer)
    return None
