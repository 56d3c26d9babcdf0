"""The warm start: its loss is of the responses alone, its perplexity counts legal tokens, its best weights are kept."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import Ragged, ragged_envs, string_envs, tiny_lm

import textenvs
from agents.lm import LMPolicy
from agents.policy import OraclePolicy
from agents.responses import as_rollout, demonstrations, play_back
from agents.rollout import Rollout, collect
from agents.sft import SFTConfig, accumulate_gradients, fit, kept_epoch, perplexity, sft

COPY = SFTConfig("textenvs/Copy-v0", {"length": 2, "alphabet": "abcd", "split": "all"}, num_epochs=3)
WALK = SFTConfig("textenvs/RandomWalk-v0", num_epochs=2)


def ragged_responses(num: int = 14) -> tuple[Any, Rollout]:
    """Responses of 1 to 9 decisions to prompts of 1 to 16 tokens, some with a reply inside, under masks."""
    envs = ragged_envs(1)
    rules, rng, episodes = envs.unwrapped.rules, np.random.default_rng(0), []
    for k in range(num):
        start, token_ids = rules.start(k % 5), []
        for t in range(int(rng.integers(1, 10))):  # mid-response "d" (id 3) ends a turn, and the reply is "ab"
            token_ids.append(int(rng.choice([0, 1, 2, 3, 6 - t % 2])))
        try:
            episodes.append(play_back(rules, start, token_ids))
        except ValueError:  # a reply shifted the mask that depends on the position
            episodes.append(play_back(rules, start, [3, 0, 3]))
    return envs, as_rollout(episodes, has_masks=True)


def gradients(policy: LMPolicy, rollout: Rollout, **kwargs: Any) -> tuple[float, list[torch.Tensor]]:
    policy.zero_grad()
    loss = accumulate_gradients(policy, rollout, np.arange(len(rollout)), **kwargs)
    return loss, [parameter.grad.clone() for parameter in policy.model.parameters()]


def lines(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


# ----------------------------------------------------------------------------------------------------- what is laid out


@pytest.mark.parametrize("name", ["Copy", "Sort", "RandomWalk"])
def test_a_demonstration_is_laid_out_as_the_env_plays_it(name: str) -> None:
    if name == "RandomWalk":
        envs = gym.make_vec("textenvs/RandomWalk-v0", num_envs=8, autoreset_mode="Disabled")
    else:
        envs = string_envs(name, split="all")
    rules = envs.unwrapped.rules
    played = collect(envs, OraclePolicy(envs), num_episodes=40, seed=0)
    laid_out = as_rollout(demonstrations(rules, 10_000), has_masks=rules.metadata["has_masks"])
    assert len(laid_out) == len(rules.task)
    ours = laid_out.select(np.array([info["problem"] for info in played.infos]))
    width = played.mask.shape[1]
    for column in ("mask", "actions", "positions", "legal"):
        one, two = getattr(ours, column), getattr(played, column)
        assert (one is None) == (two is None)
        if one is not None:
            np.testing.assert_array_equal(one[:, :width], two)
            assert not one[:, width:].any()
    np.testing.assert_array_equal(ours.observations, played.observations)


def test_replies_and_prompts_are_laid_out_but_not_chosen() -> None:
    rules = ragged_envs(1).unwrapped.rules
    episode = play_back(rules, rules.start(1), [0, 3, 2, 8])  # "a", "d", then the reply "ab", then "c" and the end
    assert rules.vocab.decode(episode.row[13:16]) == "bcd"
    assert episode.row[16:22].tolist() == [0, 3, 0, 1, 2, 8]
    assert episode.positions == [16, 17, 20, 21]


def test_a_response_ends_with_its_episode() -> None:
    rules = textenvs.Rules("copy", length=2)
    assert play_back(rules, rules.start(0), [0, 1, 2, 3, 4]).actions == [0, 1, 2]
    end = rules.vocab.eos_id
    assert play_back(rules, rules.start(0), [0, end, 2]).actions == [0, end]


# ------------------------------------------------------------------------------------------------------------- the loss


def test_the_loss_is_the_cross_entropy_of_responses_as_transformers_computes_it() -> None:
    """Labels of -100 on prompt and reply are how the library leaves tokens out of its own loss."""
    envs = ragged_envs(1)
    rules, policy = envs.unwrapped.rules, tiny_lm(envs, init_std=0.5)
    episodes = [play_back(rules, rules.start(k), ids) for k, ids in enumerate([[0, 3, 2, 8], [8], [1, 1, 1, 8]])]
    ours, our_gradients = gradients(policy, as_rollout(episodes, has_masks=False))
    total, count = torch.zeros(()), 0
    for episode in episodes:
        present = episode.row != rules.num_tokens
        labels = np.full(episode.row.shape, -100)
        labels[episode.positions] = episode.actions
        ids, labels = torch.from_numpy(episode.row[present])[None], torch.from_numpy(labels[present])[None]
        n = len(episode.actions)
        total, count = total + policy.model(ids, labels=labels).loss * n, count + n
    assert ours == pytest.approx((total / count).item(), rel=1e-5)
    policy.zero_grad()
    (total / count).backward()
    for one, parameter in zip(our_gradients, policy.model.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, atol=1e-6, rtol=1e-4)


def test_masks_renormalise_the_likelihood() -> None:
    """Over the legal tokens only: what the mask forbids gets no gradient, and a forced token costs nothing."""
    envs = gym.make_vec("textenvs/RandomWalk-v0", num_envs=1, autoreset_mode="Disabled")
    policy, rules = tiny_lm(envs, init_std=0.5), envs.unwrapped.rules
    rollout = as_rollout([play_back(rules, rules.start(1), [4, 14, 0, 21])], has_masks=True)
    loss, _ = gradients(policy, rollout)
    with torch.no_grad():
        logits = policy.model(torch.tensor([[2, 4, 14, 0]])).logits[0]
    expected = 0.0
    for node, (token, row) in zip([2, 4, 14], zip([4, 14, 0], logits, strict=False), strict=True):
        legal = np.flatnonzero(rules.task.edges[node])
        expected -= (row[token] - row[legal].logsumexp(0)).item() / 4
    assert loss == pytest.approx(expected, rel=1e-5)


def test_poison_outside_the_decisions_changes_nothing() -> None:
    envs, rollout = ragged_responses()
    policy, outside = tiny_lm(envs), ~rollout.mask
    assert outside.sum() > 20
    clean_loss, clean = gradients(policy, rollout)
    clean_perplexity = perplexity(policy, rollout)
    rollout.actions[outside], rollout.positions[outside], rollout.legal[outside] = -(10**6), 10**6, False
    for column in (rollout.log_probs, rollout.values, rollout.rewards, rollout.bootstrap_values):
        column[:] = np.nan
    loss, dirty = gradients(policy, rollout)
    assert loss == clean_loss
    assert perplexity(policy, rollout) == clean_perplexity
    assert all(torch.equal(one, two) for one, two in zip(clean, dirty, strict=True))


def test_logits_of_the_prompt_carry_no_gradient() -> None:
    """The head sees the positions before decisions and no other."""
    envs, rollout = ragged_responses()
    policy, seen = tiny_lm(envs), []
    policy.model.get_output_embeddings().register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[0]))
    gradients(policy, rollout)
    assert sum(seen) == rollout.mask.sum()


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_gradients_do_not_depend_on_micro_batches(architecture: str) -> None:
    envs, rollout = ragged_responses()
    policy = tiny_lm(envs, architecture)
    whole, expected = gradients(policy, rollout)
    for max_tokens in (1, 60):
        loss, actual = gradients(policy, rollout, max_tokens=max_tokens)
        assert loss == pytest.approx(whole, rel=1e-5)
        for one, two in zip(actual, expected, strict=True):
            torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-4)


def test_the_perplexity_of_a_uniform_model_is_the_number_of_legal_tokens() -> None:
    """Ragged allows 7 of 9 tokens everywhere; without masks it is all 9."""
    envs, rollout = ragged_responses()
    policy = tiny_lm(envs)
    torch.nn.init.zeros_(policy.model.get_output_embeddings().weight)
    assert rollout.legal is not None
    assert set(rollout.legal.sum(-1)[rollout.mask]) == {7}
    assert perplexity(policy, rollout) == pytest.approx(7, rel=1e-6)
    assert perplexity(policy, replace(rollout, legal=None)) == pytest.approx(9, rel=1e-6)


# ------------------------------------------------------------------------------------------------------------- the loop


def test_early_stop_restores_the_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The held-out perplexity is scripted: best in epoch 2, patience 2, so epoch 4 is the last and 2 is kept."""
    envs, rollout = ragged_responses()
    policy = tiny_lm(envs)
    measured: list[dict[str, torch.Tensor]] = []
    script = [9.0, 8.0, 7.0, 7.5, 7.0]

    def scripted(policy: LMPolicy, heldout: Rollout) -> float:
        measured.append({name: tensor.clone() for name, tensor in policy.state_dict().items()})
        return script[len(measured) - 1]

    monkeypatch.setattr("agents.sft.perplexity", scripted)
    fit(policy, rollout, replace(COPY, num_epochs=20), tmp_path / "metrics.jsonl", quiet=True)
    assert [line["heldout_perplexity"] for line in lines(tmp_path)] == script
    for name, tensor in policy.state_dict().items():
        assert torch.equal(tensor, measured[2][name])
    assert any(not torch.equal(measured[2][name], measured[4][name]) for name in measured[2])
    assert kept_epoch(tmp_path) == "kept epoch 2 of 4, held-out perplexity 7.000; 7.000 after the last"


