"""LoRA: the adapter's gradient, a reference that shares the trunk, files that hold the adapter alone."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from small import ragged_envs, string_envs, tiny_lm
from transformers import AutoModelForCausalLM

from agents.algorithms import Algorithm
from agents.lm import LMPolicy
from agents.lora import LoraSettings, adapter_tensors
from agents.rollout import Rollout, collect
from agents.train import TrainConfig, train

ARCHITECTURES = ["gpt2", "llama"]
ROWS = np.arange(8)
SETTINGS = LoraSettings(rank=2, alpha=6)


def warm(policy: LMPolicy, settings: LoraSettings = SETTINGS) -> LMPolicy:
    """Give a policy an adapter as if it had learnt: B and the value head are no longer 0."""
    policy.add_lora(settings, seed=1)
    generator = torch.Generator().manual_seed(2)
    for parameter in trainable(policy):
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return policy


def trainable(policy: LMPolicy) -> list[torch.nn.Parameter]:
    return [parameter for parameter in policy.parameters() if parameter.requires_grad]


def lora_layers(policy: LMPolicy) -> dict[str, torch.nn.Module]:
    return {name: module for name, module in policy.model.named_modules() if hasattr(module, "lora_A")}


def merged(policy: LMPolicy, plain: LMPolicy) -> LMPolicy:
    """Write W + (alpha / rank) B A into a plain policy of the same start."""
    with torch.no_grad():
        for name, layer in lora_layers(policy).items():
            change = 3 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
            weight = plain.model.get_submodule(name).weight
            weight += change if weight.shape == change.shape and not layer.fan_in_fan_out else change.T
    plain.value_head.load_state_dict(policy.value_head.state_dict())
    return plain


def losses(policy: LMPolicy, rollout: Rollout) -> torch.Tensor:
    """An arbitrary smooth function of everything that an update differentiates."""
    generator = torch.Generator().manual_seed(0)
    outputs = policy.evaluate(rollout, ROWS)
    return sum((x * torch.randn(x.shape, generator=generator)).sum() for x in outputs)  # type: ignore[return-value]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_start_is_the_base_and_only_adapter_and_value_head_train(architecture):
    envs = ragged_envs(4)
    policy = tiny_lm(envs, architecture)
    rollout = collect(envs, policy, num_episodes=8, seed=0)
    before = policy.evaluate(rollout, ROWS)
    policy.add_lora(SETTINGS, seed=0)
    for one, other in zip(before, policy.evaluate(rollout, ROWS), strict=True):
        assert torch.equal(one, other)
    names = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert {name for name in names if ".lora_" not in name} == {"value_head.weight", "value_head.bias"}
    # Every linear layer of the two blocks has A and B; the output layer has none.
    assert len(names) == 2 + 2 * 2 * {"gpt2": 4, "llama": 7}[architecture]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_sampled_is_what_is_updated(architecture):
    envs = ragged_envs(4)
    policy = warm(tiny_lm(envs, architecture))
    rollout = collect(envs, policy, num_episodes=23, seed=3)
    log_probs, values, _ = (x.detach().numpy() for x in policy.evaluate(rollout, np.arange(23)))
    assert np.abs(log_probs - rollout.log_probs)[rollout.mask].max() <= 1e-5
    assert np.abs(values - rollout.values)[rollout.mask].max() <= 1e-5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_are_the_plain_ones_by_the_chain_rule(architecture):
    """W' = W + s B A, so dL/dB = s G A^T and dL/dA = s B^T G with G = dL/dW' of the merged model."""
    envs = ragged_envs(4)
    policy = warm(tiny_lm(envs, architecture))
    plain = merged(policy, tiny_lm(envs, architecture))
    rollout = collect(envs, policy, num_episodes=8, seed=0)
    loss, expected = losses(policy, rollout), losses(plain, rollout)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.backward()
    expected.backward()
    for name, layer in lora_layers(policy).items():
        G = plain.model.get_submodule(name).weight.grad
        G = G.T if layer.fan_in_fan_out else G
        A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        assert G.abs().max() > 1e-2
        torch.testing.assert_close(B.grad, 3 * G @ A.detach().T, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(A.grad, 3 * B.detach().T @ G, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(policy.value_head.weight.grad, plain.value_head.weight.grad, atol=1e-4, rtol=1e-4)
    assert all(parameter.grad is None for parameter in policy.parameters() if not parameter.requires_grad)


def storage_bytes(*policies: LMPolicy) -> int:
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for policy in policies
        for t in (*policy.parameters(), *policy.buffers())
    }
    return sum(storages.values())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_reference_holds_no_second_trunk(architecture):
    policy = warm(tiny_lm(string_envs(), architecture, hidden_size=64))
    reference = policy.frozen_copy()
    own = sum(4 * parameter.numel() for parameter in trainable(policy))
    buffers = sum(4 * buffer.numel() for buffer in policy.buffers())
    assert storage_bytes(policy, reference) - storage_bytes(policy) == own + buffers
    assert buffers < 1000 < own < storage_bytes(policy) / 5
    assert not trainable(reference)
    assert len(trainable(policy)) > 2
    full = tiny_lm(string_envs(), architecture)
    assert storage_bytes(full, full.frozen_copy()) == 2 * storage_bytes(full)


def test_the_reference_is_the_adapter_at_the_start_not_the_base():
    """KL at step 0 is exactly 0 against it; against the base it is not; after a step it is positive."""
    envs = ragged_envs(4)
    policy, base = warm(tiny_lm(envs)), tiny_lm(envs)
    reference = policy.frozen_copy()
    rollout = collect(envs, policy, num_episodes=256, seed=0)
    rows = np.arange(256)

    def log_ratio(other: LMPolicy) -> torch.Tensor:
        with torch.no_grad():
            return policy.evaluate(rollout, rows)[0] - other.evaluate(rollout, rows)[0]

    assert not log_ratio(reference).any()
    assert log_ratio(base).sum() / 256 > 0.01
    before = [parameter.clone() for parameter in reference.parameters()]
    trunk = [parameter.clone() for parameter in policy.parameters() if not parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable(policy), lr=0.05)
    losses(policy, rollout).backward()
    optimizer.step()
    assert log_ratio(reference).abs().max() > 1e-3
    assert all(torch.equal(*pair) for pair in zip(before, reference.parameters(), strict=True))
    frozen = [parameter for parameter in policy.parameters() if not parameter.requires_grad]
    assert all(torch.equal(*pair) for pair in zip(trunk, frozen, strict=True))


def test_a_reference_forward_between_two_steps_changes_nothing_for_the_policy(monkeypatch):
    """Nothing is switched: cache, gradients and adapter are the policy's own, also when the reference fails."""
    envs = ragged_envs(4)
    policy = warm(tiny_lm(envs))
    reference = policy.frozen_copy()
    alone = collect(envs, policy, num_episodes=12, seed=0)
    act = policy.act
    failures = []

    def interrupted(*args, greedy):
        decisions = act(*args, greedy=greedy)
        reference.act(*args, greedy=True)  # draws nothing from the policy's streams
        reference.evaluate(alone, ROWS)
        with pytest.raises(IndexError) as failure:
            reference.evaluate(alone, np.array([99]))
        failures.append(failure)
        return decisions

    monkeypatch.setattr(policy, "act", interrupted)
    beside = collect(envs, policy, num_episodes=12, seed=0)
    assert failures
    assert np.array_equal(alone.actions, beside.actions)
    assert np.array_equal(alone.log_probs, beside.log_probs)
    assert len(trainable(policy)) > 2


