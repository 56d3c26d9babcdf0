"""SlotCache on unmodified models: staggered rows equal whole-sequence forwards."""

from typing import Any

import numpy as np
import pytest
import torch
from small import ragged_envs, tiny_lm
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from agents.cache import SlotCache
from agents.lm import LMPolicy
from agents.pretrained import without_dropout
from agents.rollout import collect


def hidden_states(policy, tokens):
    with torch.no_grad():
        return policy.model.base_model(tokens[None], use_cache=False).last_hidden_state[0]


def causal_lm(architecture: str, **settings: Any) -> PreTrainedModel:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    if architecture != "gpt_neox":
        sizes["num_key_value_heads"] = 2  # shared by two query heads each
    config = AutoConfig.for_model(
        architecture,
        **{"vocab_size": 9, "max_position_embeddings": 64, "initializer_range": 0.3, "bos_token_id": None}
        | {"eos_token_id": None, "pad_token_id": None}
        | sizes
        | settings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(without_dropout(config), dtype=torch.float32)


@pytest.fixture(params=["gpt2", "llama", "qwen2", "gpt_neox"])
def policy(request):
    envs = ragged_envs(1)
    if request.param in ("gpt2", "llama"):
        return tiny_lm(envs, request.param, init_std=0.3)
    return LMPolicy(causal_lm(request.param), envs.metadata["textgen"])


@torch.no_grad()
def feed(policy, cache, rows, starts, chunks):
    lengths = torch.tensor([len(chunk) for chunk in chunks])
    positions, mask = cache.open(torch.tensor(rows), torch.tensor(starts), lengths)
    tokens = torch.nn.utils.rnn.pad_sequence(chunks, batch_first=True)
    hidden = policy.model.base_model(
        tokens, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
    ).last_hidden_state
    return [hidden[i, : lengths[i]] for i in range(len(rows))]


def test_rows_at_different_positions_restarting_and_sitting_out(policy):
    """Rows get chunks of random sizes, in random subsets and orders, and restart at random moments."""
    generator = torch.Generator().manual_seed(0)

    def below(n: int) -> int:
        return int(torch.randint(n, (), generator=generator))

    num_rows, max_tokens = 4, 20
    cache = SlotCache(2, num_rows, max_tokens)
    histories = [torch.zeros(0, dtype=torch.long) for _ in range(num_rows)]
    for _ in range(60):
        rows = torch.randperm(num_rows, generator=generator)[: 1 + below(num_rows)].tolist()
        chunks = []
        for row in rows:
            if len(histories[row]) > max_tokens - 5 or below(8) == 0:
                histories[row] = histories[row][:0]
            chunks.append(torch.randint(9, (1 + below(5),), generator=generator))
        starts = [len(histories[row]) for row in rows]
        outputs = feed(policy, cache, rows, starts, chunks)
        for row, start, chunk, output in zip(rows, starts, chunks, outputs, strict=True):
            histories[row] = torch.cat([histories[row], chunk])
            expected = hidden_states(policy, histories[row])[start:]
            torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


def test_what_a_row_has_not_written_changes_nothing(policy):
    tokens = torch.arange(6)
    clean, dirty = SlotCache(2, 2, 12), SlotCache(2, 2, 12)
    feed(policy, dirty, [0, 1], [0, 0], [torch.arange(9), torch.arange(9)])
    for layer in dirty.layers:
        layer.keys.fill_(1e4)
        layer.values.fill_(-1e4)
    for cut in (1, 3, 6):
        outputs = [feed(policy, cache, [1], [0], [tokens[:cut]])[0] for cache in (clean, dirty)]
        assert torch.equal(*outputs)


def test_a_row_too_long_is_refused(policy):
    cache = SlotCache(2, 1, 4)
    with pytest.raises(ValueError, match="max_tokens must be at least 5 for this sequence, got 4"):
        feed(policy, cache, [0], [0], [torch.arange(5)])


def test_sampled_log_probs_are_the_updates_for_every_kind(policy):
    """30 staggered episodes on 4 rows."""
    rollout = collect(ragged_envs(4), policy, num_episodes=30, seed=0)
    log_probs = policy.evaluate(rollout, np.arange(30))[0].detach().numpy()
    assert np.abs(log_probs - rollout.log_probs)[rollout.mask].max() <= 1e-4


def test_a_window_that_an_episode_outgrows_is_refused():
    """16 + 9 tokens: with a window of 25 all are seen; with 24 the last would not see the first."""
    metadata = ragged_envs(1).metadata["textgen"]
    LMPolicy(causal_lm("mistral", sliding_window=25), metadata)
    for window in (24, 8):
        with pytest.raises(ValueError, match=r"all of an episode's 25 tokens .* MistralForCausalLM: hidden states off"):
            LMPolicy(causal_lm("mistral", sliding_window=window, initializer_range=0.02), metadata)
    layers = {"head_dim": 4, "layer_types": ["sliding_attention", "full_attention"]}
    LMPolicy(causal_lm("gemma3_text", sliding_window=25, **layers), metadata)
    with pytest.raises(ValueError, match=r"Gemma3ForCausalLM: hidden states off"):
        LMPolicy(causal_lm("gemma3_text", sliding_window=12, **layers), metadata)


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [("bloom", {"n_head": 4}), ("mamba", {"state_size": 4}), ("openai-gpt", {})],
    ids=["positions from the mask", "a recurrent state", "no cache"],
)
def test_a_model_without_positions_or_keys_to_cache_is_refused(architecture, settings):
    with pytest.raises(ValueError, match="use a GPT-2, Llama, Qwen2 or GPT-NeoX style model"):
        LMPolicy(causal_lm(architecture, **settings), ragged_envs(1).metadata["textgen"])
