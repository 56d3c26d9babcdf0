"""The mutation table is true of the tree, and tests of what only a mutant had shown to be untested."""

import ast
import dataclasses
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import ragged_envs, string_envs, tiny_lm
from test_train import metrics_of

import agents.train
from agents.algorithms import ALGORITHMS, Algorithm
from agents.lm import LMPolicy
from agents.losses import adapted_kl_coef, clipped_surrogate, value_loss
from agents.mlp import MLPPolicy
from agents.rollout import collect
from agents.train import TrainConfig, start_policy, train
from agents.update import make_batch, optimize

ROOT = Path(__file__).parents[1]
CONFIG = TrainConfig(
    "textenvs/Copy-v0",
    {"length": 2, "alphabet": "abcd", "dense": True},
    Algorithm(episodes_per_update=16, num_epochs=1, num_minibatches=1, kl_coef=0.01),
    model_kwargs={"hidden_size": 16, "num_heads": 2},
    num_episodes=48,
)


# ------------------------------------------------------------------------------------------------------------ the table


def test_every_mutant_is_one_place_of_the_tree_and_names_a_test_that_exists(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    tools = runpy.run_path(str(ROOT / "benchmarks" / "mutations.py"))
    mutants = [tools["SANITY"], *tools["MUTANTS"]]
    assert len({mutant.name for mutant in mutants}) == len(mutants)
    for mutant in mutants:
        patched = tools["patch"]((ROOT / mutant.file).read_text(encoding="utf-8"), mutant)
        if mutant.file.endswith(".py"):  # others are of the report's page
            ast.parse(patched)
        assert mutant.old != mutant.new
    for item in tools["IMPOSSIBLE"]:
        assert (ROOT / item.file).read_text(encoding="utf-8").count(item.line) == 1, item.name
    for test in {*tools["LEARNING"], *(mutant.test for mutant in mutants)}:
        file, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / "tests" / file).read_text(encoding="utf-8"), test


# ----------------------------------------------------------------------------------------------- what mutants had shown


def test_temperature_divides_the_logits_and_the_reference_has_it():
    envs = ragged_envs(1)
    policy = tiny_lm(envs, temperature=2.0, init_std=0.5)
    rollout = collect(envs, policy, num_episodes=3, seed=0)
    tokens = torch.from_numpy(rollout.observations[0][rollout.observations[0] != 9])[None]
    t = int(rollout.lengths[0]) - 1
    before = rollout.positions[0, t] - int((rollout.observations[0] != 9).argmax()) - 1
    logits = (
        policy.model(tokens).logits[0, before].detach().masked_fill(~torch.from_numpy(rollout.legal[0, t]), -np.inf)
    )
    expected = torch.log_softmax(logits / 2, -1)[rollout.actions[0, t]]
    for scored in (policy, policy.frozen_copy()):
        torch.testing.assert_close(scored.evaluate(rollout, np.arange(3))[0][0, t].detach(), expected)


@pytest.mark.parametrize("model", ["scratch", "saved"])
def test_a_run_has_its_temperature(tmp_path, model):
    envs = string_envs()
    tiny_lm(envs).save(tmp_path / "saved")
    kwargs = CONFIG.model_kwargs if model == "scratch" else {}
    name = str(tmp_path / model) if model == "saved" else model
    config = dataclasses.replace(CONFIG, model=name, model_kwargs=kwargs, temperature=0.5)
    assert start_policy(config, envs).temperature == 0.5


def test_the_perceptrons_update_keeps_to_the_masks():
    envs = ragged_envs(4, observation="onehot")
    policy = MLPPolicy.from_spaces(envs.single_observation_space, envs.single_action_space, seed=0)
    rollout = collect(envs, policy, num_episodes=12, seed=0)
    assert not rollout.legal[rollout.mask].all()
    log_probs, _, entropies = (x.detach().numpy() for x in policy.evaluate(rollout, np.arange(12)))
    np.testing.assert_allclose(log_probs, rollout.log_probs, atol=1e-6)
    assert (entropies[rollout.mask] <= np.log(rollout.legal[rollout.mask].sum(1)) + 1e-6).all()


