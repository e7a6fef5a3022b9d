import time

from cellseg import run_store  # noqa: F401  what imports mlflow imports it first
from cellseg.machine_use import logged_use


class Recorded:
    """A run that keeps what it is told."""

    id = "beef"

    def __init__(self):
        self.steps = []

    def metrics(self, values, step):
        assert "system/cpu_utilization_percentage" in values
        self.steps.append(step)


def test_the_use_of_the_machine_is_told_to_the_run_until_the_block_ends(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    run = Recorded()
    with logged_use(run, f"sqlite:///{tmp_path / 'mlflow.db'}"):
        until = time.monotonic() + 60
        while len(run.steps) < 3 and time.monotonic() < until:
            time.sleep(0.01)
    told = len(run.steps)
    assert run.steps == list(range(told))
    assert told >= 3
    time.sleep(0.1)
    assert len(run.steps) == told
