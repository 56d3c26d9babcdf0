"""The five rows in the loop: each learns, each switch does what its name says, and what cannot work is refused."""

import dataclasses
import itertools
import json
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small import string_envs, tiny_lm
from test_train import CONFIG, COPY, SMALL, final_hash, metrics_of, run, stop_and_resume

import textenvs
from agents.algorithms import ALGORITHMS, Algorithm
from agents.evaluate import load_run
from agents.lm import LMPolicy
from agents.lora import LoraSettings
from agents.losses import adapted_kl_coef
from agents.policy import RandomPolicy
from agents.rollout import collect
from agents.train import TrainConfig, make_envs, start_policy
from agents.update import accumulate_gradients, make_batch, optimize

PPO = ALGORITHMS["ppo"]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_row_learns(tmp_path, name):
    row = ALGORITHMS[name]
    one_step = {"episodes_per_update": 16, "learning_rate": 3e-3}  # 60 of them
    changes = one_step if row.num_epochs == 1 else {"episodes_per_update": 32, "group_size": min(row.group_size, 4)}
    algorithm = dataclasses.replace(row, **changes)
    config = TrainConfig(
        "textenvs/Copy-v0", COPY, algorithm, num_episodes=960, num_envs=16, seed=1, checkpoint_every=60
    )
    returns = [record["return"] for record in metrics_of(run(tmp_path / name, config))]
    assert np.mean(returns[:2]) < 0.3
    assert np.mean(returns[-4:]) > 0.6


def test_the_critic_is_trained_only_where_it_is_used(tmp_path):
    for name in ALGORITHMS:
        metrics = metrics_of(run(tmp_path / name, dataclasses.replace(CONFIG, algorithm=ALGORITHMS[name])))
        uses = name in ("a2c", "ppo")
        assert ("loss/value" in metrics[0]) == uses == ("check/explained_variance" in metrics[0])
        head = LMPolicy.from_pretrained(tmp_path / name / "final", string_envs().metadata["textgen"]).value_head
        assert bool(head.weight.any()) == uses


