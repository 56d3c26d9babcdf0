"""Algorithms as rows of choices. Every choice and coefficient has its one home here: meaning, range, source.

There is one loss, PPO's clipped surrogate. With one epoch of one minibatch every ratio is 1, where its gradient is the
plain policy gradient (Huang et al. 2022, "A2C is a special case of PPO", arXiv:2205.09123): so REINFORCE and A2C are
rows of the same loop, and giving them more epochs keeps them correct.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

Baseline = Literal["none", "critic", "leave_one_out", "group_mean"]
Credit = Literal["episode", "to_go"]
Normalization = Literal["none", "batch", "group"]
Aggregation = Literal["token_mean", "sequence_mean", "sequence_sum"]
KlPenalty = Literal["k1_reward", "k2_loss", "k3_loss"]

_POSITIVE = {"learning_rate", "adam_epsilon", "max_grad_norm", "clip_range", "kl_horizon"}
_POSITIVE_OR_NONE = {"value_clip_range", "target_kl", "kl_target"}
_FRACTIONS = {"gamma", "gae_lambda"}
_SWITCHES = {"fit_value_bias"}
_COUNTS = dict.fromkeys(("episodes_per_update", "num_epochs", "num_minibatches", "group_size", "imitated_episodes"), 1)
_COUNTS |= {"learning_starts": 0}  # the least of each
_CHOICES = {
    "baseline": ("none", "critic", "leave_one_out", "group_mean"),
    "credit": ("episode", "to_go"),
    "normalize": ("none", "batch", "group"),
    "aggregation": ("token_mean", "sequence_mean", "sequence_sum"),
    "kl_penalty": ("k1_reward", "k2_loss", "k3_loss"),
}


@dataclass(frozen=True)
class Algorithm:
    """One row: how rollouts become gradients. The defaults are PPO's, tuned on short string tasks.

    Attributes:
        baseline: what is subtracted from the return. "none": nothing, reward-to-go (Williams 1992). "critic": the
            learned value, through GAE, which also continues an episode that was cut from outside; for the others it
            ends there. "leave_one_out": the mean return of the other episodes of the group (RLOO; Kool et al. 2019;
            Ahmadian et al. 2024, arXiv:2402.14740). "group_mean": the mean of the whole group (GRPO; Shao et al. 2024,
            arXiv:2402.03300), which scales the gradient by (K - 1) / K.
        group_size: K, successive episodes that share their problem; at least 2 for a group baseline.
        credit: with a group baseline, what of the return a token answers for. "episode": all of it, as RLOO and GRPO
            are published for rewards at the end. "to_go": the rewards from it on, which is less noise when rewards are
            dense (GRPO with process supervision is alike, arXiv:2402.03300, section 4.1.3).
        normalize: of advantages. "none"; "batch": mean 0, variance 1 over all tokens of the update (Huang et al. 2022,
            "The 37 implementation details of PPO", detail 7, over the update rather than the minibatch); "group":
            divide by the standard deviation of the group's returns, as GRPO does and Dr. GRPO (Liu et al. 2025,
            arXiv:2503.20783) advises against, because it weighs nearly solved problems more.
        aggregation: of tokens into the loss. "token_mean": the mean over all tokens of the step (DAPO, Yu et al. 2025,
            arXiv:2503.14476; usual for PPO). "sequence_mean": first over each episode (GRPO), which favours brief right
            and long wrong responses. "sequence_sum": summed over each episode, so exactly the policy gradient (Dr. GRPO
            up to a constant).
        episodes_per_update: whole episodes sampled between updates; a multiple of group_size.
        learning_starts: least episodes sampled before the first update, which learns from all of them, as DQN fills its
            replay before it learns (Mnih et al. 2015; Stable-Baselines3's of this name counts steps); at least 0, a
            multiple of group_size; 0 for no more than in any other update.
        num_epochs: passes over them; at least 1. Schulman et al. 2017, arXiv:1707.06347, section 5.
        num_minibatches: optimizer steps a pass; at least 1.
        gamma: discount in [0, 1]; 1 for language, where the return is the score (Ziegler et al. 2019,
            arXiv:1909.08593), and with a group baseline.
        gae_lambda: bias against variance of the critic's advantage, in [0, 1]; 1 is the return minus the value.
            Schulman et al. 2016, arXiv:1506.02438.
        clip_range: how far the ratio may move before its gradient stops, above 0; arXiv:1707.06347, equation 7.
        value_coef: weight of the critic's loss, at least 0; small, because the trunk is shared with the policy.
        value_clip_range: how far a value may move from the sampled one, above 0, in units of reward; None for no limit.
            As in OpenAI baselines; Andrychowicz et al. 2021, arXiv:2006.05990, found no gain.
        fit_value_bias: with a critic, set its bias before the steps of an update to what fits the targets best. Adam
            moves a bias by the learning rate a step; where steps are few or small, the critic puts the mean return
            together from the tokens instead, and is worse than a constant. As PopArt follows the mean of its targets
            (van Hasselt et al. 2016, arXiv:1602.07714), over one update.
        entropy_coef: weight of the entropy bonus in nats a token, at least 0; Williams and Peng 1991.
        target_kl: the update ends before a step whose KL from the sampling policy (nats a token) exceeds 1.5 times
            this, above 0; None for never. As in OpenAI Spinning Up and Stable-Baselines3.
        imitation_coef: weight of self-imitation, at least 0: earlier episodes stay in a replay, and (R - V)+ log pi of
            their decisions is added to the objective, V being 0 without a critic, so that what once succeeded is not
            unlearnt, or is learnt although it is rare. Oh et al. 2018, arXiv:1806.05779, equations 1 and 2; its third,
            of the critic, is left out. R is not the paper's return but what the update learns from: with a critic GAE's
            target, with a group the advantage, and less the KL penalty where that is in the reward. For rewards that
            are hardly luck: luck is imitated too.
        imitated_episodes: how many of them join each optimizer step, at least 1; drawn by their (R - V)+ when played.
        kl_coef: weight of the KL penalty (a nat) to the frozen start, at least 0; arXiv:1909.08593, section 2.
        kl_penalty: where it acts. "k1_reward": log pi / ref of each token is taken from its reward, without gradient;
            its expected gradient is the KL's (Tang and Munos 2025, arXiv:2506.09477). "k2_loss" and "k3_loss": added
            to the loss token by token (k3 is GRPO's), which leaves out how a token changes later ones: biased.
        kl_target: nats an episode; kl_coef then follows it (arXiv:1909.08593, section 2.2), above 0; None keeps it.
        kl_horizon: episodes in which kl_coef may change by about e times 0.2, above 0; the same source.
        learning_rate: of Adam at the first update, above 0; falls linearly to 0 (37 details, detail 4).
        adam_epsilon: above 0; 1e-5 as in the same list, detail 3.
        max_grad_norm: the gradient is scaled down to this global norm, above 0; the same list, detail 11.
    """

    baseline: Baseline = "critic"
    group_size: int = 1
    credit: Credit = "episode"
    normalize: Normalization = "batch"
    aggregation: Aggregation = "token_mean"
    episodes_per_update: int = 64
    learning_starts: int = 0
    num_epochs: int = 4
    num_minibatches: int = 4
    gamma: float = 1.0
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    value_coef: float = 0.1
    value_clip_range: float | None = None
    fit_value_bias: bool = False
    entropy_coef: float = 0.01
    target_kl: float | None = None
    imitation_coef: float = 0.0
    imitated_episodes: int = 32
    kl_coef: float = 0.0
    kl_penalty: KlPenalty = "k1_reward"
    kl_target: float | None = None
    kl_horizon: float = 10_000.0
    learning_rate: float = 1e-3
    adam_epsilon: float = 1e-5
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a coefficient outside its range, and choices that contradict each other.

        Raises:
            ValueError: names the coefficient, its value and the range.
        """
        for field in fields(self):
            _check_range(field.name, getattr(self, field.name))
        grouped = self.baseline in ("leave_one_out", "group_mean")
        if grouped and self.group_size < 2:
            raise ValueError(f"group_size must be at least 2 for {self.baseline!r}, got {self.group_size}; raise it")
        if grouped and self.gamma != 1:
            raise ValueError(f"gamma must be 1 for {self.baseline!r}, which compares whole returns, got {self.gamma}")
        if self.credit == "to_go" and not grouped:
            raise ValueError(
                f"credit must be left out for baseline {self.baseline!r}, got 'to_go', which is what it does anyway"
            )
        if self.normalize == "group" and not grouped:
            raise ValueError(f"normalize must be 'none' or 'batch' for baseline {self.baseline!r}, got 'group'")
        if self.fit_value_bias and self.baseline != "critic":
            raise ValueError(f"fit_value_bias must be left out for baseline {self.baseline!r}, which has no critic")
        for name in ("episodes_per_update", "learning_starts"):
            if (episodes := getattr(self, name)) % self.group_size:
                raise ValueError(
                    f"{name} must be a multiple of group_size={self.group_size}, got {episodes}; change one"
                )
        if self.kl_target is not None and self.kl_coef == 0:
            raise ValueError("kl_coef must be above 0 for kl_target to move it, got 0.0; start at 0.1")
        if self.kl_target is not None and self.kl_horizon <= self.num_sampled(1):
            raise ValueError(
                f"kl_horizon must be above the {self.num_sampled(1)} episodes of an update, or kl_coef jumps, "
                f"got {self.kl_horizon}; 10,000 is usual"
            )

    def num_sampled(self, num_updates: int) -> int:
        """Episodes that so many updates have sampled."""
        first = max(self.learning_starts, self.episodes_per_update)
        return first + (num_updates - 1) * self.episodes_per_update if num_updates else 0

    def num_updates(self, num_episodes: int) -> int:
        """Updates that so many episodes are for, at least 1; the last may have fewer than the others."""
        rest = num_episodes - self.num_sampled(1)
        return 1 + max(0, math.ceil(rest / self.episodes_per_update))


def _check_range(name: str, value: object) -> None:
    """Raise a ValueError for a value outside the range of its coefficient."""
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf
    if name in _CHOICES:
        _require(value in _CHOICES[name], name, f"one of {', '.join(_CHOICES[name])}", value)
    elif name in _SWITCHES:
        _require(isinstance(value, bool), name, "True or False", value)
    elif name in _COUNTS:
        least = _COUNTS[name]
        _require(isinstance(value, int) and number >= least, name, f"an integer of at least {least}", value)
    elif name in _FRACTIONS:
        _require(0 <= number <= 1, name, "in [0, 1]", value)
    elif name in _POSITIVE_OR_NONE:
        _require(value is None or (math.isfinite(number) and number > 0), name, "positive and finite", value)
    elif name in _POSITIVE:
        _require(math.isfinite(number) and number > 0, name, "positive and finite", value)
    else:
        _require(math.isfinite(number) and number >= 0, name, "finite and not negative", value)


def _require(holds: bool, name: str, what: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {what}, got {value!r}; leave it out for the default")


_ONE_STEP = Algorithm(num_epochs=1, num_minibatches=1, normalize="none", aggregation="sequence_sum", gae_lambda=1.0)

#: What the command calls each row. On whole episodes A2C is REINFORCE with a learned baseline and an entropy bonus;
#: they part where an episode was cut from outside.
ALGORITHMS = {
    "reinforce": replace(_ONE_STEP, baseline="none", entropy_coef=0.0),
    "a2c": replace(_ONE_STEP, value_coef=0.5),
    "ppo": Algorithm(),
    "rloo": Algorithm(baseline="leave_one_out", group_size=8, normalize="none", aggregation="sequence_sum"),
    "grpo": Algorithm(
        baseline="group_mean", group_size=8, normalize="group", aggregation="sequence_mean", kl_penalty="k3_loss"
    ),
}
