"""The loop: it learns, repeats itself, resumes bit for bit, checks itself, and refuses what it must."""

import dataclasses
import functools
import json
import math
import re
import warnings

import numpy as np
import pytest
import torch
from small import string_envs

import agents.train
from agents.algorithms import ALGORITHMS, Algorithm
from agents.checkpoint import best_checkpoint, parameter_hash
from agents.lm import LMPolicy
from agents.rollout import collect
from agents.train import TrainConfig, make_envs, start_policy, train
from agents.update import accumulate_gradients, make_batch, minibatches

COPY = {"length": 2, "alphabet": "abcd", "dense": True}
SMALL = Algorithm(episodes_per_update=16, num_epochs=2, num_minibatches=2, kl_coef=0.01)
CONFIG = TrainConfig(
    env_id="textenvs/Copy-v0",
    env_kwargs=COPY,
    algorithm=SMALL,
    model_kwargs={"hidden_size": 16, "num_heads": 2},
    num_episodes=56,
    seed=3,
)


def run(run_dir, config=CONFIG, **kwargs):
    return train(config, run_dir, quiet=True, **kwargs)


def stop_and_resume(run_dir, config, monkeypatch):
    """Stop a run after two updates, resume it, and return its directory."""
    calls = []

    def collect_or_stop(*args, **kwargs):
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return collect(*args, **kwargs)

    monkeypatch.setattr(agents.train, "collect", collect_or_stop)
    with pytest.raises(KeyboardInterrupt):
        run(run_dir, config)
    monkeypatch.setattr(agents.train, "collect", collect)
    return run(run_dir, config, resume=True)


def final_hash(run_dir):
    return parameter_hash(LMPolicy.from_pretrained(run_dir / "final", string_envs().metadata["textgen"]))


def metrics_of(run_dir):
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in r.items() if key not in ("seconds", "tokens_per_second")} for r in records]


def test_training_twice_gives_the_same_parameters(tmp_path):
    one, two, other = run(tmp_path / "1"), run(tmp_path / "2"), run(tmp_path / "3", dataclasses.replace(CONFIG, seed=4))
    assert final_hash(one) == final_hash(two) != final_hash(other)
    assert metrics_of(one) == metrics_of(two)


def test_a_finished_run_has_its_records_and_checks(tmp_path):
    run_dir = run(tmp_path / "run")
    metrics = metrics_of(run_dir)
    assert [record["episodes"] for record in metrics] == [16, 32, 48, 56]
    assert metrics[0]["check/start_kl_same_forward"] == 0
    assert metrics[0]["check/start_kl_per_token"] <= 1e-5
    assert metrics[1]["kl_per_episode"] != 0
    assert all(record["check/ratio_error"] <= 1e-5 for record in metrics)
    assert [record["learning_rate"] for record in metrics] == pytest.approx(
        [SMALL.learning_rate * (1 - i / 4) for i in range(4)]
    )
    assert {path.name for path in run_dir.iterdir() if "events" not in path.name} == {
        "config.json", "metrics.jsonl", "samples.jsonl", "curve.png", "checkpoints", "final",
    }  # fmt: skip
    assert list(run_dir.glob("events*"))
    assert (run_dir / "final" / "model.safetensors").is_file()
    sample = json.loads((run_dir / "samples.jsonl").read_text().splitlines()[0])
    assert set(sample) == {"update", "prompt", "response", "finish_reason", "return", "parts", "tokens"}


