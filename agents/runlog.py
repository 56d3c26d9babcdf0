"""What a run leaves to read: metrics.jsonl, TensorBoard events, samples.jsonl and the learning curve.

docs/metrics.md defines every number and describes samples.jsonl.
"""

import json
import math
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from gymnasium.vector import VectorEnv
from matplotlib.figure import Figure
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

import textenvs
from agents.rollout import Rollout
from agents.text_metrics import finite_or_none, outcomes, parts
from agents.update import Batch

NUM_SAMPLES = 4  # episodes of each update kept in samples.jsonl
_NUM_BINS = 64  # of a histogram
MAX_SAMPLE_TOKENS = 512  # first tokens of a kept episode, so that long control episodes do not fill the disk


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let a Ctrl-C wait for the end of the block.

    One that comes while an event is put into the queue of TensorBoard's thread leaves that thread asleep, and
    closing waits for its next flush, up to two minutes.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is None or threading.current_thread() is not threading.main_thread():  # not Python's to hold
        yield
        return
    held: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if held:
            signal.raise_signal(signal.SIGINT)


class RunLog:
    """Writes a run's records; closing it draws the curve, so an interrupted run has one too."""

    def __init__(
        self, run_dir: Path, *, num_updates: int, first_update: int, sizes: dict[str, int], quiet: bool
    ) -> None:
        """Open the records, cut to the sizes a checkpoint noted, so that a resumed run has no line twice."""
        self.run_dir = run_dir
        self.files = {}
        for name in ("metrics.jsonl", "samples.jsonl"):
            self.files[name] = open_record(run_dir / name, sizes.get(name, 0))
        self.tensorboard = SummaryWriter(str(run_dir), purge_step=first_update + 1)
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self.progress = Progress(*columns, disable=quiet, transient=False)
        self.task = self.progress.add_task("sampling", total=num_updates, completed=first_update)
        self.progress.start()

    @interrupts_held()
    def write(
        self,
        update: int,
        metrics: dict[str, float],
        rollout: Rollout,
        batch: Batch,
        envs: VectorEnv[Any, Any, Any],
    ) -> None:
        """Record one update.

        Args:
            update: its number, from 1.
            metrics: of the update; what the infos say (success_rate, part/<name>) is added here.
            rollout: all its episodes; the first of them become samples.
            batch: what was learnt from those whose scoring worked.
            envs: that they were played in.
        """
        metrics = metrics | {name: float(values.mean()) for name, values in outcomes(batch.rollout).items()}
        # NaN is not JSON: a number that does not exist is null.
        clean = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._append("metrics.jsonl", {"update": update, **clean})
        for name, value in metrics.items():
            self.tensorboard.add_scalar(name, value, update)
        for name, values in (("advantages", batch.advantages[batch.mask].numpy()), ("returns", batch.rollout.returns)):
            # Its own bins, 1,500 of them, take as long as a small model's optimizer step.
            self.tensorboard.add_histogram(name, values, update, bins=_NUM_BINS)
        self._write_samples(update, rollout, batch, find_vocab(envs))
        description = f"return {metrics['return']:.3f}  {metrics['tokens_per_second']:,.0f} tokens/s"
        self.progress.update(self.task, completed=update, description=description)

    def _write_samples(self, update: int, rollout: Rollout, batch: Batch, vocab: textenvs.Vocab | None) -> None:
        """Record the first episodes, token by token; one whose scoring failed has no advantages, so no tokens."""
        rows = {int(number): row for row, number in enumerate(batch.rollout.episodes)}
        lines = []
        first = rollout.select(np.arange(min(NUM_SAMPLES, len(rollout))))
        for number, total, info in zip(first.episodes, first.returns, first.infos, strict=True):
            texts = {key: info.get(key) for key in ("prompt", "response", "finish_reason")}
            row = rows.get(int(number))
            tokens = None if row is None else token_columns(batch, row, vocab)
            named = {name: finite_or_none(value) for name, value in parts(info).items()}
            line = {"update": update, **texts, "return": float(total), "parts": named, "tokens": tokens}
            self._append("samples.jsonl", line)
            if texts["response"] is not None:
                lines.append(f"{total:.3f}  {texts['prompt']} > {texts['response']}")
        if lines:
            # Indented lines are code in Markdown: what a model wrote must not become markup.
            self.tensorboard.add_text("samples", "\n".join("    " + textenvs.printable(line) for line in lines), update)

    def _append(self, name: str, record: dict[str, Any]) -> None:
        self.files[name].write(json.dumps(record) + "\n")
        self.files[name].flush()

    def sizes(self) -> dict[str, int]:
        """Force both records to disk and return their bytes, for a checkpoint to note: it must not outlive them."""
        for file in self.files.values():
            os.fsync(file.fileno())
        return {name: file.tell() for name, file in self.files.items()}

    def close(self) -> None:
        """Close all records and draw curve.png; what fails is a warning, so that it hides no error of the run."""
        self.progress.stop()
        draw = partial(draw_curve, self.run_dir)
        for close in (*(file.close for file in self.files.values()), self.tensorboard.close, draw):
            try:
                close()
            except Exception as error:  # whatever a full disk or a damaged record makes of it
                warnings.warn(f"records of {self.run_dir} left unfinished: {error!r}", stacklevel=2)


