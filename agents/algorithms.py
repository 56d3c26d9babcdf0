"""Algorithms as rows of choices. Every coefficient has its one home here: its meaning, range and source."""

import math
from dataclasses import dataclass, fields

_POSITIVE = {"learning_rate", "adam_epsilon", "max_grad_norm", "clip_range"}
_FRACTIONS = {"gamma", "gae_lambda"}
_COUNTS = {"episodes_per_update", "num_epochs", "num_minibatches"}


@dataclass(frozen=True)
class Algorithm:
    """One row: how rollouts become gradients. The defaults are PPO's, tuned on short string tasks.

    Attributes:
        episodes_per_update: whole episodes sampled between updates; at least 1.
        num_epochs: passes over them; at least 1. Schulman et al. 2017, arXiv:1707.06347, section 5.
        num_minibatches: optimizer steps a pass; at least 1.
        gamma: discount in [0, 1]; 1 for language, where the return is the score (Ziegler 2019, arXiv:1909.08593).
        gae_lambda: bias against variance of the advantage, in [0, 1]; Schulman et al. 2016, arXiv:1506.02438.
        clip_range: how far the ratio may move before its gradient stops, above 0; arXiv:1707.06347, equation 7.
        value_coef: weight of the value loss, at least 0; small, because the trunk is shared with the policy.
        entropy_coef: weight of the entropy bonus in nats a token, at least 0; Williams and Peng 1991.
        kl_coef: reward lost per nat a token moves away from the frozen start, at least 0; arXiv:1909.08593, section 2.
        learning_rate: of Adam at the first update, above 0; falls linearly to 0 (Huang et al. 2022, "The 37
            implementation details of PPO", detail 4).
        adam_epsilon: above 0; 1e-5 as in the same list, detail 3.
        max_grad_norm: the gradient is scaled down to this global norm, above 0; the same list, detail 11.
    """

    episodes_per_update: int = 64
    num_epochs: int = 4
    num_minibatches: int = 4
    gamma: float = 1.0
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    value_coef: float = 0.1
    entropy_coef: float = 0.01
    kl_coef: float = 0.0
    learning_rate: float = 1e-3
    adam_epsilon: float = 1e-5
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a coefficient outside its range.

        Raises:
            ValueError: names the coefficient, its value and the range.
        """
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if name in _COUNTS:
                _require(isinstance(value, int) and value >= 1, name, "an integer of at least 1", value)
            elif name in _FRACTIONS:
                _require(0 <= value <= 1, name, "in [0, 1]", value)
            elif name in _POSITIVE:
                _require(math.isfinite(value) and value > 0, name, "positive and finite", value)
            else:
                _require(math.isfinite(value) and value >= 0, name, "finite and not negative", value)


def _require(holds: bool, name: str, what: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {what}, got {value}; leave it out for the default")


#: What the command calls each row.
ALGORITHMS = {"ppo": Algorithm()}
