"""evaluate: each number against its definition; held-out problems; runs read back; the judge and its warning."""

import dataclasses
import json
import shutil
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from small import Ragged, ragged_envs, string_envs, tiny_lm

import textenvs
from agents.algorithms import Algorithm
from agents.checkpoint import parameter_hash
from agents.evaluate import evaluate, evaluate_run, held_out_envs, load_run, reference_rollout, result_table
from agents.judge import JUDGES, find_judge, gain, judge_scores, reward_hacking
from agents.lm import LMPolicy
from agents.lora import LoraSettings
from agents.policy import OraclePolicy, RandomPolicy
from agents.rollout import Rollout, collect
from agents.sft import perplexity
from agents.text_metrics import best_of, best_of_kl, distinct_n, summarise
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


def test_held_out_problems_are_not_those_of_training(run_dir):
    def prompts(envs):
        return {info["prompt"] for info in collect(envs, RandomPolicy(10), num_episodes=100, seed=0).infos}

    kwargs = {"length": 4, "alphabet": "abcdefgh"}
    held_out = prompts(held_out_envs("textenvs/Copy-v0", kwargs, 50)[0])
    assert not held_out & prompts(held_out_envs("textenvs/Copy-v0", kwargs | {"split": "train"}, 50)[0])


def test_a_run_is_read_back(run_dir, tmp_path):
    result = evaluate_run(run_dir, num_episodes=24, seed=1, samples=tmp_path / "samples.jsonl")
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert (result["split"], result["seeds"]) == ("heldout", {"training": 0, "evaluation": 1})
    assert result["config"]["env_kwargs"] == COPY
    assert result["versions"]["torch"] == torch.__version__
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == list(range(24))
    assert np.mean([line["value"] for line in lines]) == pytest.approx(result["mean_return"])
    run = load_run(run_dir)
    envs, _ = held_out_envs(run.env_id, run.env_kwargs, 24)
    policy, start = run.policy(envs), run.reference(envs)
    rollouts = {}
    for block, who, greedy in (
        (result, policy, False),
        (result["greedy"], policy, True),
        (result["start"], start, False),
    ):
        numbers, rollout = evaluate(who, envs, num_episodes=24, seed=1, reference=start, greedy=greedy)
        del numbers["tokens_per_second"]
        assert {name: block[name] for name in numbers} == numbers
        rollouts[id(block)] = rollout
    assert result["kl_per_episode"] != 0
    assert result["start"]["kl_per_episode"] == pytest.approx(0, abs=1e-5)
    assert "kl_per_episode" not in result["greedy"]
    after, before = (rollouts[id(block)] for block in (result, result["start"]))
    assert [info["prompt"] for info in after.infos] == [info["prompt"] for info in before.infos]
    left = json.loads((run_dir / "evaluation.json").read_text())
    pairs = left.pop("pairs")
    assert left == result
    assert [pair["prompt"] for pair in pairs] == [info["prompt"] for info in after.infos]
    for side, rollout in (("before", before), ("after", after)):
        assert [pair[side]["response"] for pair in pairs] == [info["response"] for info in rollout.infos]
        assert [pair[side]["return"] for pair in pairs] == rollout.returns.tolist()
        assert {pair[side]["judge"] for pair in pairs} == {None}
    references = reference_rollout(envs.unwrapped.rules, after)
    assert result["reference_perplexity"] == pytest.approx(perplexity(policy, references))
    assert result["start"]["reference_perplexity"] == pytest.approx(perplexity(start, references))
    differences = after.returns - before.returns
    assert result["gain"] == pytest.approx(
        {"mean_return": differences.mean(), "mean_return_stderr": differences.std(ddof=1) / np.sqrt(24)}
    )
    assert (result["judge_name"], result["warnings"]) == (None, [])
    assert dataclasses.asdict(run.config)["env_kwargs"] == COPY
    table = result_table(result, "x")
    assert "no held-out judge" in table.caption