def open_record(path: Path, size: int) -> TextIO:
    """Open a record to append to, made if need be, cut to its first size bytes.

    A shorter one, as copying or a failing disk leaves it, is cut to whole lines, with a warning.
    """
    path.touch()
    found = path.stat().st_size
    if found < size:
        warnings.warn(
            f"{path} must have the {size:,} bytes that the checkpoint notes, got {found:,}: "
            "the run goes on with the whole lines that are left",
            stacklevel=3,
        )
        size = path.read_bytes().rfind(b"\n") + 1
    file = path.open("r+", encoding="utf-8")
    file.truncate(size)
    file.seek(0, os.SEEK_END)
    return file


def find_vocab(envs: VectorEnv[Any, Any, Any]) -> textenvs.Vocab | None:
    """Return the vocabulary that spells the actions, or None where they are not tokens of ours."""
    rules = getattr(envs.unwrapped, "rules", None)
    return rules.vocab if isinstance(rules, textenvs.Rules) else None


def token_columns(batch: Batch, row: int, vocab: textenvs.Vocab | None) -> dict[str, list[Any]]:
    """Describe one episode token by token.

    Args:
        batch: from `make_batch`.
        row: which of its episodes.
        vocab: spells the tokens; None numbers the actions.

    Returns:
        Columns of at most `MAX_SAMPLE_TOKENS` entries: token (text), log_prob and value (when it was sampled),
        advantage, and kl (k1) where there is a reference; numbers to 4 significant digits, None where not finite.
    """
    chosen = np.flatnonzero(batch.rollout.mask[row])[:MAX_SAMPLE_TOKENS]
    numbers = {"log_prob": batch.old_log_probs, "value": batch.old_values, "advantage": batch.advantages}
    if batch.kl is not None:
        numbers["kl"] = batch.kl
    columns: dict[str, list[Any]] = {"token": token_texts(batch.rollout.actions[row, chosen].tolist(), vocab)}
    for name, tensor in numbers.items():
        values = tensor[row].numpy()[chosen].tolist()
        columns[name] = [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]
    return columns


def token_texts(ids: Sequence[int], vocab: textenvs.Vocab | None) -> list[str]:
    """Return the text that each token adds after the one before it; where it adds none, its name in the vocabulary.

    A token alone may be spelt otherwise: some tokenizers drop its space, and one character may be several tokens.
    """
    if vocab is None:
        return [str(i) for i in ids]
    texts = []
    for t, token in enumerate(ids):
        before = list(ids[max(t - 1, 0) : t])
        texts.append(vocab.decode([*before, token])[len(vocab.decode(before)) :] or vocab.tokens[token])
    return texts


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