def test_group_members_share_their_problem(tmp_path, monkeypatch):
    seen = []

    def spy(*args, **kwargs):
        seen.append(collect(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr("agents.train.collect", spy)
    algorithm = dataclasses.replace(ALGORITHMS["rloo"], group_size=4, episodes_per_update=16)
    run(tmp_path / "run", dataclasses.replace(CONFIG, algorithm=algorithm, num_episodes=32))
    prompts = [info["prompt"] for rollout in seen for info in rollout.infos]
    groups = [set(prompts[i : i + 4]) for i in range(0, 32, 4)]
    assert [len(group) for group in groups] == [1] * 8
    assert len(set.union(*groups)) > 3
    assert np.concatenate([rollout.episodes for rollout in seen]).tolist() == list(range(32))


def test_faults_leave_their_group_smaller():
    """An excluded episode counts neither as a zero nor towards the size of its group."""
    envs = string_envs()
    rollout = collect(envs, tiny_lm(envs), num_episodes=8, seed=0, group_size=4)
    algorithm = dataclasses.replace(ALGORITHMS["rloo"], group_size=4, episodes_per_update=8)
    kept = rollout.select(np.array([0, 1, 3, 4]))
    advantages = make_batch(kept, algorithm).advantages[:, 0].numpy()
    returns = kept.returns
    expected = [returns[i] - np.delete(returns[:3], i).mean() for i in range(3)]
    np.testing.assert_allclose(advantages, [*expected, 0.0], atol=1e-6)


@pytest.mark.parametrize("name", ["rloo", "grpo"])
def test_a_constant_reward_teaches_a_group_nothing(name):
    algorithm = dataclasses.replace(ALGORITHMS[name], entropy_coef=0.0, episodes_per_update=16)
    config = dataclasses.replace(CONFIG, algorithm=algorithm)
    envs = make_envs(config.env_id, 8, config.env_kwargs)
    policy = start_policy(config, envs)
    rollout = collect(envs, policy, num_episodes=16, seed=0, group_size=8)
    rollout.rewards[:] = 0.0
    rollout.rewards[:, 0] = 0.1
    accumulate_gradients(policy, make_batch(rollout, algorithm), np.arange(16), algorithm)
    assert max(parameter.grad.abs().max().item() for parameter in policy.model.parameters()) == 0


def test_an_update_stops_before_the_step_that_strays_too_far():
    envs = string_envs()
    steps = {}
    for target_kl in (None, 1e-3):
        algorithm = Algorithm(target_kl=target_kl, learning_rate=1e-2)
        policy = tiny_lm(envs)
        batch = make_batch(collect(envs, policy, num_episodes=64, seed=0), algorithm)
        optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
        steps[target_kl] = optimize(policy, optimizer, batch, algorithm, seed=0, update=0)
    assert len(steps[None]) == 16
    assert max(step["approx_kl"] for step in steps[None]) > 1.5e-3
    assert 1 <= len(steps[1e-3]) < 16
    assert max(step["approx_kl"] for step in steps[1e-3]) <= 1.5e-3


def test_an_adaptive_kl_coefficient_follows_its_formula_and_survives_resume(tmp_path, monkeypatch):
    algorithm = dataclasses.replace(SMALL, kl_coef=0.1, kl_target=1e-4, kl_horizon=100.0, learning_rate=1e-2)
    config = dataclasses.replace(CONFIG, algorithm=algorithm)
    metrics = metrics_of(run(tmp_path / "straight", config))
    for before, after in itertools.pairwise(metrics):
        kl, count = before["kl_per_episode"], before["episodes"] - (before["update"] - 1) * 16
        expected = adapted_kl_coef(before["kl_coef"], kl, num_episodes=count, target=1e-4, horizon=100.0)
        assert after["kl_coef"] == pytest.approx(expected)
    assert metrics[-1]["kl_coef"] > metrics[1]["kl_coef"]
    assert metrics_of(stop_and_resume(tmp_path / "resumed", config, monkeypatch)) == metrics


@pytest.mark.parametrize("penalty", ["k2_loss", "k3_loss"])
def test_a_strong_kl_in_the_loss_keeps_the_policy_at_its_start(tmp_path, penalty):
    kls = []
    for kl_coef in (1e-9, 10.0):
        algorithm = dataclasses.replace(SMALL, kl_coef=kl_coef, kl_penalty=penalty, learning_rate=3e-3)
        config = dataclasses.replace(CONFIG, algorithm=algorithm, num_episodes=160)
        metrics = metrics_of(run(tmp_path / str(kl_coef), config))
        assert metrics[-1]["loss/kl"] > 0
        kls.append(metrics[-1]["kl_per_episode"])
    assert kls[1] < kls[0] / 3


class Tree(textenvs.Task):
    """One prompt and an arbitrary score for each of the 15 responses of at most 3 tokens over two letters."""

    vocab = textenvs.CharVocab("ab")
    max_prompt_tokens, max_new_tokens = 1, 3

    def __init__(self, *, split: str = "all") -> None:
        self.scores = dict(zip(responses(), np.random.default_rng(5).uniform(0, 1, 15), strict=True))
        self.reward = textenvs.FunctionReward(lambda problem, text: float(self.scores[text]))

    def __len__(self) -> int:
        return 1

    def __getitem__(self, k: int) -> textenvs.Problem:
        return textenvs.Problem("a")


def responses() -> list[str]:
    return ["".join(letters) for n in range(4) for letters in itertools.product("ab", repeat=n)]


def exact_distribution(policy: LMPolicy) -> np.ndarray:
    """(15,) probability of each response, by feeding every one of them through the update's forward."""
    template = collect(tree_envs(), tiny_lm(tree_envs()), num_episodes=400, seed=0)
    first = {info["response"]: i for i, info in enumerate(template.infos)}
    rows = np.array([first[response] for response in responses()])
    with torch.no_grad():
        return policy.evaluate(template, rows)[0].sum(1).double().exp().numpy()


def tree_envs(num_envs: int = 32):
    return make_envs("Tree-v0", num_envs, {})


@pytest.fixture
def tree_id():
    textenvs.register_envs([textenvs.Entry("Tree-v0", "tests", {"task": Tree()})])
    yield
    del gym.registry["Tree-v0"]


@pytest.mark.parametrize("name", ["ppo", "rloo"])
def test_the_kl_regularised_optimum_is_reached_from_below(tmp_path, tree_id, name):
    """V* = beta log E_ref[exp(R / beta)], enumerated; E_pi[R] - beta KL(pi, ref) must come within 2 % and not pass."""
    beta = 0.1
    algorithm = dataclasses.replace(
        ALGORITHMS[name], entropy_coef=0.0, kl_coef=beta, episodes_per_update=128, learning_rate=3e-3, gae_lambda=1.0
    )
    config = TrainConfig(
        "Tree-v0",
        {},
        algorithm,
        model_kwargs={"hidden_size": 16, "num_heads": 2},
        num_episodes=6400,
        checkpoint_every=50,
    )
    run(tmp_path / "run", config)
    scores = np.array([Tree().scores[response] for response in responses()])
    ref = exact_distribution(start_policy(config, tree_envs()))
    pi = exact_distribution(LMPolicy.from_pretrained(tmp_path / "run/final", tree_envs().metadata["textgen"]))
    assert ref.sum() == pytest.approx(1, abs=1e-5)
    assert pi.sum() == pytest.approx(1, abs=1e-5)
    optimum = beta * math.log(ref @ np.exp(scores / beta))
    start, reached = ref @ scores, pi @ (scores - beta * np.log(pi / ref))
    assert start < 0.9 * optimum
    assert 0.98 * optimum <= reached <= optimum + 1e-6


def trained_return(run_dir, monkeypatch, seed, change):
    """Mean return of fresh episodes of a policy whose training rewards were changed."""

    def changed(*args, **kwargs):
        rollout = collect(*args, **kwargs)
        returns, ends = rollout.returns, rollout.lengths - 1
        rollout.rewards[:] = 0
        rollout.rewards[np.arange(len(rollout)), ends] = change(returns, int(rollout.episodes[0]))
        return rollout

    monkeypatch.setattr("agents.train.collect", changed)
    config = TrainConfig("textenvs/Copy-v0", COPY, num_episodes=768, seed=seed)
    run(run_dir, config)
    policy = LMPolicy.from_pretrained(run_dir / "final", string_envs().metadata["textgen"])
    return collect(string_envs(num_envs=64), policy, num_episodes=512, seed=9).returns.mean()


def test_a_flipped_reward_is_minimised(tmp_path, monkeypatch):
    flipped = trained_return(tmp_path / "run", monkeypatch, 0, lambda returns, _: -returns)
    start = start_policy(TrainConfig("textenvs/Copy-v0", COPY), string_envs())
    assert flipped < collect(string_envs(num_envs=64), start, num_episodes=512, seed=9).returns.mean() / 3


@pytest.mark.slow
def test_shuffled_rewards_teach_nothing(tmp_path, monkeypatch):
    """Over 10 runs the mean return ends within two standard errors of a random policy's."""
    means = [
        trained_return(
            tmp_path / str(seed), monkeypatch, seed,
            lambda returns, first, seed=seed: np.random.default_rng([seed, first]).permutation(returns),
        )
        for seed in range(10)
    ]  # fmt: skip
    random = [
        collect(string_envs(num_envs=64), RandomPolicy(6), num_episodes=512, seed=seed).returns.mean()
        for seed in range(10)
    ]
    standard_error = math.hypot(np.std(means, ddof=1), np.std(random, ddof=1)) / math.sqrt(10)
    print(f"shuffled {np.mean(means):.3f}, random {np.mean(random):.3f}, standard error {standard_error:.3f}")
    assert abs(np.mean(means) - np.mean(random)) < 2 * standard_error


@pytest.mark.parametrize(
    ("num_minibatches", "what"), [(1, "log-probabilities must move"), (2, "gradient must be finite")]
)
def test_divergence_stops_before_anything_is_saved(tmp_path, num_minibatches, what):
    algorithm = dataclasses.replace(SMALL, learning_rate=1e30, num_epochs=1, num_minibatches=num_minibatches)
    with pytest.raises(RuntimeError, match=f"diverged: .*{what}.*there is no checkpoint yet; lower"):
        run(tmp_path / "run", dataclasses.replace(CONFIG, algorithm=algorithm))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_divergence_names_the_last_good_checkpoint(tmp_path, monkeypatch):
    def collect_then_poison(*args, **kwargs):
        rollout = collect(*args, **kwargs)
        rollout.rewards[rollout.episodes >= 32] = np.nan
        return rollout

    monkeypatch.setattr("agents.train.collect", collect_then_poison)
    with pytest.raises(RuntimeError, match=r"diverged: the gradient .* good checkpoint is .*step_000002; "):
        run(tmp_path / "run")
    policy = start_policy(CONFIG, string_envs())
    policy.load(tmp_path / "run" / "checkpoints" / "step_000002" / "policy")
    assert all(torch.isfinite(parameter).all() for parameter in policy.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kl_target": 0.0, "kl_coef": 0.1}, "kl_target must be positive and finite, got 0.0"),
        ({"kl_target": 1.0}, "kl_coef must be above 0 for kl_target"),
        ({"target_kl": 0.0}, "target_kl must be positive"),
        ({"baseline": "leave_one_out"}, "group_size must be at least 2 for 'leave_one_out', got 1"),
        ({"baseline": "group_mean", "group_size": 8, "gamma": 0.9}, "gamma must be 1 for 'group_mean'"),
        ({"credit": "to_go"}, "credit must be left out for baseline 'critic', got 'to_go'"),
        (
            {"kl_target": 1.0, "kl_coef": 0.1, "kl_horizon": 10.0},
            "kl_horizon must be above the 64 episodes of an update",
        ),
        ({"baseline": "none", "fit_value_bias": True}, "fit_value_bias must be left out for baseline 'none'"),
        ({"fit_value_bias": 1}, "fit_value_bias must be True or False, got 1"),
        ({"normalize": "group"}, "normalize must be 'none' or 'batch' for baseline 'critic'"),
        ({"group_size": 6}, "episodes_per_update must be a multiple of group_size=6, got 64"),
        ({"group_size": 8, "learning_starts": 100}, "learning_starts must be a multiple of group_size=8, got 100"),
        ({"learning_starts": -64}, "learning_starts must be an integer of at least 0, got -64"),
        ({"learning_starts": 0.5}, "learning_starts must be an integer of at least 0, got 0.5"),
        (
            {"kl_target": 1.0, "kl_coef": 0.1, "kl_horizon": 100.0, "learning_starts": 128},
            "kl_horizon must be above the 128 episodes of an update",
        ),
        ({"baseline": "mean"}, "baseline must be one of none, critic, leave_one_out, group_mean, got 'mean'"),
        ({"num_epochs": 1.5}, "num_epochs must be an integer"),
        ({"clip_range": "0.2"}, "clip_range must be positive"),
    ],
)
def test_choices_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PPO, **changes)