def test_a_control_run_is_evaluated(tmp_path):
    algorithm = Algorithm(episodes_per_update=4, num_epochs=1, num_minibatches=1)
    config = TrainConfig("CartPole-v1", algorithm=algorithm, model="mlp", num_episodes=4, num_envs=4)
    result = evaluate_run(train(config, tmp_path / "run", quiet=True), num_episodes=3)
    assert result["split"] == "train"
    assert result["mean_return"] == result["mean_length"] > 1
    assert result["kl_per_episode_stderr"] > 0
    assert not {"success_rate", "distinct_1", "sample_perplexity", "reference_perplexity", "judge"} & result.keys()
    with pytest.raises(
        ValueError, match="judge must be None for an env without texts, got 'vader' on CartPole-v1; leave"
    ):
        evaluate_run(tmp_path / "run", num_episodes=3, judge="vader")
    for kwargs in (COPY, COPY | {"observation": "onehot"}):
        with pytest.raises(
            ValueError, match=r"^env must have the spaces that the run's mlp .*; evaluate on CartPole-v1$"
        ):
            evaluate_run(tmp_path / "run", env_id="textenvs/Copy-v0", env_kwargs=kwargs, num_episodes=3)


def test_the_start_is_that_of_training_on_any_env(tmp_path, run_dir):
    """A new model has as many positions as its env has tokens, so its random weights follow the env."""
    adapter = dataclasses.replace(load_run(run_dir).config, lora=LoraSettings(rank=1), num_episodes=16)
    shorter = COPY | {"length": 1, "split": "all"}
    for path in (run_dir, train(adapter, tmp_path / "run", quiet=True)):
        run = load_run(path)
        for kwargs in (COPY, shorter):
            envs, _ = held_out_envs("textenvs/Copy-v0", kwargs, 4)
            assert parameter_hash(run.reference(envs)) == run.state["reference"]
        result = evaluate_run(path, env_kwargs=shorter, num_episodes=4)
        assert abs(result["start"]["kl_per_episode"]) < 1e-5
        assert result["mean_length"] <= 2
        with pytest.raises(ValueError, match="vocab_sha256"):
            evaluate_run(path, env_kwargs=COPY | {"alphabet": "abcx"}, num_episodes=4)
        with pytest.raises(ValueError, match=r"env must be a text environment .* got CartPole-v1; see"):
            evaluate_run(path, env_id="CartPole-v1", num_episodes=4)


def test_a_start_that_changed_since_is_refused(tmp_path, run_dir):
    """A comparison with other weights than training started from would say nothing."""
    model = tmp_path / "model"
    tiny_lm(string_envs(), seed=0).save(model)
    config = dataclasses.replace(load_run(run_dir).config, model=str(model), model_kwargs={}, num_episodes=16)
    run = train(config, tmp_path / "run", quiet=True)
    assert evaluate_run(run, num_episodes=4)["start"]["num_episodes"] == 4
    tiny_lm(string_envs(), seed=1).save(model)
    with pytest.raises(
        ValueError, match=r"^model must be what the run in .* started from, got other weights.*restore it"
    ):
        evaluate_run(run, num_episodes=4)
    shutil.rmtree(run / "checkpoints")  # then nobody knows
    assert evaluate_run(run, num_episodes=4)["start"]["num_episodes"] == 4


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


def test_an_adapters_run_is_read_back(run_dir, tmp_path):
    """`final` of a LoRA run holds an adapter, not a model."""
    run = shutil.copytree(run_dir, tmp_path / "run")
    envs, _ = held_out_envs("textenvs/Copy-v0", COPY, 4)
    policy = LMPolicy.from_pretrained(run_dir / "final", envs.metadata["textgen"])
    policy.add_lora(LoraSettings(rank=1), seed=0)
    shutil.rmtree(run / "final")
    policy.save(run / "final")
    assert evaluate_run(run, num_episodes=4)["kl_per_episode"] != 0
    (run / "final" / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match=r"which has no final/adapter_config\.json"):
        load_run(run)


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