def test_every_token_of_a_large_vocabulary_is_sampled():
    """60 tokens, nearly equally likely: nothing is left out, not even the 51st of a row."""
    alphabet = "".join(chr(ord("A") + i) for i in range(58) if chr(ord("A") + i) != "=")
    envs = string_envs("Copy", num_envs=1, alphabet=alphabet)
    policy = tiny_lm(envs, init_std=0.02)
    num_tokens = policy.num_tokens
    assert num_tokens > 55
    many = np.repeat(envs.reset(seed=0)[0], 3000, 0)
    decisions = policy.act(many, np.arange(3000), None, [np.random.default_rng(i) for i in range(3000)])
    assert len(set(decisions.actions)) == num_tokens


class Zero:
    """A generator whose uniforms are the smallest there are."""

    def random(self, size: int | None = None) -> Any:
        return 0.0 if size is None else np.zeros(size)


def test_a_uniform_of_zero_never_gives_a_forbidden_token():
    legal = np.array([[False, False, True, True, False, False]])
    for envs in (string_envs(num_envs=1), string_envs(num_envs=1, observation="onehot")):
        observations = envs.reset(seed=0)[0]
        spaces = envs.single_observation_space, envs.single_action_space
        policy = tiny_lm(envs) if observations.dtype == np.int64 else MLPPolicy.from_spaces(*spaces, seed=0)
        decisions = policy.act(observations, np.arange(1), legal, [Zero()])
        assert decisions.actions[0] == 2
        assert np.isfinite(decisions.log_probs).all()


def test_the_value_of_a_cut_state_is_a_return():
    envs = ragged_envs(3, max_episode_steps=4)
    policy = tiny_lm(envs)
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(0))
    rollout = collect(envs, policy, num_episodes=12, seed=0)
    cut = np.flatnonzero(rollout.truncated)
    last = rollout.lengths[cut] - 1
    batch = make_batch(rollout, dataclasses.replace(ALGORITHMS["a2c"], gamma=0.9))
    assert np.abs(rollout.bootstrap_values[cut]).min() > 0.01
    expected = rollout.rewards[cut, last] + 0.9 * rollout.bootstrap_values[cut]
    np.testing.assert_allclose(batch.returns.numpy()[cut, last], expected, atol=1e-5)


def test_no_gradient_flows_through_the_numbers_an_update_learns_from():
    envs = ragged_envs(3)
    policy = tiny_lm(envs)
    rollout = collect(envs, policy, num_episodes=6, seed=0)
    ref_log_probs = policy.evaluate(rollout, np.arange(6))[0]
    assert ref_log_probs.requires_grad
    batch = make_batch(rollout, Algorithm(kl_coef=0.1), ref_log_probs)
    assert not any(x.requires_grad for x in vars(batch).values() if isinstance(x, torch.Tensor))