@pytest.mark.parametrize(
    ("learning_starts", "num_episodes", "ends"), [(24, 60, [24, 40, 56, 60]), (24, 20, [20]), (16, 33, [16, 32, 33])]
)
def test_learning_starts_after_so_many_episodes_and_none_is_left_out(tmp_path, learning_starts, num_episodes, ends):
    algorithm = dataclasses.replace(SMALL, learning_starts=learning_starts)
    config = dataclasses.replace(CONFIG, algorithm=algorithm, num_episodes=num_episodes)
    sampled = []
    run_dir = run(tmp_path / "run", config, on_update=lambda rollout: sampled.append(rollout.episodes) is None)
    assert np.concatenate(sampled).tolist() == list(range(num_episodes))
    metrics = metrics_of(run_dir)
    assert [record["episodes"] for record in metrics] == ends
    rates = [SMALL.learning_rate * (1 - i / len(ends)) for i in range(len(ends))]
    assert [record["learning_rate"] for record in metrics] == pytest.approx(rates)


def test_learning_that_starts_late_resumes_exactly(tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, algorithm=dataclasses.replace(SMALL, learning_starts=24))
    straight, resumed = run(tmp_path / "straight", config), stop_and_resume(tmp_path / "resumed", config, monkeypatch)
    assert metrics_of(resumed) == metrics_of(straight)
    assert final_hash(resumed) == final_hash(straight)