@pytest.mark.parametrize("interrupted_after", [1, 3])
def test_resuming_equals_the_straight_run_bit_for_bit(tmp_path, monkeypatch, interrupted_after):
    straight = run(tmp_path / "straight")
    calls = []

    def collect_or_stop(*args, **kwargs):
        calls.append(1)
        if len(calls) > interrupted_after:
            raise KeyboardInterrupt
        return collect(*args, **kwargs)

    monkeypatch.setattr(agents.train, "collect", collect_or_stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken")
    assert (tmp_path / "broken" / "curve.png").is_file()
    assert not (tmp_path / "broken" / "final").exists()
    monkeypatch.setattr(agents.train, "collect", collect)
    resumed = run(tmp_path / "broken", resume=True)
    assert final_hash(resumed) == final_hash(straight)
    assert metrics_of(resumed) == metrics_of(straight)
    assert (resumed / "samples.jsonl").read_bytes() == (straight / "samples.jsonl").read_bytes()


def test_resume_drops_what_was_written_after_the_checkpoint(tmp_path, monkeypatch):
    """A run that dies between its log line and its checkpoint writes that line once."""
    config = dataclasses.replace(CONFIG, checkpoint_every=2)
    straight = run(tmp_path / "straight", config)
    calls = []

    def collect_or_stop(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return collect(*args, **kwargs)

    monkeypatch.setattr(agents.train, "collect", collect_or_stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", config)
    assert len(metrics_of(tmp_path / "broken")) == 3
    monkeypatch.setattr(agents.train, "collect", collect)
    assert metrics_of(run(tmp_path / "broken", config, resume=True)) == metrics_of(straight)


def test_an_interrupt_while_the_result_is_written_leaves_no_half_of_it(tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, num_episodes=16)
    save = LMPolicy.save

    def save_half(self, folder):
        save(self, folder)
        if "final" in folder.name:
            raise KeyboardInterrupt

    monkeypatch.setattr(LMPolicy, "save", save_half)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", config)
    assert not (tmp_path / "run" / "final").exists()
    monkeypatch.setattr(LMPolicy, "save", save)
    run_dir = run(tmp_path / "run", config, resume=True)
    assert final_hash(run_dir) == final_hash(run(tmp_path / "straight", config))
    assert sorted(path.name for path in run_dir.glob("final*")) == ["final"]


def test_resume_refuses_damaged_checkpoints_and_keeps_the_records(tmp_path):
    config = dataclasses.replace(CONFIG, num_episodes=16)
    run_dir = run(tmp_path / "run", config)
    before = (run_dir / "metrics.jsonl").read_bytes()
    (run_dir / "checkpoints" / "step_000001" / "manifest.json").unlink()
    with pytest.raises(ValueError, match="step_000001 is damaged"):
        run(run_dir, config, resume=True)
    assert (run_dir / "metrics.jsonl").read_bytes() == before != b""


def test_resume_without_a_run_starts_at_the_beginning(tmp_path):
    assert final_hash(run(tmp_path / "new", resume=True)) == final_hash(run(tmp_path / "old"))


def test_the_number_of_envs_changes_no_choice(tmp_path):
    one = run(tmp_path / "1", dataclasses.replace(CONFIG, num_envs=5, num_episodes=16))
    two = run(tmp_path / "2", dataclasses.replace(CONFIG, num_episodes=16))
    samples = [(path / "samples.jsonl").read_text().splitlines() for path in (one, two)]
    chosen = [[{**(record := json.loads(line)), "tokens": record["tokens"]["token"]} for line in s] for s in samples]
    assert chosen[0] == chosen[1]  # log-probabilities are equal up to rounding only


def test_a_run_is_never_overwritten_or_resumed_with_other_settings(tmp_path):
    run_dir = run(tmp_path / "run", dataclasses.replace(CONFIG, num_episodes=16))
    with pytest.raises(ValueError, match="holds a run; pass --resume"):
        run(run_dir)
    with pytest.raises(ValueError, match="num_episodes 16 -> 56; change them back"):
        run(run_dir, resume=True)
    with pytest.raises(ValueError, match="num_envs 128 -> 5; change them back"):
        run(run_dir, dataclasses.replace(CONFIG, num_episodes=16, num_envs=5), resume=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="run_dir must be new or empty"):
        run(tmp_path / "notes")
    with pytest.raises(ValueError, match=r"run_dir must be a directory, got .*, which is a file; name another"):
        run(tmp_path / "notes" / "notes.txt")


@pytest.mark.parametrize(
    ("env_id", "env_kwargs", "message"),
    [
        ("textenvs/Copy-v0", {"observation": "onehot"}, "observation must be 'tokens' without .*'onehot'}; leave them"),
        ("textenvs/Copy-v0", {"mask_keys": "rllib"}, "observation must be 'tokens' without mask_keys .*; leave them"),
        ("CartPole-v1", {}, r"env_id must be a text environment \(metadata\['textgen'\]\), got 'CartPole-v1'; see"),
        ("MountainCar-v0", {}, "env_id must be a text environment"),
    ],
)
def test_envs_a_language_model_cannot_read_are_refused_before_anything_is_written(
    tmp_path, env_id, env_kwargs, message
):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", dataclasses.replace(CONFIG, env_id=env_id, env_kwargs=env_kwargs))
    assert not (tmp_path / "run").exists()


def test_the_first_step_is_adams_on_the_clipped_gradient(tmp_path):
    """A norm so small that Adam's epsilon counts: the step is lr g / (|g| + eps), with g scaled to max_grad_norm."""
    algorithm = Algorithm(episodes_per_update=8, num_epochs=1, num_minibatches=1, max_grad_norm=1e-3, adam_epsilon=1e-4)
    config = dataclasses.replace(CONFIG, algorithm=algorithm, num_episodes=8)
    envs = make_envs(config.env_id, 8, config.env_kwargs)
    policy = start_policy(config, envs)
    batch = make_batch(collect(envs, policy, num_episodes=8, seed=config.seed), algorithm)
    accumulate_gradients(policy, batch, np.arange(8), algorithm)
    norm = torch.cat([parameter.grad.flatten() for parameter in policy.parameters()]).norm()
    assert norm > 0.01
    trained = LMPolicy.from_pretrained(run(tmp_path / "run", config) / "final", envs.metadata["textgen"])
    for before, after in zip(policy.parameters(), trained.parameters(), strict=True):
        gradient = before.grad * 1e-3 / norm
        expected = before - 1e-3 * gradient / (gradient.abs() + 1e-4)
        torch.testing.assert_close(after, expected, atol=1e-6, rtol=0)


def test_every_epoch_of_every_update_has_its_own_shuffle(tmp_path, monkeypatch):
    orders = []

    def record(*args, **kwargs):
        parts = minibatches(*args, **kwargs)
        orders.append(tuple(np.concatenate(parts)))
        return parts

    monkeypatch.setattr("agents.update.minibatches", record)
    run(tmp_path / "run", dataclasses.replace(CONFIG, num_episodes=48))
    assert [sorted(order) for order in orders] == [list(range(16))] * 6
    assert len(set(orders)) == 6


def test_failed_scores_are_counted_and_never_learnt_from(tmp_path, monkeypatch):
    def collect_with_faults(*args, **kwargs):
        rollout = collect(*args, **kwargs)
        for i in range(0, len(rollout), 4):
            rollout.infos[i]["status"] = "infra_fault"
            rollout.rewards[i] = poison
        return rollout

    monkeypatch.setattr(agents.train, "collect", collect_with_faults)
    hashes = []
    for poison in (0.0, 1e6):
        run_dir = run(tmp_path / str(poison), dataclasses.replace(CONFIG, num_episodes=32))
        assert [record["check/excluded_episodes"] for record in metrics_of(run_dir)] == [4, 4]
        hashes.append(final_hash(run_dir))
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("value", [math.nan, -0.5, math.inf])
def test_coefficients_outside_their_range_are_refused(value):
    for field in dataclasses.fields(Algorithm):
        with pytest.raises(ValueError, match=f"{field.name} must be"):
            dataclasses.replace(ALGORITHMS["ppo"], **{field.name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("num_episodes", 0), ("num_envs", 0), ("seed", -1), ("checkpoint_every", 0), ("temperature", 0)]
)
def test_settings_outside_their_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        dataclasses.replace(CONFIG, **{name: value})


def test_it_learns_to_copy_and_a_shuffled_reward_teaches_nothing(tmp_path, monkeypatch):
    config = TrainConfig(env_id="textenvs/Copy-v0", env_kwargs=COPY, num_episodes=1536, seed=0)
    learnt = metrics_of(run(tmp_path / "learnt", config))
    assert learnt[0]["return"] < 0.3
    assert learnt[-1]["return"] > 0.9

    def collect_shuffled(*args, **kwargs):
        rollout = collect(*args, **kwargs)
        rollout.rewards[:] = np.random.default_rng(0).permutation(rollout.rewards)
        return rollout

    monkeypatch.setattr(agents.train, "collect", collect_shuffled)
    control = metrics_of(run(tmp_path / "control", config))
    assert control[-1]["success_rate"] < 0.3


def test_a_strong_kl_penalty_keeps_the_policy_at_its_start(tmp_path):
    kls = []
    for kl_coef in (0.0, 3.0):
        algorithm = dataclasses.replace(SMALL, kl_coef=kl_coef)
        config = dataclasses.replace(CONFIG, algorithm=algorithm, num_episodes=160)
        run_dir = run(tmp_path / str(kl_coef), config)
        policy = LMPolicy.from_pretrained(run_dir / "final", string_envs().metadata["textgen"])
        start = start_policy(config, string_envs())
        rollout = collect(string_envs(), policy, num_episodes=200, seed=9)
        rows = np.arange(200)
        with torch.no_grad():
            kls.append((policy.evaluate(rollout, rows)[0] - start.evaluate(rollout, rows)[0]).sum(1).mean().item())
    assert kls[1] < kls[0] / 3


def test_the_best_checkpoint_holds_the_weights_that_sampled_best(tmp_path, monkeypatch):
    """Update 3 samples the best episodes, so the checkpoint of update 2 is the best; it outlives the newest two."""
    bonus = {0: 0.0, 16: 0.1, 32: 5.0, 48: 0.0, 64: 0.0}

    def collect_with_bonus(*args, **kwargs):
        rollout = collect(*args, **kwargs)
        rollout.rewards[:, 0] += bonus[int(rollout.episodes[0])]
        return rollout

    monkeypatch.setattr(agents.train, "collect", collect_with_bonus)
    checkpoints = run(tmp_path / "run", dataclasses.replace(CONFIG, num_episodes=80)) / "checkpoints"
    assert best_checkpoint(checkpoints) == checkpoints / "step_000002"
    assert sorted(path.name for path in checkpoints.glob("step_*")) == ["step_000002", "step_000004", "step_000005"]


ABS = {"length": 2, "alphabet": "ab", "split": "all"}


def collect_zeros(*args, but=-1, **settings):
    """Play episodes whose rewards are all 0, but for the episode of one number."""
    rollout = collect(*args, **settings)
    rollout.rewards[:] = 0
    rollout.rewards[rollout.episodes == but, 0] = 1
    return rollout


def notes_of(run_dir, config, **kwargs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(run_dir, config, **kwargs)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("num_episodes", "differs_at", "told"),
    [
        (300, -1, 256),
        (300, 255, None),
        (300, 256, 256),  # told of the episodes so far
        (80, 79, None),
        (80, -1, 80),
        (63, -1, None),  # too few to judge
    ],
)
def test_a_run_without_a_signal_says_so_once(tmp_path, monkeypatch, num_episodes, differs_at, told):
    config = dataclasses.replace(CONFIG, env_kwargs=ABS, num_episodes=num_episodes)
    monkeypatch.setattr(agents.train, "collect", functools.partial(collect_zeros, but=differs_at))
    notes = notes_of(tmp_path / "run", config)
    assert len(notes) == (told is not None)
    for note in notes:
        assert note.startswith(f"all {told} episodes so far returned 0.000: ")
        assert "\n" not in note
        assert "`textenvs sft`" in note
        graded = json.loads(re.search(r"--env-kwargs '(.*?)'", note)[1])
        make_envs(CONFIG.env_id, 1, ABS | graded).close()


@pytest.mark.parametrize("differs_at", [-1, 3])
def test_a_resumed_run_remembers_whether_there_was_a_signal(tmp_path, monkeypatch, differs_at):
    config = dataclasses.replace(CONFIG, env_kwargs=ABS, num_episodes=80)
    played = []

    def stop_third(*args, **settings):
        played.append(1)
        if len(played) > 2:
            raise KeyboardInterrupt
        return collect_zeros(*args, but=differs_at, **settings)

    monkeypatch.setattr(agents.train, "collect", stop_third)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", config)
    monkeypatch.setattr(agents.train, "collect", collect_zeros)
    assert len(notes_of(tmp_path / "run", config, resume=True)) == (differs_at < 0)


@pytest.mark.parametrize(("name", "meant"), [("Tiny", "tiny"), ("scrach", "scratch"), ("MLP", "mlp")])
def test_a_misspelt_model_is_refused_before_the_hub_is_asked(monkeypatch, name, meant):
    monkeypatch.setattr(LMPolicy, "from_pretrained", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(ValueError, match=f"got '{name}'; did you mean '{meant}'"):
        start_policy(dataclasses.replace(CONFIG, model=name, model_kwargs={}), string_envs())


# Every kind of hub id without an owner that transformers has known, and a directory that there is.
@pytest.mark.parametrize(
    "name",
    [
        *("gpt2", "gpt2-xl", "distilgpt2", "openai-gpt", "ctrl", "t5-small", "t5-11b", "transfo-xl-wt103"),
        *("bert-base-cased", "xlnet-base-cased", "roberta-base", "albert-base-v1", "xlm-mlm-en-2048"),
        *("sshleifer/tiny-gpt2", "me/tiny", "tinny"),
    ],
)
def test_hub_ids_and_directories_are_taken_as_they_are(tmp_path, monkeypatch, name):
    (tmp_path / "tinny").mkdir()
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(LMPolicy, "from_pretrained", lambda name, *_, **__: asked.append(name))
    start_policy(dataclasses.replace(CONFIG, model=name, model_kwargs={}), string_envs())
    assert asked == [name]
