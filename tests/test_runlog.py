"""What a run writes: token columns, parts, TensorBoard after a resume; docs/metrics.md names every number there is."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import ragged_envs, string_envs, tiny_lm
from tasks_for_tests import Flaky
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import textenvs
from agents.algorithms import ALGORITHMS, Algorithm
from agents.evaluate import evaluate_run
from agents.policy import RandomPolicy
from agents.rollout import Rollout, collect
from agents.runlog import NUM_SAMPLES, RunLog, find_vocab, token_columns, token_texts
from agents.sft import SFTConfig, sft
from agents.text_metrics import outcomes
from agents.train import TrainConfig, train
from agents.update import make_batch, rollout_log_probs

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
COPY = {"length": 2, "alphabet": "abcd"}
METRICS = {"episodes": 4.0, "return": 0.5, "tokens_per_second": 1.0, "length": float("nan")}


def page_names(section: str) -> set[str]:
    """The names in the first columns of a section's tables."""
    text = PAGE.split(f"## {section}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE))


def generic(names: Iterable[str]) -> set[str]:
    """Names as the page writes them."""
    names = {re.sub(r"^(gain\.)?.+_stderr$", "<name>_stderr", name) for name in names}
    return {re.sub(r"^part/.+", "part/<name>", name) for name in names}


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def open_log(run_dir: Path, first_update: int = 0, **sizes: int) -> RunLog:
    return RunLog(run_dir, num_updates=9, first_update=first_update, sizes=sizes, quiet=True)


def events(run_dir: Path) -> EventAccumulator:
    return EventAccumulator(str(run_dir), size_guidance={"histograms": 0, "tensors": 0}).Reload()


def write(log: RunLog, envs: Any, rollout: Rollout, update: int = 1) -> None:
    batch = make_batch(rollout.select(~rollout.faulty), ALGORITHMS["ppo"])
    log.write(update, METRICS, rollout, batch, envs)


def test_token_columns_are_those_of_the_update() -> None:
    envs = ragged_envs(4)
    policy, reference = tiny_lm(envs, init_std=0.3), tiny_lm(envs, init_std=0.3, seed=1)
    rollout = collect(envs, policy, num_episodes=8, seed=0)
    batch = make_batch(rollout, Algorithm(kl_coef=0.1), rollout_log_probs(reference, rollout))
    for row, n in enumerate(rollout.lengths):
        columns = token_columns(batch, row, find_vocab(envs))
        assert list(columns) == ["token", "log_prob", "value", "advantage", "kl"]
        ids = rollout.actions[row, :n]
        assert columns["token"] == ["abcdefgh"[i] if i < 8 else "<eos>" for i in ids]
        ref = reference.evaluate(rollout, np.array([row]))[0][0, :n].detach().numpy()
        expected = {
            "log_prob": rollout.log_probs[row, :n],
            "value": rollout.values[row, :n],
            "advantage": batch.advantages[row, :n].numpy(),
            "kl": rollout.log_probs[row, :n] - ref,
        }
        for name, values in expected.items():
            np.testing.assert_allclose(columns[name], values, rtol=6e-4, atol=1e-5, err_msg=name)
    assert "kl" not in token_columns(make_batch(rollout, Algorithm()), 0, None)
    assert token_columns(batch, 0, None)["token"] == [str(i) for i in rollout.actions[0, : rollout.lengths[0]]]


def test_long_episodes_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.runlog.MAX_SAMPLE_TOKENS", 2)
    batch = make_batch(collect(string_envs(), RandomPolicy(6), num_episodes=4, seed=0), Algorithm())
    assert {len(column) for column in token_columns(batch, 0, None).values()} == {2}


def test_token_texts_put_together_are_the_response() -> None:
    vocab: Any = textenvs.make_task("continuation").vocab
    text = "It was great, and the café's staff 😀 smiled!"
    ids = vocab.encode(text).tolist()
    whole = [vocab.decode(ids[: t + 1]) for t in range(len(ids))]
    assert whole[-1] == text
    pieces = token_texts([*ids, vocab.eos_id], vocab)
    assert pieces[-1] == vocab.tokens[vocab.eos_id]
    assert all(pieces)

    class Pieces:
        """Drops the first space of what it decodes, as SentencePiece does."""

        tokens = ("▁it", "▁was", "s", "<eos>")

        def decode(self, ids: Iterable[int]) -> str:
            return "".join(self.tokens[i] for i in ids if i < 3).replace("▁", " ").removeprefix(" ")

    pieces_vocab: Any = Pieces()
    assert token_texts([0, 1, 2, 3], pieces_vocab) == ["it", " was", "s", "<eos>"]
    plain = vocab.encode("It was great, and they smiled!").tolist()
    assert "".join(token_texts(plain, vocab)) == "It was great, and they smiled!"


def test_parts_and_successes_are_means_over_what_was_scored(tmp_path: Path) -> None:
    envs = string_envs(reward=Flaky(), alphabet="ab", dense=False, split="all")
    rollout = collect(envs, RandomPolicy(4), num_episodes=40, seed=0)
    good = [info for info in rollout.infos if info["status"] == "ok"]
    assert 0 < len(good) < 40
    log = open_log(tmp_path)
    write(log, envs, rollout)
    for info in rollout.infos:
        del info["is_success"]
    write(log, envs, rollout, update=2)
    log.close()
    first, second = records(tmp_path / "metrics.jsonl")
    assert first["part/share"] == pytest.approx(np.mean([info["share"] for info in good]))
    assert first["part/length"] == pytest.approx(np.mean([info["length"] for info in good]))
    assert first["success_rate"] == pytest.approx(np.mean([info["response"] in ("a", "aa", "aaa") for info in good]))
    assert "success_rate" not in second
    assert first["length"] is None
    samples = records(tmp_path / "samples.jsonl")
    assert len(samples) == 2 * NUM_SAMPLES
    for sample, info in zip(samples, rollout.infos[:NUM_SAMPLES], strict=False):
        assert (sample["tokens"] is None) == (info["status"] == "infra_fault")
        assert sample["response"] == info["response"]
        assert sample["parts"] == {name: info.get(name) for name in ("share", "length") if name in info}
    # A control task's info has neither texts nor successes.
    rollout.infos[:] = [{"TimeLimit.truncated": True, "lives": 3, "speed": np.float64(i)} for i in range(40)]
    assert {name: values.mean() for name, values in outcomes(rollout).items()} == {"part/speed": 19.5}


def test_what_a_model_wrote_is_no_markup_and_drives_no_terminal(tmp_path: Path) -> None:
    envs = string_envs()
    rollout = collect(envs, RandomPolicy(6), num_episodes=4, seed=0)
    for info in rollout.infos:
        info["response"] = "\x1b[31m\n# <script>alert(1)</script>"
    log = open_log(tmp_path)
    write(log, envs, rollout)
    log.close()
    (event,) = events(tmp_path).Tensors("samples/text_summary")
    (text,) = (value.decode() for value in event.tensor_proto.string_val)
    lines = text.split("\n")
    assert len(lines) == 4
    assert all(line.startswith("    ") for line in lines)
    assert "\\x1b[31m\\n# <script>" in lines[0]


def test_tensorboard_has_each_update_once_after_a_resume(tmp_path: Path) -> None:
    """Updates 1 to 4 were written, the checkpoint is of 2: the resumed log has 1 to 5, 3 and 4 from the new run."""
    envs = string_envs()
    rollout = collect(envs, RandomPolicy(6), num_episodes=4, seed=0)
    log = open_log(tmp_path)
    sizes = {}
    for update in range(1, 5):
        write(log, envs, rollout, update)
        sizes[update] = log.sizes()
    log.close()
    log = open_log(tmp_path, first_update=2, **sizes[2])
    for update in range(3, 6):
        write(log, envs, rollout, update)
    log.close()
    read = events(tmp_path)
    assert [event.step for event in read.Scalars("return")] == [1, 2, 3, 4, 5]
    assert [event.step for event in read.Histograms("advantages")] == [1, 2, 3, 4, 5]
    assert [record["update"] for record in records(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert [record["update"] for record in records(tmp_path / "samples.jsonl")] == sorted([1, 2, 3, 4, 5] * 4)
    last = read.Histograms("returns")[-1].histogram_value
    assert last.num == 4
    assert last.sum == pytest.approx(rollout.returns.sum())


@pytest.mark.parametrize(("lines", "less", "kept"), [(0, 0, []), (1, 1, []), (1, 0, [1]), (2, 1, [1])])
def test_a_record_shorter_than_noted_keeps_its_whole_lines(
    tmp_path: Path, lines: int, less: int, kept: list[int]
) -> None:
    """As after a power cut: it is never filled up with zeros, and the run can go on."""
    envs = string_envs()
    rollout = collect(envs, RandomPolicy(6), num_episodes=4, seed=0)
    log = open_log(tmp_path)
    for update in (1, 2):
        write(log, envs, rollout, update)
    sizes = log.sizes()
    log.close()
    path = tmp_path / "metrics.jsonl"
    size = sum(map(len, path.read_bytes().splitlines(keepends=True)[:lines])) - less
    os.truncate(path, size)
    said = rf"metrics.jsonl must have the {sizes[path.name]:,} bytes .* notes, got {size:,}: the run goes on"
    with pytest.warns(UserWarning, match=said) as caught:
        log = open_log(tmp_path, first_update=2, **sizes)
    assert len(caught) == 1  # the other record is whole
    write(log, envs, rollout, 3)
    log.close()
    assert [record["update"] for record in records(path)] == [*kept, 3]
    assert [record["update"] for record in records(tmp_path / "samples.jsonl")] == [1] * 4 + [2] * 4 + [3] * 4


def test_what_a_checkpoint_notes_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    envs = string_envs()
    log = open_log(tmp_path)
    write(log, envs, collect(envs, RandomPolicy(6), num_episodes=4, seed=0))
    synced = {}

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced[path.name] = path.stat().st_size

    monkeypatch.setattr(os, "fsync", fsync)
    sizes = log.sizes()
    assert sizes == synced == {name: (tmp_path / name).stat().st_size for name in ("metrics.jsonl", "samples.jsonl")}
    log.close()


def test_closing_hides_no_error_of_the_run(tmp_path: Path) -> None:
    """A damaged line, a record that is gone and a disk that fails are warned of; the rest is closed all the same."""

    def run(log: RunLog) -> None:
        with ExitStack() as stack:
            stack.callback(log.close)
            raise RuntimeError("diverged")

    for damage in ("line", "gone", "disk"):
        (tmp_path / damage).mkdir()
        log = open_log(tmp_path / damage)
        if damage == "line":
            (tmp_path / damage / "metrics.jsonl").write_text('{"episodes": 4}\n\0\0')
        elif damage == "gone":
            (tmp_path / damage / "metrics.jsonl").unlink()
        else:
            (tmp_path / damage / "curve.png").mkdir()  # savefig fails on it as on a full disk, with an OSError
            envs = string_envs()
            write(log, envs, collect(envs, RandomPolicy(6), num_episodes=4, seed=0))
        with (
            pytest.warns(UserWarning, match=f"records of .*{damage} left unfinished: "),
            pytest.raises(RuntimeError, match="diverged"),
        ):
            run(log)
        assert all(file.closed for file in log.files.values())


def test_an_interrupt_waits_until_an_update_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One inside the queue of TensorBoard's thread left it asleep, and closing waited two minutes for it."""
    envs = string_envs()
    rollout = collect(envs, RandomPolicy(6), num_episodes=4, seed=0)
    log = open_log(tmp_path)
    add_scalar = log.tensorboard.add_scalar

    def interrupted(name: str, value: float, update: int) -> None:
        signal.raise_signal(signal.SIGINT)
        add_scalar(name, value, update)

    monkeypatch.setattr(log.tensorboard, "add_scalar", interrupted)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            write(log, envs, rollout)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
    log.close()
    assert {"return", "length"} <= set(events(tmp_path).Tags()["scalars"])
    assert len(records(tmp_path / "samples.jsonl")) == 4


def test_a_log_is_written_from_any_thread(tmp_path: Path) -> None:
    """Only the main thread may set what a signal does."""
    envs = string_envs()
    rollout = collect(envs, RandomPolicy(6), num_episodes=4, seed=0)
    log = open_log(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(write, log, envs, rollout).result()
    log.close()
    assert len(records(tmp_path / "metrics.jsonl")) == 1


def small_run(run_dir: Path, algorithm: Algorithm, num_updates: int = 1, **env_kwargs: Any) -> Path:
    config = TrainConfig(
        env_id="textenvs/Copy-v0",
        env_kwargs=COPY | env_kwargs,
        algorithm=replace(algorithm, episodes_per_update=16),
        model_kwargs={"hidden_size": 16, "num_heads": 2},
        num_episodes=16 * num_updates,
    )
    return train(config, run_dir, quiet=True)


def test_the_page_names_every_number_and_no_other(tmp_path: Path) -> None:
    """Runs of all five algorithms, with and without a KL penalty or imitation; an evaluation; a warm start."""
    torch.set_num_threads(1)
    penalties = {"ppo": {"kl_coef": 0.1, "kl_target": 1.0}, "grpo": {"kl_coef": 0.1}}
    logged, tags, columns = set(), set(), set()
    for name, algorithm in ALGORITHMS.items():
        run_dir = small_run(tmp_path / name, replace(algorithm, **penalties.get(name, {})), reward="sentiment")
        (record,) = records(run_dir / "metrics.jsonl")
        logged |= record.keys()
        found = events(run_dir).Tags()
        assert set(found["scalars"]) == record.keys() - {"update"}
        tags |= {*found["histograms"], *(tag.removesuffix("/text_summary") for tag in found["tensors"])}
        columns |= {column for sample in records(run_dir / "samples.jsonl") for column in sample["tokens"]}
    # The first update has nothing yet to imitate.
    run_dir = small_run(tmp_path / "imitating", replace(ALGORITHMS["a2c"], imitation_coef=0.5), 2, reward="sentiment")
    logged |= records(run_dir / "metrics.jsonl")[-1].keys()
    assert generic(logged) | tags == page_names("Training")
    assert columns == page_names("Samples")

    result = evaluate_run(tmp_path / "ppo", num_episodes=4)
    names = set(result) - {"gain"} | {f"gain.{name}" for name in result["gain"]}
    assert generic(names) == page_names("Evaluation")
    assert result["greedy"].keys() | result["start"].keys() <= names

    config = SFTConfig("textenvs/Copy-v0", COPY, model_kwargs={"hidden_size": 16, "num_heads": 2}, num_epochs=1)
    logged = {
        name for record in records(sft(config, tmp_path / "sft", quiet=True) / "metrics.jsonl") for name in record
    }
    assert logged == page_names("Warm start")