def test_the_heldout_part_is_never_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    envs, rollout = ragged_responses()
    rollout.infos[:] = [{"number": i} for i in range(14)]
    trained: list[int] = []
    held_out: set[int] = set()
    original = accumulate_gradients

    def spy(policy: LMPolicy, rollout: Rollout, rows: np.ndarray) -> float:
        trained.extend(rows.tolist())
        return original(policy, rollout, rows)

    def spy_heldout(policy: LMPolicy, heldout: Rollout) -> float:
        held_out.update(info["number"] for info in heldout.infos)
        return perplexity(policy, heldout)

    monkeypatch.setattr("agents.sft.accumulate_gradients", spy)
    monkeypatch.setattr("agents.sft.perplexity", spy_heldout)
    config = replace(COPY, num_epochs=2, batch_size=4, heldout_fraction=0.3, patience=9)
    fit(tiny_lm(envs), rollout, config, tmp_path / "metrics.jsonl", quiet=True)
    assert len(held_out) == 4
    assert not held_out & set(trained)
    assert sorted(trained[:10]) == sorted(trained[10:]) == sorted(set(range(14)) - held_out)
    assert trained[:10] != trained[10:]


def test_same_seed_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    runs = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(ord(name))
        run_dir = sft(replace(COPY, seed=seed), tmp_path / name, quiet=True)
        weights = load_file(run_dir / "final/model.safetensors")
        measured = [{k: v for k, v in line.items() if "second" not in k} for line in lines(run_dir)]
        runs[name] = (weights, measured)
    for key, tensor in runs["a"][0].items():
        assert torch.equal(tensor, runs["b"][0][key])
    assert runs["a"][1] == runs["b"][1] != runs["c"][1]


