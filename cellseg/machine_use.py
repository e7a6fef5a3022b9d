"""How busy processor, memory, disk, network and GPU are, logged while a run goes on, also while its store is away."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor


class Open(Protocol):
    """A run that is open."""

    id: str

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log figures of a step."""


@contextmanager
def logged_use(run: Open, uri: str) -> Iterator[None]:
    """Logs meanwhile, from a thread; uri is the run's store."""
    monitor: Any = _Monitor(run, uri)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


class _Monitor(SystemMetricsMonitor):
    """MLflow's own ends when the store does not answer once; this one leaves the sending to the run."""

    def __init__(self, run: Open, uri: str) -> None:
        super().__init__(run.id, tracking_uri=uri, resume_logging=True)  # type: ignore[no-untyped-call]
        self._run = run

    def monitor(self) -> None:
        while True:
            for _ in range(self.samples_before_logging):
                self.collect_metrics()  # type: ignore[no-untyped-call]
                if self._shutdown_event.wait(self.sampling_interval):
                    return
            self.publish_metrics(self.aggregate_metrics())  # type: ignore[no-untyped-call]

    def publish_metrics(self, metrics: Mapping[str, float]) -> None:
        self._run.metrics(
            {f"{self._metrics_prefix}{name}": value for name, value in metrics.items()}, self._logging_step
        )
        self._logging_step += 1
        for each in self.monitors:
            each.clear_metrics()  # type: ignore[no-untyped-call]
