"""SlotCache on unmodified models: staggered rows equal whole-sequence forwards."""

import pytest
import torch
from small import ragged_envs, tiny_lm

from agents.cache import SlotCache


def hidden_states(policy, tokens):
    with torch.no_grad():
        return policy.model.base_model(tokens[None], use_cache=False).last_hidden_state[0]


@pytest.fixture(params=["gpt2", "llama"])
def policy(request):
    return tiny_lm(ragged_envs(1), request.param, init_std=0.3)


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
