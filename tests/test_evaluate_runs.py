"""Runs read back for evaluation, each with the start of its training; what is no finished run is refused."""

import dataclasses
import json
import shutil

import gymnasium as gym
import numpy as np
import pytest
import torch
from small import string_envs, tiny_lm

import textenvs
from agents import cli
from agents.algorithms import Algorithm
from agents.checkpoint import parameter_hash
from agents.evaluate import evaluate, evaluate_run, load_run, reference_rollout, result_table
from agents.held_out import held_out_envs
from agents.lm import LMPolicy
from agents.lora import LoraSettings
from agents.report.write import markdown_report
from agents.sft import perplexity
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
    with pytest.raises(ValueError, match=f"which has no final/{name}; finish it by the command that trained it, with"):
        load_run(tmp_path / "run")


def test_samples_that_cannot_be_written_fail_before_the_evaluation(run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("agents.evaluate.evaluate", lambda *_, **__: pytest.fail("evaluated first"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        evaluate_run(run_dir, num_episodes=4, samples=tmp_path / "nowhere" / "samples.jsonl")


def test_an_mlp_of_another_width_is_told_how_to_be_of_one(tmp_path):
    onehot = COPY | {"observation": "onehot"}
    algorithm = Algorithm(episodes_per_update=4, num_epochs=1, num_minibatches=1)
    config = TrainConfig("textenvs/Copy-v0", onehot, algorithm=algorithm, model="mlp", num_episodes=4, num_envs=4)
    run = train(config, tmp_path / "run", quiet=True)
    with pytest.raises(
        ValueError, match=r"evaluate on textenvs/Copy-v0, or give both the same max_prompt_tokens and max_"
    ):
        evaluate_run(run, env_kwargs=onehot | {"length": 1, "split": "all"}, num_episodes=3)
    wide = onehot | {"length": 1, "split": "all", "max_prompt_tokens": 3, "max_new_tokens": 3}
    assert evaluate_run(run, env_kwargs=wide, num_episodes=3)["split"] == "all"


def test_an_evaluation_on_another_env_says_so_and_replaces_none(tmp_path, run_dir, capsys, request):
    """Its own id, twice, and another whose task has one split, as of the user's own rows for two splits."""
    run = tmp_path / "run"
    shutil.copytree(run_dir, run, ignore=shutil.ignore_patterns("evaluation*"))
    own = evaluate_run(run, num_episodes=4)
    prompts = {pair["prompt"] for pair in json.loads((run / "evaluation.json").read_text())["pairs"]}
    assert (own["split"], own["num_problems"]) == ("heldout", len(prompts))
    before = (run / "evaluation.json").read_bytes()
    task = textenvs.make_task("reverse", length=2, alphabet="abcd", split="heldout")
    textenvs.register_envs([textenvs.Entry("OwnHeldout-v0", "tests", {"task": task, "dense": True})])
    request.addfinalizer(lambda: gym.registry.pop("OwnHeldout-v0"))
    cli.main(["evaluate", str(run), "--env", "OwnHeldout-v0", "--episodes", "40"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"40 episodes of {len(task)} problems (all) of OwnHeldout-v0; mean ± standard error" in shown
    assert (run / "evaluation.json").read_bytes() == before
    (left,) = run.glob("evaluation-OwnHeldout-v0-*.json")
    other = evaluate_run(run, env_id="OwnHeldout-v0", num_episodes=4)
    assert (other["split"], other["env"]) == ("all", {"id": "OwnHeldout-v0", "kwargs": {}})
    assert json.loads(left.read_text())["num_episodes"] == 4
    evaluate_run(run, env_kwargs=COPY | {"split": "train"}, num_episodes=4)
    assert len(list(run.glob("evaluation*.json"))) == 3
    markdown = markdown_report([run])
    assert "`heldout`, `textenvs/Copy-v0`" in markdown
    assert "`all`, `OwnHeldout-v0`" in markdown
    assert '`train`, `textenvs/Copy-v0 {"alphabet": "abcd", "dense": true, "length": 2, "split": "train"}`' in markdown
    assert (run / "evaluation.json").read_bytes() == before


def test_other_prompts_for_the_id_of_the_run_are_not_called_its_training_problems(tmp_path):
    """As README advises, for prompts of the user's own have no held-out split."""
    mine, others = {"prompts": ["The food was", "My phone"]}, {"prompts": ["The film", "Her song"]}
    config = TrainConfig(
        env_id="TextGen-v0", env_kwargs=mine, algorithm=Algorithm(episodes_per_update=4), num_episodes=4, num_envs=4
    )
    run = train(config, tmp_path / "run", quiet=True)
    assert evaluate_run(run, num_episodes=4)["split"] == "train"
    assert evaluate_run(run, env_kwargs=others, num_episodes=4)["split"] == "all"
