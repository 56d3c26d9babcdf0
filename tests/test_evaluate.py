"""evaluate: each number against its definition; held-out problems; no episode of training again."""

import dataclasses
import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from small import Ragged, ragged_envs, string_envs, tiny_lm

import textenvs
from agents.evaluate import evaluate, reference_rollout
from agents.held_out import held_out_envs
from agents.policy import OraclePolicy, RandomPolicy
from agents.rollout import collect
from agents.sft import perplexity
from agents.text_metrics import best_of, best_of_kl, distinct_n, summarise


def test_the_oracle_is_perfect_and_chance_is_not():
    envs = string_envs("Sort")
    result, _ = evaluate(OraclePolicy(envs), envs, num_episodes=20, seed=0)
    assert (result["mean_return"], result["stderr"], result["success_rate"]) == (1.0, 0.0, 1.0)
    assert result["mean_length"] == 3.0
    assert result["part/position_match"] == 1.0
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
    kls = [float((p - q).sum()) for p, q in rows]
    assert result["kl_per_episode_stderr"] == pytest.approx(np.std(kls, ddof=1) / 4, rel=1e-4)
    assert result["sample_perplexity"] == pytest.approx(np.exp(-np.concatenate([q for _, q in rows]).mean()), rel=1e-4)
    for k in (1, 2, 3):
        grams = [tuple(rollout.actions[i, t : t + k]) for i, n in enumerate(rollout.lengths) for t in range(n - k + 1)]
        assert result[f"distinct_{k}"] == len(set(grams)) / len(grams)
    assert distinct_n(rollout, 100) == 0
    for name, values in {
        "stderr": rollout.returns,
        "mean_length_stderr": rollout.lengths,
        "success_rate_stderr": [info["is_success"] for info in rollout.infos],
    }.items():
        assert result[name] == pytest.approx(np.std(values, ddof=1) / 4), name
    one = summarise(rollout.select(np.array([0])), reference=reference)
    assert {value for name, value in one.items() if name.endswith("stderr")} == {None}
    itself, _ = evaluate(policy, envs, num_episodes=16, seed=0, reference=policy.frozen_copy())
    assert abs(itself["kl_per_episode"]) < 1e-4
    assert json.loads(json.dumps(result)) == result


def test_a_uniform_policy_has_the_perplexity_of_its_number_of_tokens():
    envs = string_envs()
    uniform = tiny_lm(envs)
    torch.nn.init.zeros_(uniform.model.get_output_embeddings().weight)
    result, rollout = evaluate(uniform, envs, num_episodes=16, seed=0, reference=uniform.frozen_copy())
    assert result["sample_perplexity"] == pytest.approx(6, rel=1e-5)
    assert perplexity(uniform, reference_rollout(envs.unwrapped.rules, rollout)) == pytest.approx(6, rel=1e-5)


def test_the_perplexity_of_references_is_that_of_a_forward_each():
    """Brute force: prompt and demonstration of each problem played go through the model one by one, without padding."""
    envs = string_envs("Sort")
    policy, rules = tiny_lm(envs, init_std=0.3), envs.unwrapped.rules
    rollout = collect(envs, policy, num_episodes=12, seed=0)
    nats = []
    for prompt in {info["prompt"] for info in rollout.infos}:
        prompt_ids = rules.vocab.encode(prompt).tolist()
        ids = [*prompt_ids, *rules.vocab.encode("".join(sorted(prompt[:-1]))).tolist(), rules.vocab.eos_id]
        log_probs = policy.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        nats += [-log_probs[t - 1, ids[t]].item() for t in range(len(prompt_ids), len(ids))]
    assert len(nats) < 12 * 3  # a problem that is played twice counts once
    assert perplexity(policy, reference_rollout(rules, rollout)) == pytest.approx(np.exp(np.mean(nats)), rel=1e-5)
    ragged = ragged_envs(4)
    unreferenced = collect(ragged, RandomPolicy(9), num_episodes=4, seed=0)
    assert reference_rollout(ragged.unwrapped.rules, unreferenced) is None


def test_a_reference_against_the_masks_is_left_out_with_a_warning():
    class Forbidden(Ragged):
        def __getitem__(self, k):
            return textenvs.Problem(super().__getitem__(k).prompt, ("ae",) if k else ("a",))

    envs = gym.make_vec("TextGen-v0", num_envs=2, autoreset_mode="Disabled", task=Forbidden())
    rollout = collect(envs, RandomPolicy(9), num_episodes=1, seed=0)
    rollout.infos[0]["problem"] = 0
    assert len(reference_rollout(envs.unwrapped.rules, rollout)) == 1
    rollout.infos[0]["problem"] = 1
    with pytest.warns(UserWarning, match="reference of problem 1 left out: response must keep to the env's masks"):
        assert reference_rollout(envs.unwrapped.rules, rollout) is None


def test_padding_changes_no_number():
    envs = ragged_envs(4)
    rollout = collect(envs, tiny_lm(envs, init_std=0.3), num_episodes=8, seed=0)
    wider = {}
    for name in ("actions", "mask", "positions", "legal", "log_probs", "values", "rewards"):
        column = getattr(rollout, name)
        junk = np.full((8, 3, *column.shape[2:]), name in ("actions", "positions"), column.dtype)
        wider[name] = np.concatenate([column, junk if column.dtype == bool else junk * 7], 1)
    wider["mask"][:, -3:] = wider["rewards"][:, -3:] = 0
    wider["log_probs"][:, -3:] = np.nan
    reference = tiny_lm(envs, seed=1)
    padded = summarise(dataclasses.replace(rollout, **wider), reference=reference)
    assert padded == pytest.approx(summarise(rollout, reference=reference), rel=1e-6)


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
    result = summarise(rollout)
    assert result["part/position_match"] == pytest.approx(np.mean(rest))
    assert result["part/position_match_stderr"] == pytest.approx(np.std(rest, ddof=1) / 3)
    for info in rollout.infos[1:]:
        del info["position_match"]
    assert "part/position_match" not in summarise(rollout)


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


def test_held_out_problems_are_not_those_of_training():
    def prompts(envs):
        return {info["prompt"] for info in collect(envs, RandomPolicy(10), num_episodes=100, seed=0).infos}

    kwargs = {"length": 4, "alphabet": "abcdefgh"}
    held_out = prompts(held_out_envs("textenvs/Copy-v0", kwargs, 50)[0])
    assert not held_out & prompts(held_out_envs("textenvs/Copy-v0", kwargs | {"split": "train"}, 50)[0])
