"""LMPolicy: what it samples is what it updates, on mixed prompts, replies, masks and staggered ends."""

import json
import logging
import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import ragged_envs, string_envs, tiny_lm

import agents.lm
import textenvs
from agents.lm import LMPolicy
from agents.policy import Decisions
from agents.rollout import collect

ARCHITECTURES = ["gpt2", "llama"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampled_log_probs_equal_the_updates(architecture, temperature):
    """23 episodes on 5 rows: mixed prompt lengths, replies, early ends, refills, masks."""
    envs = ragged_envs(5)
    policy = tiny_lm(envs, architecture, temperature=temperature)
    torch.nn.init.normal_(policy.value_head.weight)
    rollout = collect(envs, policy, num_episodes=23, seed=3)
    lengths = rollout.lengths
    assert len(set(lengths)) > 3
    log_probs, values, entropies = (x.detach() for x in policy.evaluate(rollout, np.arange(23)))
    assert np.abs(log_probs.numpy() - rollout.log_probs)[rollout.mask].max() <= 1e-5
    assert np.abs(values.numpy() - rollout.values)[rollout.mask].max() <= 1e-5
    assert entropies.numpy()[rollout.mask].min() > 0
    assert not log_probs.numpy()[~rollout.mask].any()


def test_log_probs_are_those_of_a_plain_forward_of_each_episode_alone():
    """No batching, padding or caching: the model's own logits, one episode at a time."""
    envs = ragged_envs(4)
    policy = tiny_lm(envs, init_std=0.3)
    rollout = collect(envs, policy, num_episodes=9, seed=0)
    assert rollout.legal is not None
    for i in range(9):
        row = rollout.observations[i]
        tokens, first = torch.tensor(row[row != 9]), int((row != 9).argmax())
        logits = policy.model(tokens[None]).logits[0].detach()
        for t in range(rollout.lengths[i]):
            place = rollout.positions[i, t] - first
            assert tokens[place] == rollout.actions[i, t]
            legal = torch.tensor(rollout.legal[i, t])
            expected = torch.log_softmax(logits[place - 1].masked_fill(~legal, -torch.inf), -1)
            assert expected[rollout.actions[i, t]].item() == pytest.approx(rollout.log_probs[i, t], abs=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_more_padding_and_other_neighbours_change_nothing(architecture):
    envs = ragged_envs(5)
    policy = tiny_lm(envs, architecture)
    rollout = collect(envs, policy, num_episodes=12, seed=1)
    together = policy.evaluate(rollout, np.arange(12))
    for i in range(12):
        alone = policy.evaluate(rollout, np.array([i]))
        for whole, part in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[i], part[0], atol=2e-6, rtol=1e-6)


def test_sampling_follows_the_distribution_and_never_the_forbidden():
    envs = string_envs("Copy", num_envs=1)
    policy = tiny_lm(envs, init_std=0.5)
    observations, _ = envs.reset(seed=0)
    legal = np.array([[True, False, True, True, True, False]])
    rngs = [np.random.default_rng(i) for i in range(4000)]
    many = np.repeat(observations, 4000, 0)
    decisions = policy.act(many, np.arange(4000), np.repeat(legal, 4000, 0), rngs)
    counts = np.bincount(decisions.actions, minlength=6)
    assert not counts[~legal[0]].any()
    for action in np.flatnonzero(legal[0]):
        p = np.exp(decisions.log_probs[decisions.actions == action][0])
        assert abs(counts[action] - 4000 * p) < 4 * np.sqrt(4000 * p * (1 - p))
    greedy = policy.act(many[:1], np.arange(1), legal, rngs[:1], greedy=True)
    assert greedy.actions[0] == counts.argmax()


def test_neighbours_never_change_a_rows_draws():
    envs = ragged_envs(6)
    policy = tiny_lm(envs)

    def act(rows: list[int]) -> Decisions:
        return policy.act(envs.reset(seed=0)[0], np.array(rows), None, [np.random.default_rng(r) for r in rows])

    everyone, some = act([0, 1, 2, 3, 4, 5]), act([4, 1])
    assert np.array_equal(some.actions, everyone.actions[[4, 1]])


def test_the_value_head_starts_at_zero_on_a_shared_trunk():
    envs = string_envs()
    policy = tiny_lm(envs)
    rollout = collect(envs, policy, num_episodes=8, seed=0)
    assert not rollout.values.any()
    policy.evaluate(rollout, np.arange(8))[1].sub(1).square().sum().backward()
    assert policy.value_head.weight.grad is not None
    assert policy.value_head.weight.grad.abs().sum() > 0


def test_dropout_is_off_even_in_training_mode():
    for architecture, rates in (
        ("gpt2", ["attn_pdrop", "embd_pdrop", "resid_pdrop"]),
        ("llama", ["attention_dropout"]),
    ):
        policy = tiny_lm(string_envs(), architecture).train()
        assert not policy.training
        assert all(getattr(policy.model.config, rate) == 0 for rate in rates)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_chunked_scoring_equals_the_whole(architecture, monkeypatch):
    envs = ragged_envs(4)
    policy = tiny_lm(envs, architecture)
    rollout = collect(envs, policy, num_episodes=6, seed=0)

    def gradients() -> list[torch.Tensor]:
        policy.zero_grad()
        sum(x.sum() for x in policy.evaluate(rollout, np.arange(6))).backward()
        return [parameter.grad.clone() for parameter in policy.parameters()]

    whole = gradients()
    monkeypatch.setattr(agents.lm, "MAX_LOGITS_BYTES", 5 * 4 * 9)
    for one, other in zip(whole, gradients(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_save_and_load_keep_every_number(tmp_path):
    envs = ragged_envs(3)
    policy = tiny_lm(envs, "llama")
    torch.nn.init.normal_(policy.value_head.weight)
    policy.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    loaded = LMPolicy.from_pretrained(tmp_path, envs.metadata["textgen"])
    rollout = collect(envs, policy, num_episodes=4, seed=0)
    for one, other in zip(policy.evaluate(rollout, np.arange(4)), loaded.evaluate(rollout, np.arange(4)), strict=True):
        assert torch.equal(one, other)


def test_a_larger_model_vocabulary_is_never_sampled():
    envs = string_envs()
    small = dict(envs.metadata["textgen"])
    policy = LMPolicy(tiny_lm(envs).model, small | {"num_tokens": 3})
    log_probs = policy._log_probs(torch.zeros(1, 16), None)
    assert log_probs.exp().sum().item() == pytest.approx(1)
    assert log_probs.shape == (1, 3)


def test_what_does_not_fit_is_refused_with_the_remedy(tmp_path):
    envs = string_envs()
    metadata, policy = envs.metadata["textgen"], tiny_lm(envs)
    with pytest.raises(ValueError, match="vocabulary must hold the env's 99 tokens, got 6"):
        LMPolicy(policy.model, {**metadata, "num_tokens": 99})
    with pytest.raises(ValueError, match="at most the model's 6 positions"):
        LMPolicy(policy.model, {**metadata, "max_new_tokens": 30})
    with pytest.raises(ValueError, match="temperature must be positive"):
        LMPolicy(policy.model, metadata, temperature=0)
    with pytest.raises(ValueError, match="architecture must be one of"):
        tiny_lm(envs, "elman")
    with pytest.raises(ValueError, match="hidden_size must be a multiple"):
        tiny_lm(envs, hidden_size=15)
    policy.save(tmp_path)
    with pytest.raises(ValueError, match="vocab_sha256 must be the env's"):
        LMPolicy.from_pretrained(tmp_path, {**metadata, "vocab_sha256": "0" * 64})
    assert json.loads((tmp_path / "textenvs.json").read_text()) == {"vocab_sha256": metadata["vocab_sha256"]}
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"must hold model\.safetensors"):
        LMPolicy.from_pretrained(tmp_path, metadata)
    with pytest.raises(ValueError, match="which does not exist"):
        LMPolicy.from_pretrained(tmp_path / "nowhere", metadata)


@pytest.fixture
def saved(tmp_path):
    """A saved policy's directory and its env's metadata."""
    envs = string_envs()
    tiny_lm(envs).save(tmp_path)
    return tmp_path, envs.metadata["textgen"]


def rewrite(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


ODD_WEIGHTS = pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("transformer.h.0.attn.c_attn.weight"), r"missing: transformer\.h\.0\.attn\.c_attn\.weight in"),
        (lambda t: t.update({"extra.weight": torch.ones(2)}), r"unexpected: extra\.weight"),
        (lambda t: t.update({"transformer.ln_f.bias": torch.ones(3)}), r"ln_f\.bias \(3,\) for \(16,\)"),
        (
            lambda t: t["transformer.ln_f.bias"].fill_(torch.nan),
            r"finite, got NaN or infinity in transformer\.ln_f\.bias",
        ),
    ],
    ids=["missing", "unexpected", "mismatched", "nan"],
)


