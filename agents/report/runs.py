"""One run directory, read: what train, sft and evaluate left in it, finished or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.report.records import MAX_SAMPLE_BYTES, read_lines, read_object, run_environment


@dataclass(frozen=True)
class RunRecord:
    """What one run directory holds.

    Attributes:
        name: of the directory; never its path, which may tell who made it.
        config: config.json.
        metrics: an object an update, at least one.
        samples: those that the page shows.
        num_samples: that were written.
        evaluations: what `textenvs evaluate` left, that of the run's own env first.
        environment: what computed it.
        is_cut: whether the last line of metrics.jsonl is not whole.
        is_finished: whether there is a final model.
    """

    name: str
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    num_samples: int
    evaluations: list[dict[str, Any]]
    environment: dict[str, Any]
    is_cut: bool
    is_finished: bool

    @property
    def label(self) -> str:
        """The seed, which tells runs of one configuration apart."""
        return f"seed {self.config['seed']}" if "seed" in self.config else self.name

    @property
    def step(self) -> str:
        """What a line of the metrics is: an update, or an epoch of a warm start."""
        return "epoch" if "epoch" in self.metrics[0] else "update"


def read_run(run_dir: Path, *, num_runs: int = 1) -> RunRecord:
    """Read a run directory, finished or not.

    Args:
        run_dir: what train or sft wrote.
        num_runs: that share the page, and so the room for samples.

    Raises:
        ValueError: when it holds no metrics, or a file that is not what a run writes.
    """
    metrics, _, is_cut = read_lines(run_dir / "metrics.jsonl")
    if not metrics:
        raise ValueError(
            f"run_dir must hold a run with at least one update, got {run_dir}, whose metrics.jsonl is missing or "
            "empty; wait for its first update, or name the run's directory"
        )
    samples, num_samples, _ = read_lines(run_dir / "samples.jsonl", max_bytes=MAX_SAMPLE_BYTES // num_runs)
    evaluations = [run_dir / "evaluation.json", *sorted(run_dir.glob("evaluation-*.json"))]
    config = run_dir / "config.json"
    return RunRecord(
        name=run_dir.resolve().name,
        config=read_object(config) if config.is_file() else {},
        metrics=metrics,
        samples=samples,
        num_samples=num_samples,
        evaluations=[read_object(path) for path in evaluations if path.is_file()],
        environment=run_environment(run_dir),
        is_cut=is_cut,
        is_finished=(run_dir / "final").is_dir(),
    )


def as_number(value: Any) -> float | None:
    """A number that can be drawn, or None: metrics.jsonl may hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 else None


def as_text(value: Any) -> str | None:
    """A text that can be shown, or None for none: samples.jsonl may hold anything."""
    return None if value is None else str(value)