def test_learning_that_starts_within_the_first_update_changes_nothing(tmp_path):
    early = dataclasses.replace(CONFIG, algorithm=dataclasses.replace(SMALL, learning_starts=8))
    assert final_hash(run(tmp_path / "1")) == final_hash(run(tmp_path / "2", early))


def test_a_config_says_every_choice(tmp_path):
    run_dir = run(tmp_path / "run", dataclasses.replace(CONFIG, num_episodes=16))
    settings = json.loads((run_dir / "config.json").read_text())
    assert settings["algorithm"] == dataclasses.asdict(SMALL)


def test_a_run_with_adapters_leaves_adapters_and_resumes_exactly(tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, lora=LoraSettings(rank=2))
    straight = run(tmp_path / "straight", config)
    final = load_file(straight / "final" / "adapter_model.safetensors")
    assert not (straight / "final" / "model.safetensors").exists()
    assert any(tensor.any() for name, tensor in final.items() if "lora_B" in name)
    resumed = stop_and_resume(tmp_path / "resumed", config, monkeypatch)
    assert metrics_of(resumed) == metrics_of(straight)
    again = load_file(resumed / "final" / "adapter_model.safetensors")
    assert all(torch.equal(final[name], again[name]) for name in final)
    evaluated = load_run(straight)
    assert evaluated.config == config
    envs = string_envs()
    policy, reference = evaluated.policy(envs), evaluated.reference(envs)
    rollout = collect(envs, policy, num_episodes=8, seed=0)
    rows = np.arange(8)
    assert not torch.equal(policy.evaluate(rollout, rows)[0], reference.evaluate(rollout, rows)[0])
    with pytest.raises(ValueError, match="lora must be None and temperature 1 for an mlp"):
        run(tmp_path / "mlp", dataclasses.replace(config, model="mlp"))