@ODD_WEIGHTS
def test_weights_are_never_made_up(saved, change, message, caplog):
    folder, metadata = saved
    rewrite(folder / "model.safetensors", change)
    logging.getLogger("transformers").addHandler(caplog.handler)  # it does not propagate
    with pytest.raises(ValueError, match=message) as refused:
        LMPolicy.from_pretrained(folder, metadata)
    logging.getLogger("transformers").removeHandler(caplog.handler)
    assert "\n" not in str(refused.value)
    assert "LOAD REPORT" not in caplog.text


@ODD_WEIGHTS
def test_resuming_from_odd_weights_is_refused_and_changes_nothing(saved, change, message):
    folder, metadata = saved
    policy = LMPolicy.from_pretrained(folder, metadata)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 1
    before = [parameter.clone() for parameter in policy.parameters()]
    rewrite(folder / "model.safetensors", change)
    with pytest.raises(
        ValueError, match=message.replace(r" \(3,\) for \(16,\)", r" float32 \(3,\) for float32 \(16,\)")
    ):
        policy.load(folder)
    assert all(torch.equal(*pair) for pair in zip(before, policy.parameters(), strict=True))


@pytest.mark.parametrize("name", ["model.safetensors", "value_head.safetensors"])
@pytest.mark.parametrize(
    "damage", [lambda b: b[:-10], lambda b: b"", lambda b: b"garbage" * 20], ids=["cut", "no", "bad"]
)
def test_damaged_weights_are_refused_by_name(saved, name, damage):
    folder, metadata = saved
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(ValueError, match=rf"{name} must be a whole safetensors file, got .*save or copy it again"):
        LMPolicy.from_pretrained(folder, metadata)


