"""Self-imitation: which earlier episodes are remembered and drawn, their gradient by hand, and their exact resume."""

import json
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small import ragged_envs, string_envs, tiny_lm

import agents.replay
import agents.train
from agents.algorithms import ALGORITHMS, Algorithm
from agents.lm import LMPolicy
from agents.mlp import MLPPolicy
from agents.replay import Replay, join
from agents.rollout import Rollout, collect
from agents.train import TrainConfig, train
from agents.update import accumulate_gradients, make_batch, optimize, with_replay

IMITATING = Algorithm(episodes_per_update=8, num_epochs=1, num_minibatches=2, imitation_coef=0.5, imitated_episodes=4)


def filled(rollout: Rollout, returns: torch.Tensor) -> Replay:
    replay = Replay()
    replay.add(rollout, returns, torch.zeros_like(returns))
    return replay


def random_lm(envs, seed: int = 0) -> LMPolicy:
    policy = tiny_lm(envs, init_std=0.5, seed=seed)
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(seed))
    return policy


def test_only_what_returned_more_than_expected_is_remembered_and_the_oldest_goes(monkeypatch):
    monkeypatch.setattr(agents.replay, "MAX_EPISODES", 3)
    envs = ragged_envs(6)
    rollout = collect(envs, random_lm(envs), num_episodes=6, seed=0)
    mask = torch.from_numpy(rollout.mask)
    expected = torch.full(mask.shape, 0.5)
    returns = torch.where(mask, expected, 9.0)  # what stands outside the mask is nobody's
    replay = Replay()
    replay.add(rollout, returns, expected)
    assert len(replay) == 0
    assert replay.rollout is None
    returns[[0, 2, 3, 5], 0] += torch.tensor([0.25, 1.0, 2.0, 1.0])
    replay.add(rollout, returns, expected)
    assert replay.rollout.episodes.tolist() == [2, 3, 5]
    assert replay.gains.sum(1).tolist() == [1.0, 2.0, 1.0]
    assert not any(replay.rollout.infos)
    replay.add(rollout.select(np.array([0])), returns[:1], expected[:1])
    assert replay.rollout.episodes.tolist() == [3, 5, 0]
    torch.testing.assert_close(replay.returns, returns[[3, 5, 0]])


def test_episodes_are_drawn_by_their_gains_and_never_twice():
    envs = string_envs()
    rollout = collect(envs, tiny_lm(envs), num_episodes=3, seed=0)
    returns = torch.zeros(rollout.mask.shape)
    returns[:, 0] = torch.tensor([1.0, 2.0, 5.0])
    replay, rng = filled(rollout, returns), np.random.default_rng(0)
    drawn = np.concatenate([replay.draw(1, rng) for _ in range(4_000)])
    np.testing.assert_allclose(np.bincount(drawn) / 4_000, [1 / 8, 2 / 8, 5 / 8], atol=0.025)
    assert sorted(replay.draw(7, rng)) == [0, 1, 2]


@pytest.mark.parametrize("baseline", ["none", "critic", "leave_one_out"])
@pytest.mark.parametrize("max_tokens", [2**11, 16])
def test_imitated_episodes_add_their_own_term_and_nothing_else(baseline, max_tokens):
    envs = ragged_envs(6)
    policy, player = random_lm(envs), random_lm(envs, seed=1)
    group = {"baseline": baseline, "group_size": 4} if baseline == "leave_one_out" else {"baseline": baseline}
    algorithm = Algorithm(imitation_coef=0.7, episodes_per_update=8, aggregation="sequence_mean", kl_coef=0.3, **group)
    algorithm = replace(algorithm, kl_penalty="k3_loss")
    earlier = collect(envs, player, num_episodes=8, seed=1)
    returns = make_batch(earlier, algorithm, torch.from_numpy(earlier.log_probs)).returns
    replay = filled(earlier, returns)
    now = collect(envs, policy, num_episodes=8, seed=0)
    batch = make_batch(now, algorithm, player.evaluate(now, np.arange(8))[0])
    own, copies = np.array([0, 3, 5]), np.array([1, 2])

    def gradient(episodes, rows):
        policy.zero_grad()
        metrics = accumulate_gradients(policy, episodes, rows, algorithm, max_tokens=max_tokens)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in policy.parameters()]
        return gradients, metrics

    without, before = gradient(batch, own)
    with_them, after = gradient(with_replay(batch, replay, copies), np.append(own, [8, 9]))
    assert after.pop("loss/imitation") > 0
    assert after == pytest.approx(before, rel=1e-5, abs=1e-6)

    copied = replay.rollout.select(copies)
    log_probs, values, _ = policy.evaluate(copied, np.arange(2))
    mask = torch.from_numpy(copied.mask)
    expected = values.detach() if baseline == "critic" else torch.zeros_like(values)
    gains = torch.where(mask, (replay.returns[copies] - expected).clamp(min=0), 0.0)
    assert (gains > 0).any()
    loss = -0.7 * ((gains * log_probs).sum(1) / mask.sum(1)).mean()
    term = torch.autograd.grad(loss, list(policy.parameters()), allow_unused=True)
    for one, other, extra in zip(with_them, without, term, strict=True):
        torch.testing.assert_close(one, other if extra is None else other + extra, atol=1e-6, rtol=1e-4)


