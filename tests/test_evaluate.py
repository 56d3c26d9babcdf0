"""evaluate: each number against its definition; held-out problems; runs read back."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from small import ragged_envs, string_envs, tiny_lm

from agents.algorithms import Algorithm
from agents.evaluate import best_of, best_of_kl, distinct_2, evaluate, evaluate_run, held_out_envs, load_run, summarise
from agents.policy import OraclePolicy, RandomPolicy
from agents.rollout import collect
from agents.train import TrainConfig, train

COPY = {"length": 2, "alphabet": "abcd", "dense": True}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    config = TrainConfig(
        env_id="textenvs/Copy-v0",
        env_kwargs=COPY,
        algorithm=Algorithm(episodes_per_update=16),
        model_kwargs={"hidden_size": 16, "num_heads": 2},
        num_episodes=32,
    )
    return train(config, tmp_path_factory.mktemp("runs") / "run", quiet=True)


def test_the_oracle_is_perfect_and_chance_is_not():
    envs = string_envs("Sort")
    result, _ = evaluate(OraclePolicy(envs), envs, num_episodes=20, seed=0)
    assert (result["mean_return"], result["stderr"], result["success_rate"]) == (1.0, 0.0, 1.0)
    assert result["mean_length"] == 3.0
    assert result["position_match"] == 1.0
    chance, _ = evaluate(RandomPolicy(6), envs, num_episodes=200, seed=0)
    assert 0.05 < chance["mean_return"] < 0.25
    assert 0 < chance["stderr"] < 0.03


def test_numbers_against_their_definitions():
    envs = ragged_envs(4)
    policy, reference = tiny_lm(envs, init_std=0.3), tiny_lm(envs, init_std=0.3, seed=1)
    result, rollout = evaluate(policy, envs, num_episodes=16, seed=0, reference=reference)
    ref = reference.evaluate(rollout, np.arange(16))[0].detach().numpy()
    rows = [(rollout.log_probs[i, :n], ref[i, :n]) for i, n in enumerate(rollout.lengths)]
    assert result["kl_per_episode"] == pytest.approx(np.mean([(p - q).sum() for p, q in rows]), rel=1e-4)
    assert result["perplexity"] == pytest.approx(np.exp(-np.concatenate([q for _, q in rows]).mean()), rel=1e-4)
    bigrams = [tuple(rollout.actions[i, t : t + 2]) for i, n in enumerate(rollout.lengths) for t in range(n - 1)]
    assert result["distinct_2"] == len(set(bigrams)) / len(bigrams)
    assert result["stderr"] == pytest.approx(np.std(rollout.returns, ddof=1) / 4)
    itself, _ = evaluate(policy, envs, num_episodes=16, seed=0, reference=policy.frozen_copy())
    assert abs(itself["kl_per_episode"]) < 1e-4
    assert json.loads(json.dumps(result)) == result


def test_failed_scores_are_left_out_and_counted():
    rollout = collect(string_envs(), RandomPolicy(6), num_episodes=10, seed=0)
    expected = summarise(rollout.select(np.arange(1, 10)))
    rollout.infos[0]["status"], rollout.rewards[0] = "infra_fault", 1e9
    assert summarise(rollout) == expected | {"excluded_episodes": 1}
    for info in rollout.infos:
        info["status"] = "infra_fault"
    with pytest.raises(RuntimeError, match="all 10 failed"):
        summarise(rollout)


def test_episodes_cut_by_a_time_limit_have_no_parts():
    rollout = collect(string_envs("Sort"), RandomPolicy(6), num_episodes=10, seed=0)
    rest = [info["position_match"] for info in rollout.infos[1:]]
    del rollout.infos[0]["position_match"]
    assert summarise(rollout)["position_match"] == pytest.approx(np.mean(rest))
    for info in rollout.infos[1:]:
        del info["position_match"]
    assert "position_match" not in summarise(rollout)


def test_a_run_under_a_time_limit_is_evaluated(tmp_path):
    config = TrainConfig(
        env_id="textenvs/Copy-v0",
        env_kwargs=COPY | {"max_episode_steps": 1},
        algorithm=Algorithm(episodes_per_update=16),
        model_kwargs={"hidden_size": 16, "num_heads": 2},
        num_episodes=16,
    )
    train(config, tmp_path / "run", quiet=True)
    assert evaluate_run(tmp_path / "run", num_episodes=16)["mean_length"] == 1


@pytest.mark.parametrize("group_size", [1, 8])
def test_evaluation_never_repeats_an_episode_of_training(group_size):
    envs = string_envs(length=30)
    training = collect(envs, RandomPolicy(6), num_episodes=64, seed=3, group_size=group_size)
    _, held_out = evaluate(RandomPolicy(6), envs, num_episodes=64, seed=3, group_size=group_size)
    prompts, others = ({info["prompt"] for info in rollout.infos} for rollout in (training, held_out))
    assert len(prompts) == len(others) == 64 // group_size
    assert not prompts & others
    draws, others = ({tuple(row) for row in rollout.actions[:, :4]} for rollout in (training, held_out))
    assert draws != others


def test_best_of_keeps_the_best_of_each_group():
    envs = string_envs()
    _, rollout = evaluate(RandomPolicy(6), envs, num_episodes=32, seed=0, group_size=8)
    best = best_of(rollout, 8)
    assert best.returns.tolist() == rollout.returns.reshape(4, 8).max(1).tolist()
    prompts = [info["prompt"] for info in rollout.infos]
    assert [info["prompt"] for info in best.infos] == prompts[::8]
    assert all(len(set(prompts[i : i + 8])) == 1 for i in range(0, 32, 8))
    assert best_of_kl(1) == 0
    assert best_of_kl(8) == pytest.approx(np.log(8) - 7 / 8)
    assert 0 < distinct_2(rollout) <= 1


def test_held_out_problems_are_not_those_of_training(run_dir):
    def prompts(envs):
        return {info["prompt"] for info in collect(envs, RandomPolicy(10), num_episodes=100, seed=0).infos}

    kwargs = {"length": 4, "alphabet": "abcdefgh"}
    held_out = prompts(held_out_envs("textenvs/Copy-v0", kwargs, 50)[0])
    assert not held_out & prompts(held_out_envs("textenvs/Copy-v0", kwargs | {"split": "train"}, 50)[0])


def test_a_run_is_read_back(run_dir, tmp_path):
    result = evaluate_run(run_dir, num_episodes=24, seed=1, samples=tmp_path / "samples.jsonl")
    assert result["num_episodes"] == 24
    assert result["kl_per_episode"] != 0
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == list(range(24))
    assert np.mean([line["value"] for line in lines]) == pytest.approx(result["mean_return"])
    again = evaluate_run(run_dir, num_episodes=24, seed=1)
    assert {**again, "tokens_per_second": 0} == {**result, "tokens_per_second": 0}
    greedy = evaluate_run(run_dir, num_episodes=24, seed=1, greedy=True)
    assert "kl_per_episode" not in greedy
    run = load_run(run_dir)
    assert dataclasses.asdict(run.config)["env_kwargs"] == COPY


def test_what_is_no_finished_run_is_refused(run_dir, tmp_path):
    with pytest.raises(ValueError, match=r"which has no config\.json"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json in .* must be what train wrote"):
        load_run(tmp_path)
    shutil.copy(run_dir / "config.json", tmp_path)
    with pytest.raises(ValueError, match="which has no final/"):
        load_run(tmp_path)
    with pytest.raises(ValueError, match="num_episodes must be at least 1"):
        evaluate_run(run_dir, num_episodes=0)
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        evaluate_run(run_dir, seed=-1)
    with pytest.raises(ValueError, match="vocab_sha256 must be the env's"):
        evaluate_run(run_dir, env_kwargs={"length": 2, "alphabet": "abcx"}, num_episodes=4)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "value_head.safetensors", "textenvs.json"])
def test_a_half_written_run_is_refused(run_dir, tmp_path, name):
    shutil.copytree(run_dir, tmp_path / "run")
    (tmp_path / "run" / "final" / name).unlink()
    with pytest.raises(ValueError, match=f"which has no final/{name}; train with --resume"):
        load_run(tmp_path / "run")


def test_samples_that_cannot_be_written_fail_before_the_evaluation(run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("agents.evaluate.evaluate", lambda *_, **__: pytest.fail("evaluated first"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        evaluate_run(run_dir, num_episodes=4, samples=tmp_path / "nowhere" / "samples.jsonl")
