"""What a run leaves to read: metrics.jsonl, TensorBoard events, samples.jsonl and the learning curve."""

import json
import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from agents.rollout import Rollout

NUM_SAMPLES = 4  # episodes of each update kept in samples.jsonl


class RunLog:
    """Writes a run's records; closing it draws the curve, so an interrupted run has one too."""

    def __init__(
        self, run_dir: Path, *, num_updates: int, first_update: int, sizes: dict[str, int], quiet: bool
    ) -> None:
        """Open the records, cut to the sizes a checkpoint noted, so that a resumed run has no line twice."""
        self.run_dir = run_dir
        self.files = {}
        for name in ("metrics.jsonl", "samples.jsonl"):
            (run_dir / name).touch()
            self.files[name] = (run_dir / name).open("r+", encoding="utf-8")
            self.files[name].truncate(sizes.get(name, 0))
            self.files[name].seek(0, 2)
        self.tensorboard = SummaryWriter(str(run_dir), purge_step=first_update)
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self.progress = Progress(*columns, disable=quiet, transient=False)
        self.task = self.progress.add_task("sampling", total=num_updates, completed=first_update)
        self.progress.start()

    def write(self, update: int, metrics: dict[str, float], rollout: Rollout) -> None:
        """Record one update: its metrics, and its first episodes as text."""
        # NaN is not JSON: a number that does not exist is null.
        clean = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._append("metrics.jsonl", {"update": update, **clean})
        for name, value in metrics.items():
            self.tensorboard.add_scalar(name, value, update)
        for episode_return, info in list(zip(rollout.returns, rollout.infos, strict=True))[:NUM_SAMPLES]:
            texts = {key: info.get(key) for key in ("prompt", "response", "finish_reason")}
            self._append("samples.jsonl", {"update": update, **texts, "return": float(episode_return)})
        description = f"return {metrics['return']:.3f}  {metrics['tokens_per_second']:,.0f} tokens/s"
        self.progress.update(self.task, completed=update, description=description)

    def _append(self, name: str, record: dict[str, Any]) -> None:
        self.files[name].write(json.dumps(record) + "\n")
        self.files[name].flush()

    def sizes(self) -> dict[str, int]:
        """Return the bytes written to each record, for a checkpoint to note."""
        return {name: file.tell() for name, file in self.files.items()}

    def close(self) -> None:
        """Close all records and draw curve.png."""
        self.progress.stop()
        for file in self.files.values():
            file.close()
        self.tensorboard.close()
        draw_curve(self.run_dir)


def draw_curve(run_dir: Path) -> None:
    """Draw the mean return of each update over episodes into curve.png; nothing when there is no update yet."""
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    if not lines:
        return
    records = [json.loads(line) for line in lines]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="episodes", ylabel="mean return of an update")
    axes.plot([record["episodes"] for record in records], [record["return"] for record in records])
    axes.grid(alpha=0.3)
    figure.savefig(run_dir / "curve.png", dpi=120)