def test_a_value_head_of_another_shape_or_not_finite_is_refused(saved):
    folder, metadata = saved
    rewrite(folder / "value_head.safetensors", lambda t: t["bias"].fill_(torch.inf))
    with pytest.raises(ValueError, match="finite, got NaN or infinity in bias"):
        LMPolicy.from_pretrained(folder, metadata)
    rewrite(folder / "value_head.safetensors", lambda t: t.update(weight=torch.ones(1, 8)))
    with pytest.raises(
        ValueError, match=r"of another shape: weight float32 \(1, 8\) for float32 \(1, 16\) in .*value_head"
    ):
        LMPolicy.from_pretrained(folder, metadata)


@pytest.mark.parametrize("content", [b"{}", b"[]", b"{", b"\xff", b"1", b'{"vocab_sha256": 3}', b"[" * 100_000])
def test_a_malformed_fingerprint_is_refused_by_name(saved, content):
    folder, metadata = saved
    (folder / "textenvs.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"textenvs\.json must be \{"):
        LMPolicy.from_pretrained(folder, metadata)


TOKENIZER = Path(textenvs.__file__).parent / "assets" / "tokenizer.json"


def test_a_model_without_fingerprint_is_known_by_its_tokenizer(tmp_path):
    """The shipped tokenizer is the env's; with two tokens swapped it has the same size and is another."""
    metadata = gym.make_vec("TextGen-v0", num_envs=1, vocab=TOKENIZER, prompts=["a"]).metadata["textgen"]
    LMPolicy.from_config(metadata, hidden_size=8, num_heads=2, num_layers=1, seed=0).save(tmp_path)
    (tmp_path / "textenvs.json").unlink()
    shutil.copy(TOKENIZER, tmp_path)
    LMPolicy.from_pretrained(tmp_path, metadata)
    table = json.loads(TOKENIZER.read_text(encoding="utf-8"))
    ids = table["model"]["vocab"]
    one, other = list(ids)[1000:1002]
    ids[one], ids[other] = ids[other], ids[one]
    (tmp_path / "tokenizer.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(ValueError, match=r"vocab_sha256 must be the env's .*tokenizer\.json"):
        LMPolicy.from_pretrained(tmp_path, metadata)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer\.json must be a tokenizers JSON file"):
        LMPolicy.from_pretrained(tmp_path, metadata)


def test_a_model_without_any_vocabulary_must_have_the_envs_size(saved):
    folder, metadata = saved
    (folder / "textenvs.json").unlink()
    LMPolicy.from_pretrained(folder, metadata)
    with pytest.raises(ValueError, match=r"must have the env's 5 tokens, got 6 and no tokenizer\.json"):
        LMPolicy.from_pretrained(folder, metadata | {"num_tokens": 5})


def test_a_hub_id_that_is_not_cached_is_refused_offline():
    with pytest.raises(ValueError, match="check the name and the network"):
        LMPolicy.from_pretrained("nobody/no-such-model", string_envs().metadata["textgen"])