@pytest.fixture(params=ARCHITECTURES)
def trained(request, tmp_path):
    """A warm LoRA policy, its rollout, its saved base and where it is saved itself."""
    envs = string_envs()
    tiny_lm(envs, request.param, hidden_size=64).save(tmp_path / "base")
    policy = warm(LMPolicy.from_pretrained(tmp_path / "base", envs.metadata["textgen"]))
    policy.save(tmp_path / "adapter")
    return policy, collect(envs, policy, num_episodes=8, seed=0), tmp_path, envs.metadata["textgen"]


def test_a_saved_adapter_is_small_and_comes_back_with_its_base(trained, monkeypatch):
    policy, rollout, folder, metadata = trained
    adapter = folder / "adapter"
    assert {path.name for path in adapter.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "value_head.safetensors",
        "textenvs.json",
    }
    sizes = [sum(path.stat().st_size for path in d.iterdir()) for d in (adapter, folder / "base")]
    assert sizes[0] < sizes[1] / 4
    monkeypatch.chdir("/")
    loaded = LMPolicy.from_pretrained(adapter, metadata)
    for one, other in zip(policy.evaluate(rollout, ROWS), loaded.evaluate(rollout, ROWS), strict=True):
        assert torch.equal(one, other)
    assert len(trainable(loaded)) == len(trainable(policy))
    resumed = LMPolicy.from_pretrained(folder / "base", metadata)
    resumed.add_lora(SETTINGS, seed=9)
    resumed.load(adapter)
    assert torch.equal(resumed.evaluate(rollout, ROWS)[0], policy.evaluate(rollout, ROWS)[0])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft asks transformers for it
def test_peft_reads_the_adapter(trained):
    policy, _, folder, _ = trained
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32), folder / "adapter"
    )
    tokens = torch.tensor([[0, 1, 2, 3]])
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, policy.model(tokens).logits)