def test_an_update_copies_what_it_draws_of_a_replay_and_no_more(monkeypatch):
    """However many episodes are remembered: two of 64 are imitated in each of two steps."""
    envs = string_envs()
    policy, num_copied = tiny_lm(envs), []
    earlier = collect(envs, policy, num_episodes=64, seed=1)
    replay = filled(earlier, torch.from_numpy(earlier.mask).float())

    def counted(one, other):
        num_copied.append(len(other))
        return join(one, other)

    monkeypatch.setattr("agents.update.join", counted)
    algorithm = replace(IMITATING, imitated_episodes=2, num_epochs=2, num_minibatches=1)
    batch = make_batch(collect(envs, policy, num_episodes=8, seed=0), algorithm)
    steps = optimize(
        policy, torch.optim.SGD(policy.parameters(), lr=0.1), batch, algorithm, seed=0, update=0, replay=replay
    )
    assert ["loss/imitation" in step for step in steps] == [True, True]
    assert len(num_copied) == 1
    assert 2 <= num_copied[0] <= 4


def test_the_penalty_of_a_token_that_became_impossible_since_is_nobodys():
    """The exp of 100 nats is infinite in float32, and 0 times that is NaN in the backward pass."""
    envs = string_envs()
    policy = tiny_lm(envs)
    algorithm = replace(IMITATING, baseline="none", kl_coef=0.3, kl_penalty="k3_loss")
    earlier, now = (collect(envs, policy, num_episodes=8, seed=seed) for seed in (1, 0))
    earlier = replace(earlier, log_probs=earlier.log_probs + np.float32(100))
    batch = make_batch(now, algorithm, torch.from_numpy(now.log_probs))
    replay = filled(earlier, torch.from_numpy(earlier.mask).float())
    step = accumulate_gradients(policy, with_replay(batch, replay, np.arange(8)), np.array([0, 1, 8, 9]), algorithm)
    assert step["loss/kl"] == pytest.approx(0.0, abs=1e-6)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in policy.parameters())


def test_an_update_imitates_what_came_before_it_and_then_remembers_its_own(monkeypatch):
    envs = string_envs()
    policy, replay = tiny_lm(envs), Replay()
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    seen = []

    def accumulate(policy, batch, rows, algorithm):
        seen.append((batch.rollout.episodes[rows[:4]].tolist(), batch.rollout.episodes[rows[4:]].tolist()))
        return accumulate_gradients(policy, batch, rows, algorithm)

    monkeypatch.setattr("agents.update.accumulate_gradients", accumulate)
    for update in range(2):
        rollout = collect(envs, policy, num_episodes=8, seed=0, first_episode=8 * update)
        returns = np.ones(rollout.mask.shape) * rollout.mask
        batch = make_batch(replace(rollout, rewards=returns), IMITATING)
        optimize(policy, optimizer, batch, IMITATING, seed=0, update=update, replay=replay)
    assert [len(copies) for _, copies in seen] == [0, 0, 4, 4]
    assert {number for own, _ in seen[2:] for number in own} == set(range(8, 16))
    assert {number for _, copies in seen for number in copies} <= set(range(8))
    assert replay.rollout.episodes.tolist() == list(range(16))


