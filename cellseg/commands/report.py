"""`cellseg report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Report:
    """Tell all of a training in one HTML page: figures, curves, best and worst images, settings, how to do it again.

    The best network predicts the images that were held back; the parent run of folds has its results already. The page
    needs no other file, and is also logged to the run as report/report.html.
    """

    run_id: Annotated[Positional[str], arg(metavar="RUN_ID")]
    """the MLflow run id that final_train.py printed"""
    runs: Path = Path("experiments/runs")
    """where final_train.py left its checkpoints"""
    data: Path | None = None
    """where the data are now; by default where they were when it was trained"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    out: Path | None = None
    """the file to write; by default report.html beside the run's best.pt"""

    def run(self) -> int:
        """Write the page, log it, and print where it is."""
        from cellseg import run_log
        from cellseg.experiment import run_folder
        from cellseg.report import gather
        from cellseg.report_page import page
        from cellseg.whole_files import require_place, write_whole

        out = self.out or run_folder(self.run_id, self.runs) / "report.html"
        require_place(out)
        report = gather(self.run_id, store=Path.cwd(), runs=self.runs, root=self.data, device=self.device)
        text = page(report)
        write_whole(text, out)
        run_log.add_text(self.run_id, text, "report/report.html", root=Path.cwd())
        print(report.remark)
        print(f"report {out}")
        return 0