def test_losses_differentiate_what_learns_and_nothing_else():
    """Even of targets that carry a graph, such as advantages of the critic that learns."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(8, 8, generator=generator, requires_grad=True) for _ in range(3)]
    mask, weights = torch.ones(8, 8, dtype=torch.bool), torch.ones(8, 8)
    for loss in (clipped_surrogate, value_loss):
        total = loss(*inputs, mask, weights, clip_range=0.2)
        gradients = torch.autograd.grad(total, inputs, materialize_grads=True)
        assert [bool(gradient.any()) for gradient in gradients] == [True, False, False]


def test_logged_kl_is_nats_an_episode(tmp_path, monkeypatch):
    batches = []

    def spy(*args, **kwargs):
        batches.append(make_batch(*args, **kwargs))
        return batches[-1]

    monkeypatch.setattr(agents.train, "make_batch", spy)
    metrics = metrics_of(train(CONFIG, tmp_path / "run", quiet=True))
    for record, batch in zip(metrics[1:], batches[1:], strict=True):
        expected = batch.kl.numpy()[batch.rollout.mask].sum() / len(batch.rollout)
        assert abs(expected) > 1e-4
        assert record["kl_per_episode"] == pytest.approx(expected, rel=1e-3)


def test_each_step_starts_without_the_gradient_of_the_last():
    """A learning rate of 0 leaves the policy where it is, so two steps on the same rows have the same gradient."""
    envs = string_envs()
    policy, algorithm = tiny_lm(envs), Algorithm(num_epochs=2, num_minibatches=1, max_grad_norm=100.0)
    batch = make_batch(collect(envs, policy, num_episodes=16, seed=0), algorithm)
    steps = optimize(policy, torch.optim.SGD(policy.parameters(), lr=0.0), batch, algorithm, seed=0, update=0)
    assert steps[0]["grad_norm"] > 0.01
    assert steps[1]["grad_norm"] == pytest.approx(steps[0]["grad_norm"], rel=1e-4)


def test_the_optimizer_has_the_learning_rate_that_is_logged(tmp_path, monkeypatch):
    rates = []

    def spy(policy, optimizer, *args, **kwargs):
        rates.append([group["lr"] for group in optimizer.param_groups])
        return optimize(policy, optimizer, *args, **kwargs)

    monkeypatch.setattr(agents.train, "optimize", spy)
    train(CONFIG, tmp_path / "run", quiet=True)
    assert rates == [[pytest.approx(1e-3 * (1 - update / 3))] for update in range(3)]


def test_a_ratio_that_is_not_one_before_the_first_step_is_warned_of(tmp_path, monkeypatch):
    def collect_something_else(*args, **kwargs):
        rollout = collect(*args, **kwargs)
        rollout.log_probs[rollout.mask] -= 1e-3
        return rollout

    monkeypatch.setattr(agents.train, "collect", collect_something_else)
    with pytest.warns(UserWarning, match="the first ratio must be within 0.0001 of 1, got 1 [+] 0.001"):
        train(dataclasses.replace(CONFIG, num_episodes=16), tmp_path / "run", quiet=True)
    assert metrics_of(tmp_path / "run")[0]["check/ratio_error"] == pytest.approx(1e-3, rel=1e-2)


def test_the_checks_of_the_start_measure_the_way_to_the_reference(tmp_path, monkeypatch):
    """A reference that is another policy: both checks are off, by what the two policies themselves say."""
    policy, other = (start_policy(dataclasses.replace(CONFIG, seed=seed), string_envs()) for seed in (0, 1))
    rollouts = []

    def spy(*args, **kwargs):
        rollouts.append(collect(*args, **kwargs))
        return rollouts[-1]

    monkeypatch.setattr(LMPolicy, "frozen_copy", lambda _: other)
    monkeypatch.setattr(agents.train, "collect", spy)
    train(dataclasses.replace(CONFIG, num_episodes=16), tmp_path / "run", quiet=True)
    scored = [x.evaluate(rollouts[0], np.arange(16))[0].detach().numpy() for x in (policy, other)]
    gaps = np.abs(scored[0] - scored[1])[rollouts[0].mask]
    metrics = metrics_of(tmp_path / "run")[0]
    assert gaps.mean() > 0.01
    assert metrics["check/start_kl_same_forward"] == pytest.approx(gaps.sum(), rel=1e-4)
    assert metrics["check/start_kl_per_token"] == pytest.approx(gaps.mean(), rel=1e-3)


def test_the_adaptive_kl_coefficient_counts_the_episodes_that_are_learnt_from(tmp_path, monkeypatch):
    def collect_with_faults(*args, **kwargs):
        rollout = collect(*args, **kwargs)
        for info in rollout.infos[:5]:
            info["status"] = "infra_fault"
        return rollout

    monkeypatch.setattr(agents.train, "collect", collect_with_faults)
    algorithm = dataclasses.replace(CONFIG.algorithm, kl_coef=0.1, kl_target=1.0, kl_horizon=100.0)
    config = dataclasses.replace(CONFIG, algorithm=algorithm, num_episodes=32)
    before, after = metrics_of(train(config, tmp_path / "run", quiet=True))
    assert before["check/excluded_episodes"] == 5
    expected = adapted_kl_coef(0.1, before["kl_per_episode"], num_episodes=11, target=1.0, horizon=100.0)
    assert (before["kl_coef"], after["kl_coef"]) == (0.1, pytest.approx(expected))
    assert expected == pytest.approx(0.1 * (1 - 0.2 * 11 / 100))
