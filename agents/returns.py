"""Advantages, returns and masked statistics: pure functions of (B, T) tensors. Losses live in `losses`.

A mask is True where the agent chose a token. Whatever stands elsewhere, NaN included, changes nothing: masked slots are
replaced before any arithmetic, because NaN * 0 is NaN.
"""

import torch
from torch import Tensor


def _check_shapes(mask: Tensor, **tensors: Tensor) -> None:
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, got {mask.dtype}; compare it with something first")
    for name, tensor in tensors.items():
        if tensor.shape != mask.shape:
            raise ValueError(
                f"{name} must have the mask's shape {tuple(mask.shape)}, got {tuple(tensor.shape)}; align them"
            )


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, bootstrap_values: Tensor, *, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Compute the generalised advantage A_t = sum_k (gamma lambda)^k delta_{t+k}, delta_t = r_t + gamma V_{t+1} - V_t.

    Slots outside the mask are skipped as if they were not there: t + 1 means the next masked slot of the row, and after
    the last one V is the row's bootstrap value.

    Args:
        rewards: (B, T) reward that followed each choice.
        values: (B, T) value of the state before each choice.
        mask: (B, T) bool.
        bootstrap_values: (B,) value after the last choice: 0 where the episode terminated.
        gamma: discount in [0, 1].
        gae_lambda: in [0, 1]; 1 gives the sum of future rewards minus the value.

    Returns:
        advantages and returns (advantages + values), both (B, T), 0 outside the mask.

    Source: Schulman et al. 2016, arXiv:1506.02438, equation 16.
    """
    _check_shapes(mask, rewards=rewards, values=values)
    if bootstrap_values.shape != mask.shape[:1]:
        raise ValueError(
            f"bootstrap_values must be {tuple(mask.shape[:1])}, got {tuple(bootstrap_values.shape)}; give one a row"
        )
    zero = torch.zeros((), dtype=values.dtype)
    rewards, values = torch.where(mask, rewards, zero), torch.where(mask, values, zero)
    advantages = torch.zeros_like(values)
    next_value, carry = bootstrap_values, torch.zeros_like(bootstrap_values)
    for t in reversed(range(mask.shape[1])):
        chosen = mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        carry = torch.where(chosen, delta + gamma * gae_lambda * carry, carry)
        next_value = torch.where(chosen, values[:, t], next_value)
        advantages[:, t] = torch.where(chosen, carry, zero)
    return advantages, advantages + values


def group_advantages(
    rewards: Tensor, mask: Tensor, groups: Tensor, *, credit: str, leave_one_out: bool, scale: bool
) -> Tensor:
    """Compute each token's share of its episode's return minus the mean of the same in its group.

    Leaving the episode itself out of the mean multiplies the difference by K / (K - 1), for a group of K, and makes the
    baseline independent of the episode's own choices: unbiased.

    Args:
        rewards: (B, T).
        mask: (B, T) bool.
        groups: (B,) number of each episode's group, in any order.
        credit: "episode": a token's share is the whole return. "to_go": the rewards from it on, against the others'
            from the same place in their responses on (0 where they have ended).
        leave_one_out: RLOO's baseline instead of GRPO's.
        scale: divide by the standard deviation (of K - 1 degrees of freedom, plus 1e-4) of the group's returns.

    Returns:
        (B, T), 0 outside the mask, in groups of one and in groups whose rewards are all the same.

    Source: Ahmadian et al. 2024, arXiv:2402.14740, equation 5; Shao et al. 2024, arXiv:2402.03300, equation 3 and, for
    rewards of single steps, section 4.1.3.
    """
    _check_shapes(mask, rewards=rewards)
    if groups.shape != mask.shape[:1]:
        raise ValueError(f"groups must be {tuple(mask.shape[:1])}, got {tuple(groups.shape)}; give one a row")
    rewards_to_go = torch.where(mask, rewards, torch.zeros((), dtype=rewards.dtype)).double().flip(1).cumsum(1).flip(1)
    returns = rewards_to_go[:, :1]
    shares = returns.expand_as(rewards_to_go) if credit == "episode" else rewards_to_go
    _, index, counts = torch.unique(groups, return_inverse=True, return_counts=True)
    size = counts[index][:, None]

    def group_sum(x: Tensor) -> Tensor:
        return torch.zeros((len(counts), x.shape[1]), dtype=x.dtype).index_add(0, index, x)[index]

    advantages = shares - group_sum(shares) / size
    if scale:
        squares = group_sum((returns - group_sum(returns) / size) ** 2)
        advantages = advantages / ((squares / (size - 1).clamp(min=1)).sqrt() + 1e-4)
    if leave_one_out:
        advantages = advantages * size / (size - 1).clamp(min=1)
    return torch.where(mask, advantages, 0.0).to(rewards.dtype)


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Sum x (B, T) over the mask (B, T); a scalar."""
    _check_shapes(mask, x=x)
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype)).sum()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Average x (B, T) over the mask (B, T); 0 when the mask is empty."""
    return masked_sum(x, mask) / mask.sum().clamp(min=1)


def masked_whiten(x: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale x (B, T) to mean 0 and unbiased variance 1 over the mask; 0 outside it.

    One valid slot is returned unchanged; slots that are all equal become 0.

    Source: Huang et al. 2022, "The 37 implementation details of PPO", detail 7; over valid tokens only.
    """
    num_valid = int(mask.sum())
    if num_valid <= 1:
        return torch.where(mask, x, torch.zeros((), dtype=x.dtype))
    # In double precision the rounding of the mean stays far below the guard, so that equal slots become 0.
    centred = torch.where(mask, x, torch.zeros((), dtype=x.dtype)).double()
    centred = torch.where(mask, centred - masked_mean(centred, mask), 0.0)
    std = (masked_sum(centred**2, mask) / (num_valid - 1)).sqrt()
    return (centred / (std + 1e-8)).to(x.dtype)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Compute 1 - Var[returns - values] / Var[returns] over the mask: 1 is perfect, 0 no better than a constant.

    NaN when the returns do not vary.
    """
    _check_shapes(mask, values=values, returns=returns)
    targets, errors = returns[mask].double(), (returns - values)[mask].double()
    variance = targets.var(correction=0)
    return float("nan") if not variance > 0 else float(1 - errors.var(correction=0) / variance)