def test_training_continues_an_adapter_and_resumes_bit_for_bit(trained, tmp_path):
    """A run from an adapter: its reference is that adapter, its checkpoints and its end are adapters."""
    _, _, folder, _ = trained
    config = TrainConfig(
        env_id="textenvs/Copy-v0",
        env_kwargs={"length": 2, "alphabet": "abcd", "dense": True},
        algorithm=Algorithm(episodes_per_update=16, num_epochs=1, num_minibatches=1, kl_coef=0.1),
        model=str(folder / "adapter"),
        num_episodes=48,
        num_envs=16,
    )
    straight = train(config, tmp_path / "straight", quiet=True)
    metrics = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert metrics[0]["kl_per_episode"] == pytest.approx(0, abs=1e-4)
    assert abs(metrics[2]["kl_per_episode"]) > 1e-3
    resumed = tmp_path / "resumed"
    train(config, resumed, quiet=True)
    shutil.rmtree(resumed / "checkpoints" / "step_000003")
    with pytest.warns(UserWarning, match="using step_000002"):
        train(config, resumed, resume=True, quiet=True)
    weights = [load_file(run / "final" / "adapter_model.safetensors") for run in (straight, resumed)]
    start = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert weights[0].keys() == start.keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in start)
    assert any(not torch.equal(weights[0][name], start[name]) for name in start)


def test_another_base_is_refused(trained):
    _, _, folder, metadata = trained
    other = LMPolicy.from_pretrained(folder / "base", metadata)
    with torch.no_grad():
        next(other.parameters())[0, 0] += 1
    other.save(folder / "base")
    with pytest.raises(ValueError, match=r"base model must be the one the adapter in .* was trained on"):
        LMPolicy.from_pretrained(folder / "adapter", metadata)
    (folder / "base").rename(folder / "moved")
    with pytest.raises(ValueError, match=r"got '.*base', which does not exist"):
        LMPolicy.from_pretrained(folder / "adapter", metadata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("r"), r"adapter_config\.json must be an adapter's configuration, got KeyError\('r'\)"),
        (lambda c: c.update(r=0), "rank must be an integer of at least 1"),
        (lambda c: c.update(use_dora=True, megatron_config={"a": 1}), "plain LoRA, got megatron_config, use_dora"),
        (lambda c: c.update(peft_type="IA3"), "plain LoRA, got peft_type"),
        (lambda c: c.update(base_model_name_or_path=None), "must name its base model, got None"),
        (lambda c: c.update(target_modules=["nothing"]), "target_modules must be among .*, got nothing"),
    ],
    ids=["incomplete", "rank", "exotic", "other", "no base", "targets"],
)
def test_an_adapter_that_says_more_or_less_is_refused(trained, change, message):
    _, _, folder, metadata = trained
    path = folder / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        LMPolicy.from_pretrained(folder / "adapter", metadata)


def test_an_adapter_with_odd_weights_or_for_an_adapter_is_refused(trained):
    policy, _, folder, metadata = trained
    path = folder / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] * torch.nan}, path)
    with pytest.raises(ValueError, match=f"finite, got NaN or infinity in {name}"):
        policy.load(folder / "adapter")
    save_file({k: v for k, v in tensors.items() if k != name}, path)
    before = {key: tensor.clone() for key, tensor in adapter_tensors(policy.model).items()}
    with pytest.raises(ValueError, match=f"got missing: {name} in .*adapter_model"):
        policy.load(folder / "adapter")
    assert all(torch.equal(before[key], tensor) for key, tensor in adapter_tensors(policy.model).items())
    config = folder / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace(str(folder / "base"), str(folder / "adapter")))
    with pytest.raises(ValueError, match="must be a whole model, got the adapter"):
        LMPolicy.from_pretrained(folder / "adapter", metadata)


def test_settings_that_cannot_be_are_refused_with_the_remedy():
    policy = tiny_lm(string_envs(), "llama")
    with pytest.raises(
        ValueError,
        match=r"target_modules must be among down_proj, gate_proj, k_proj, .*, got c_attn, lm_head; choose from them",
    ):
        policy.add_lora(LoraSettings(target_modules=["lm_head", "q_proj", "c_attn"]), seed=0)
    policy.add_lora(LoraSettings(rank=1, target_modules=["v_proj", "q_proj"]), seed=0)
    assert {name.rpartition(".")[2] for name in lora_layers(policy)} == {"q_proj", "v_proj"}
    with pytest.raises(ValueError, match="must have no adapter yet"):
        policy.add_lora(SETTINGS, seed=0)
    for bad in ({"rank": 0}, {"rank": 1.5}, {"alpha": 0}, {"alpha": float("nan")}, {"target_modules": "q_proj"}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))} must be"):
            LoraSettings(**bad)


def test_the_adapter_is_drawn_from_its_seed_alone():
    state = torch.get_rng_state()
    draws = []
    for seed in (0, 0, 1):
        policy = tiny_lm(string_envs())
        policy.add_lora(SETTINGS, seed=seed)
        draws.append(next(iter(adapter_tensors(policy.model).values())).clone())
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(state, torch.get_rng_state())


def test_without_peft_the_extra_is_named(trained, monkeypatch):
    _, _, folder, metadata = trained
    monkeypatch.setitem(sys.modules, "peft", None)
    for make in (
        lambda: LMPolicy.from_pretrained(folder / "adapter", metadata),
        lambda: LMPolicy.from_pretrained(folder / "base", metadata).add_lora(SETTINGS, seed=0),
    ):
        with pytest.raises(ModuleNotFoundError, match=r'LoRA needs peft; pip install "textenvs\[lora\]"'):
            make()