def test_it_learns_and_train_starts_from_it(tmp_path: Path) -> None:
    """Copying two of four symbols is learnt from 80 % of all 16 problems; PPO starts with these weights."""
    from agents.algorithms import ALGORITHMS
    from agents.train import TrainConfig, train

    config = replace(COPY, num_epochs=60, batch_size=4, patience=60)
    run_dir = sft(config, tmp_path / "sft", quiet=True)
    first, *_, last = lines(run_dir)
    assert first["epoch"] == 0
    assert last["loss"] < 0.1 < 1 < np.log(first["heldout_perplexity"])
    kwargs = {"length": 2, "alphabet": "abcd", "split": "all"}
    algorithm = replace(ALGORITHMS["ppo"], learning_rate=1e-9)
    start = TrainConfig(
        "textenvs/Copy-v0", kwargs, algorithm, model=str(run_dir / "final"), num_episodes=32, num_envs=32
    )
    train(start, tmp_path / "ppo", quiet=True)
    assert lines(tmp_path / "ppo")[0]["return"] > 0.7


# --------------------------------------------------------------------------------------------------------------- errors


def write(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_an_env_without_demonstrations(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"demonstration, got none for problem 0, .* pass --text-file"):
        sft(SFTConfig("TextGen-v0"), tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match="env_id must be a TextGen environment, got 'CartPole-v1'"):
        sft(SFTConfig("CartPole-v1"), tmp_path / "run", quiet=True)
    one = SFTConfig("TextGen-v0", text_file=write(tmp_path / "one.txt", "The food\t was good"))
    with pytest.raises(ValueError, match=r"there must be at least 2 responses, .* got 1"):
        sft(one, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    model = sft(replace(COPY, num_epochs=1), tmp_path / "one", quiet=True) / "final"
    weights = load_file(model / "model.safetensors")
    weights[next(iter(weights))][:] = torch.nan
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="weights must be finite, got NaN"):
        sft(replace(COPY, model=str(model)), tmp_path / "two", quiet=True)
    assert not (tmp_path / "two").exists()


def test_divergence_is_said(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"training must not diverge, got .*nan.*; lower the learning rate"):
        sft(replace(COPY, learning_rate=1e30), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run/final").exists()


def test_a_run_dir_that_is_in_use(tmp_path: Path) -> None:
    write(tmp_path / "file", "x")
    for run_dir in (tmp_path, tmp_path / "file"):
        with pytest.raises(ValueError, match="run_dir must be new or an empty directory"):
            sft(COPY, run_dir, quiet=True)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"num_epochs": 0}, "num_epochs must be at least 1, got 0"),
        ({"max_demonstrations": 1}, "max_demonstrations must be at least 2, got 1"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0 and below inf, got nan"),
        ({"heldout_fraction": 1.0}, "heldout_fraction must be above 0 and below 1.0, got 1.0"),
        ({"model": "mlp"}, "model must be a language model, got 'mlp'"),
    ],
)
def test_settings_outside_their_range(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SFTConfig("textenvs/Copy-v0", **setting)


@pytest.mark.slow
def test_ppo_after_the_warm_start_finds_the_shortest_walks(tmp_path: Path) -> None:
    """The example's bar: from 1,000 random walks to an optimality of 0.95, with and without the mask."""
    example = Path(__file__).parent.parent / "examples/random_walk.py"
    command = [sys.executable, str(example), "--arms", "warm", "masked", "--csv", "rows.csv"]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    assert (tmp_path / "random_walk.png").stat().st_size > 10_000
    with (tmp_path / "rows.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for row in rows:
        assert float(row["warm"]) < 0.5
        assert float(row["after"]) >= 0.95


def test_ragged_covers_what_the_tests_above_rely_on() -> None:
    _, rollout = ragged_responses()
    assert isinstance(Ragged(), textenvs.Task)
    assert len(set(rollout.lengths)) > 3
    gaps = [np.diff(row[used]).max(initial=1) for row, used in zip(rollout.positions, rollout.mask, strict=True)]
    assert max(gaps) == 3, "a reply of two tokens inside some response"