@pytest.mark.parametrize("kind", ["prefixes", "stacked"])
def test_a_replay_of_episodes_of_all_lengths_survives_its_tensors(kind):
    if kind == "prefixes":
        envs = ragged_envs(6)
        policy = random_lm(envs)
    else:
        envs = gym.make_vec("CartPole-v1", 4, "sync", vector_kwargs={"autoreset_mode": "Disabled"})
        policy = MLPPolicy.from_spaces(envs.single_observation_space, envs.single_action_space, seed=0)
    rollouts = [collect(envs, policy, num_episodes=4, seed=0, first_episode=4 * i) for i in range(3)]
    replay, again = Replay(), Replay()
    again.load(replay.tensors())
    assert len(again) == 0
    for rollout in rollouts:
        replay.add(rollout, torch.ones(rollout.mask.shape), torch.zeros(rollout.mask.shape))
    again.load(replay.tensors())
    together = join(join(rollouts[0], rollouts[1]), rollouts[2])
    assert len({rollout.mask.shape[1] for rollout in rollouts}) > 1
    for found in (replay.rollout, again.rollout, together):
        for i, rollout in enumerate(rollouts):
            got = policy.evaluate(found, np.arange(4 * i, 4 * i + 4))
            for one, other in zip(got, policy.evaluate(rollout, np.arange(4)), strict=True):
                torch.testing.assert_close(one[:, : other.shape[1]], other)
                assert not one[:, other.shape[1] :].any()
    torch.testing.assert_close(again.gains, replay.gains)
    torch.testing.assert_close(again.returns, replay.returns)


def test_resuming_with_imitation_equals_the_straight_run_bit_for_bit(tmp_path, monkeypatch):
    config = TrainConfig(
        "textenvs/Copy-v0",
        {"length": 2, "alphabet": "abcd", "dense": True},
        algorithm=replace(IMITATING, baseline="none", normalize="none"),
        model_kwargs={"hidden_size": 16, "num_heads": 2},
        num_episodes=32,
        num_envs=8,
    )
    straight = train(config, tmp_path / "straight", quiet=True)
    calls = []

    def collect_or_stop(*args, **kwargs):
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return collect(*args, **kwargs)

    monkeypatch.setattr(agents.train, "collect", collect_or_stop)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "broken", quiet=True)
    monkeypatch.setattr(agents.train, "collect", collect)
    resumed = train(config, tmp_path / "broken", quiet=True, resume=True)
    weights = [load_file(path / "final" / "model.safetensors") for path in (straight, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    lines = [json.loads(line) for line in (resumed / "metrics.jsonl").read_text().splitlines()]
    assert ["loss/imitation" in line for line in lines] == [False, True, True, True]
    assert (straight / "checkpoints" / "step_000004" / "replay.safetensors").is_file()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found.pop("gains"), "'gains'"),
        (lambda found: found.pop("actions"), "'actions'"),
        (lambda found: found.update(more=torch.zeros(8)), "'more'"),
        (lambda found: found.update(rewards=torch.zeros(3, 2)), r"numbers of episodes .*'rewards': \(3,\)"),
    ],
)
def test_tensors_of_something_else_are_one_sentence(change, said):
    earlier = collect(string_envs(), tiny_lm(string_envs()), num_episodes=8, seed=0)
    found = filled(earlier, torch.from_numpy(earlier.mask).float()).tensors()
    change(found)
    replay = Replay()
    with pytest.raises(ValueError, match=f"replay must hold columns of episodes, .*{said}.*; restore the checkpoint"):
        replay.load(found)
    assert len(replay) == 0


def test_a_rare_success_is_learnt_from_its_copies_alone():
    """One rewarded episode, in the first update: without imitation no later update knows of it."""
    envs = string_envs()
    hits = {}
    for coef in (0.0, 1.0):
        policy, replay = tiny_lm(envs), Replay()
        optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
        algorithm = replace(IMITATING, baseline="none", normalize="none", imitation_coef=coef, entropy_coef=0.0)
        first = collect(envs, policy, num_episodes=8, seed=0)
        rewards = np.zeros(first.mask.shape)
        rewards[3, 0] = 1.0
        for update in range(20):
            rollout = first if update == 0 else collect(envs, policy, num_episodes=8, seed=update)
            earned = rewards if update == 0 else np.zeros(rollout.mask.shape)
            batch = make_batch(replace(rollout, rewards=earned), algorithm)
            optimize(policy, optimizer, batch, algorithm, seed=0, update=update, replay=replay if coef else None)
        hits[coef] = policy.evaluate(first, np.array([3]))[0][0, 0].exp().item()
    assert hits[0.0] < 0.75 < 0.95 < hits[1.0]


def test_imitation_is_off_unless_asked_for():
    assert all(row.imitation_coef == 0 for row in ALGORITHMS.values())
    with pytest.raises(ValueError, match="imitation_coef must be finite and not negative"):
        Algorithm(imitation_coef=-1.0)
    with pytest.raises(ValueError, match="imitated_episodes must be an integer of at least 1"):
        Algorithm(imitated_episodes=0)
