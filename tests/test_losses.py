"""Losses against closed forms; where gradients must be exactly zero, and where they must not be."""

import math

import pytest
import torch

from agents.losses import clipped_surrogate, entropy, kl_estimate, ratio_statistics, value_loss

ONE = torch.ones(1, 1, dtype=torch.bool)


def surrogate_gradient(advantage: float, ratio: float) -> tuple[float, float]:
    log_probs = torch.tensor([[math.log(ratio)]], requires_grad=True)
    loss = clipped_surrogate(
        log_probs, torch.zeros(1, 1), torch.tensor([[advantage]]), ONE, clip_range=0.2, normalizer=1.0
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

    def run(fill: float) -> list[torch.Tensor]:
        log_probs, old, advantages, returns = (x.masked_fill(~mask, fill) for x in data)
        log_probs.requires_grad_()
        clip = clipped_surrogate(log_probs, old, advantages, mask, clip_range=0.2, normalizer=3)
        loss = clip + value_loss(log_probs, returns, mask, normalizer=3)
        loss.backward()
        assert log_probs.grad is not None
        statistics = ratio_statistics(log_probs, old, mask, clip_range=0.2)
        return [loss, log_probs.grad, *statistics.values()]

    for clean, poisoned in zip(run(0.0), run(float("nan")), strict=True):
        assert torch.equal(clean, poisoned)


def test_value_loss_closed_form_and_normalizer():
    values, returns = torch.tensor([[1.0, 5.0]]), torch.tensor([[0.5, 5.0]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert value_loss(values, returns, mask, normalizer=2) == pytest.approx(0.5 * 0.25 / 2)


def test_entropy_is_over_legal_tokens_with_finite_gradients():
    logits = torch.tensor([[0.0, 0.0, -torch.inf, 0.0], [0.0, 1000.0, 0.0, 0.0]], requires_grad=True)
    value = entropy(torch.log_softmax(logits, -1))
    assert value.tolist() == pytest.approx([math.log(3), 0.0])
    value.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


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
