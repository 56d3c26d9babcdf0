"""Losses against closed forms; where gradients must be exactly zero, and where they must not be."""

import math

import pytest
import torch

import agents.losses
from agents.losses import (
    adapted_kl_coef,
    clipped_surrogate,
    kl_estimate,
    ratio_statistics,
    token_scores,
    token_weights,
    value_loss,
)

ONE = torch.ones(1, 1, dtype=torch.bool)


def surrogate_gradient(advantage: float, ratio: float) -> tuple[float, float]:
    log_probs = torch.tensor([[math.log(ratio)]], requires_grad=True)
    loss = clipped_surrogate(
        log_probs, torch.zeros(1, 1), torch.tensor([[advantage]]), ONE, torch.ones(1, 1), clip_range=0.2
    )
    loss.backward()
    assert log_probs.grad is not None
    return loss.item(), log_probs.grad.item()


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "gradient"),
    [
        (2.0, 1.0, -2.0, -2.0),
        (2.0, 1.1, -2.2, -2.2),
        (2.0, 1.5, -2.4, 0.0),
        (2.0, 0.5, -1.0, -1.0),
        (-2.0, 0.5, 1.6, 0.0),
        (-2.0, 5.0, 10.0, 10.0),
    ],
)
def test_clipped_surrogate_closed_form(advantage, ratio, loss, gradient):
    assert surrogate_gradient(advantage, ratio) == pytest.approx((loss, gradient), rel=1e-5)


def test_losses_ignore_masked_slots_bit_for_bit():
    generator = torch.Generator().manual_seed(0)
    data = [torch.randn(2, 3, generator=generator) for _ in range(4)]
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]], dtype=torch.bool)
    weights = token_weights(mask, "token_mean")

    def run(fill: float) -> list[torch.Tensor]:
        log_probs, old, advantages, returns = (x.masked_fill(~mask, fill) for x in data)
        log_probs.requires_grad_()
        clip = clipped_surrogate(log_probs, old, advantages, mask, weights, clip_range=0.2)
        loss = clip + value_loss(log_probs, old, returns, mask, weights, clip_range=0.2)
        loss.backward()
        assert log_probs.grad is not None
        statistics = ratio_statistics(log_probs, old, mask, clip_range=0.2)
        return [loss, log_probs.grad, *statistics.values()]

    for clean, poisoned in zip(run(0.0), run(float("nan")), strict=True):
        assert torch.equal(clean, poisoned)


def test_token_weights():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]], dtype=torch.bool)
    quarter, sixth = 1 / 4, 1 / 6
    expected = {
        "token_mean": [[quarter, quarter, quarter], [quarter, 0, 0]],
        "sequence_mean": [[sixth, sixth, sixth], [0.5, 0, 0]],
        "sequence_sum": [[0.5, 0.5, 0.5], [0.5, 0, 0]],
    }
    for aggregation, weights in expected.items():
        torch.testing.assert_close(token_weights(mask, aggregation), torch.tensor(weights))


@pytest.mark.parametrize(
    ("value", "old", "target", "clip_range", "loss", "gradient"),
    [
        (1.0, 0.0, 0.5, None, 0.125, 0.5),
        (1.0, 0.0, 0.5, 0.2, 0.125, 0.5),  # the clipped value 0.2 is nearer to the target, so the plain error counts
        (1.0, 0.0, 2.0, 0.2, 0.5 * 1.8**2, 0.0),  # moved towards the target as far as it may
        (0.1, 0.0, 2.0, 0.2, 0.5 * 1.9**2, -1.9),
    ],
)
def test_value_loss_closed_form(value, old, target, clip_range, loss, gradient):
    values = torch.tensor([[value]], requires_grad=True)
    old_values, returns = torch.tensor([[old]]), torch.tensor([[target]])
    result = value_loss(values, old_values, returns, ONE, torch.full((1, 1), 0.5), clip_range=clip_range)
    result.backward()
    assert values.grad is not None
    assert (result.item(), values.grad.item()) == pytest.approx((loss / 2, gradient / 2))


def test_kl_coefficient_follows_its_target():
    """Five updates by hand: far above, a little above, at, a little below and far below the target of 6."""
    kl_coef, kls = 0.15, [60.0, 6.6, 6.0, 5.4, 0.0]
    for kl, error in zip(kls, [0.2, 0.1, 0.0, -0.1, -0.2], strict=True):
        expected = kl_coef * (1 + error * 256 / 10_000)
        kl_coef = adapted_kl_coef(kl_coef, kl, num_episodes=256, target=6.0, horizon=10_000)
        assert kl_coef == pytest.approx(expected, rel=1e-12)


def test_entropy_is_over_legal_tokens_with_finite_gradients():
    logits = torch.tensor([[0.0, 0.0, -torch.inf, 0.0], [0.0, 1000.0, 0.0, 0.0]], requires_grad=True)
    log_probs, value = token_scores(logits, torch.tensor([3, 1]))
    assert log_probs.tolist() == pytest.approx([-math.log(3), 0.0])
    assert value.tolist() == pytest.approx([math.log(3), 0.0])
    (log_probs.sum() + value.sum()).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 2] == 0


@pytest.mark.parametrize("cached", [1, 11, 2**18])
def test_token_scores_have_the_values_and_gradients_of_the_formula(cached, monkeypatch):
    """In double precision against finite differences and autograd, by rows, by pairs of rows and at once."""
    monkeypatch.setattr(agents.losses, "_CACHED", cached)
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(7, 5, generator=generator, dtype=torch.float64)
    actions = torch.randint(5, (7,), generator=generator)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: token_scores(x, actions), logits)
    legal = (torch.rand(7, 5, generator=generator) < 0.6).index_put((torch.arange(7), actions), torch.tensor(True))
    weights = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    masked = logits.masked_fill(~legal, -torch.inf)
    plain = torch.log_softmax(masked, -1)
    expected = plain.gather(-1, actions[:, None])[:, 0], -(plain.exp() * plain.masked_fill(~legal, 0.0)).sum(-1)
    gradients = []
    for scores in (token_scores(masked, actions), expected):
        (gradient,) = torch.autograd.grad(scores[0] @ weights[0] + scores[1] @ weights[1], logits, retain_graph=True)
        gradients.append(gradient)
    torch.testing.assert_close(torch.stack(token_scores(masked, actions)), torch.stack(expected))
    torch.testing.assert_close(*gradients)


def test_kl_estimators_in_expectation():
    """E_pi[k1] = E_pi[k3] = KL exactly; k2 is biased."""
    log_p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64).log()
    log_q = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log()
    kl = (log_p.exp() * (log_p - log_q)).sum().item()
    expected = {name: (log_p.exp() * kl_estimate(log_p, log_q, name)).sum().item() for name in ("k1", "k2", "k3")}
    assert expected["k1"] == pytest.approx(kl)
    assert expected["k3"] == pytest.approx(kl)
    assert abs(expected["k2"] - kl) > 0.01
    assert (kl_estimate(log_p, log_q, "k3") >= 0).all()
    with pytest.raises(ValueError, match="estimator must be"):
        kl_estimate(log_p, log_q, "k4")


def test_ratio_statistics():
    new, old = torch.tensor([[0.0, 0.5]]), torch.tensor([[0.0, 0.0]])
    statistics = ratio_statistics(new, old, torch.ones(1, 2, dtype=torch.bool), clip_range=0.2)
    assert statistics["approx_kl"].item() == pytest.approx(math.exp(0.5) - 1 - 0.5)
    assert statistics["clip_fraction"].item() == 1
    assert statistics["max_abs_log_ratio"].item() == 0.5
