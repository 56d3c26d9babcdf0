"""The held-out judge: what it reads, which rewards have one, and the warning that a reward is pleased alone."""

import dataclasses
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from small import string_envs

import textenvs
from agents.algorithms import Algorithm
from agents.evaluate import evaluate_run
from agents.judge import JUDGES, find_judge, gain, judge_scores, reward_hacking
from agents.policy import RandomPolicy
from agents.rollout import Rollout, collect
from agents.train import TrainConfig, train

COPY = {"length": 2, "alphabet": "abcd", "dense": True}


def words(texts: list[str], **kwargs) -> tuple[textenvs.Rules, Rollout]:
    """Episodes of the sentiment task whose responses are the given texts."""
    envs = gym.make_vec("TextGen-v0", num_envs=1, autoreset_mode="Disabled", prompts=["The food"], **kwargs)
    vocab = envs.unwrapped.rules.vocab
    ids = [[*vocab.encode(text).tolist(), vocab.eos_id] for text in texts]

    class Writer(RandomPolicy):
        def act(self, *args, **kwargs):
            decisions = super().act(*args, **kwargs)
            decisions.actions[0] = ids[0].pop(0)
            if not ids[0]:
                ids.pop(0)
            return decisions

    return envs.unwrapped.rules, collect(envs, Writer(vocab.num_tokens), num_episodes=len(texts), seed=0)


def test_the_judge_reads_what_the_reward_read():
    texts = [" was great", " was awful and cold", ""]
    rules, rollout = words(texts)
    assert find_judge(rollout) == JUDGES["sentiment"] == "vader"
    judge = textenvs.as_reward("vader")
    expected = judge.score_texts(["The food" + text for text in texts])
    np.testing.assert_array_equal(judge_scores(judge, rules, rollout), expected)
    assert expected[0] > 0.5 > expected[1]
    np.testing.assert_array_equal(judge_scores(rules.reward, rules, rollout), rollout.returns)
    rollout.infos[1]["status"] = "infra_fault"
    del rollout.infos[2]["problem"]  # as a time limit leaves it
    np.testing.assert_array_equal(judge_scores(judge, rules, rollout), [expected[0], np.nan, np.nan])
    stacked = dataclasses.replace(rollout, observations=rollout.actions[..., None])
    assert judge_scores(judge, rules, stacked)[0] == expected[0]


def test_which_rewards_have_a_judge():
    sentiment, vader = textenvs.as_reward("sentiment"), textenvs.as_reward("vader")
    for reward, judge in (
        (sentiment, "vader"),
        (0.5 * sentiment + 0.5 * textenvs.LengthMatch(), "vader"),
        (sentiment + vader, None),  # it was trained on
        ("exact_match", None),
    ):
        envs = string_envs(reward=reward, dense=False)
        assert find_judge(collect(envs, RandomPolicy(6), num_episodes=2, seed=0)) == judge


def test_the_warning_comes_exactly_when_the_reward_rises_and_the_judge_falls():
    rng = np.random.default_rng(0)
    before = rng.normal(size=(2, 50))
    noise = rng.normal(size=(2, 50)) * 0.1
    for up in (-1, 0, 1):
        for judged in (-1, 0, 1):
            shift = np.array([[up], [judged]]) * 0.5
            after = before + shift + noise - noise.mean(1, keepdims=True)
            gains = [gain(*pair) for pair in zip(after, before, strict=True)]
            for (mean, error), exact, sample in zip(gains, shift[:, 0], after - before, strict=True):
                assert mean == pytest.approx(exact, abs=1e-12)
                assert error == pytest.approx(np.std(sample, ddof=1) / np.sqrt(50))
            assert (reward_hacking(*gains) is not None) == (up == 1 and judged == -1)
    # Two standard errors decide, on each side.
    assert reward_hacking((0.21, 0.1), (-0.21, 0.1)) is not None
    assert reward_hacking((0.19, 0.1), (-0.21, 0.1)) is None
    assert reward_hacking((0.21, 0.1), (-0.19, 0.1)) is None
    # One episode has no standard error.
    assert reward_hacking((0.9, None), (-0.9, None)) is None
    assert reward_hacking((0.9, 0.1), (-0.9, None)) is None


class Letter(textenvs.Reward):
    """Share of one symbol."""

    def __init__(self, name, symbol):
        self.name, self.symbol = name, symbol

    def __call__(self, problems, responses):
        values = np.array([text.count(self.symbol) / 2 for text in responses.texts])
        return textenvs.Scores(values, {self.name: values})


@pytest.mark.parametrize(("judge", "fires"), [("up", False), ("down", True)])
def test_a_run_that_pleases_its_reward_alone_is_warned_of(tmp_path, monkeypatch, judge, fires):
    """The policy learns to write "a" by a reward that counts it; one judge counts it too, the other counts "b"."""
    learned = f"{__name__}:learned"
    monkeypatch.setitem(textenvs.REWARDS, "learned", learned)
    monkeypatch.setitem(textenvs.REWARDS, "up", f"{__name__}:up")
    monkeypatch.setitem(textenvs.REWARDS, "down", f"{__name__}:down")
    for name, symbol in (("learned", "a"), ("up", "a"), ("down", "b")):
        monkeypatch.setattr(sys.modules[__name__], name, lambda n=name, s=symbol: Letter(n, s), raising=False)
    monkeypatch.setitem(JUDGES, "learned", judge)
    config = TrainConfig(
        env_id="textenvs/Copy-v0",
        env_kwargs=COPY | {"alphabet": "abc", "split": "all", "reward": "learned"},
        algorithm=Algorithm(episodes_per_update=64, learning_rate=1e-2),
        model_kwargs={"hidden_size": 16, "num_heads": 2},
        num_episodes=256,
    )
    run = train(config, tmp_path / "run", quiet=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = evaluate_run(run, num_episodes=64)
    assert result["gain"]["mean_return"] > 0.3
    assert (result["gain"]["judge"] > 0.3) != fires
    assert (result["judge_name"], len(result["warnings"])) == (judge, int(fires))
    assert [str(warning.message) for warning in caught] == result["warnings"]
    assert result["gain"]["judge"] == pytest.approx(result["judge"] - result["start"]["judge"])
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert evaluate_run(run, num_episodes=8, judge="up")["judge_name"] == "up"


def test_a_judge_that_is_not_installed_is_left_out_with_the_remedy(tmp_path, monkeypatch):
    config = TrainConfig(
        env_id="textenvs/Copy-v0",
        env_kwargs=COPY | {"reward": "sentiment", "dense": False},
        algorithm=Algorithm(episodes_per_update=16, num_epochs=1, num_minibatches=1),
        model_kwargs={"hidden_size": 16, "num_heads": 2},
        num_episodes=16,
    )
    run = train(config, tmp_path / "run", quiet=True)
    assert evaluate_run(run, num_episodes=4)["judge_name"] == "vader"
    textenvs.rewards.classifiers._vader.cache_clear()
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.warns(UserWarning, match=r'not held against a judge: .* pip install "textenvs\[rewards\]"'):
        result = evaluate_run(run, num_episodes=4)
    assert result["judge_name"] is None
    assert "judge" not in result
    with pytest.raises(ValueError, match="did you mean 'vader'"):
        evaluate_run(run, judge="vadr")
