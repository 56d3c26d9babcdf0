"""The table of exactness: each algorithm's gradient against enumeration, by the functions of tests/test_gradient.py.

    python benchmarks/exactness.py

V = 3, T = 3, all 15 episodes of 1 to 3 tokens, dense rewards, 21 free logits. "deviation" is the largest difference of
the expectation over all episodes (or all pairs of them) from what is expected, "z" the largest of the 21 differences
over 20,000 sampled episodes, in standard errors; the tests want it below 4. For the KL penalties: cosine and norm of
the expected gradient against that of KL(pi || ref) of the episode.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import test_gradient as exact


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    policy = exact.Tabular(0)
    truth = exact.true_gradient(policy)
    rollout = exact.all_episodes(policy)
    print("| estimator | expected | deviation | z | cosine with the truth |\n|---|---|---|---|---|")
    for name, algorithm in exact.EXACT.items():
        mean = torch.zeros_like(truth)
        for i, p in enumerate(exact.probabilities(rollout)):
            mean += p * exact.update_gradient(policy, exact.draw(rollout, np.array([i])), algorithm)
        z = exact.z_scores(algorithm, truth).max()
        print(
            f"| {name} | the true gradient | {(mean - truth).abs().max():.1e} | {z:.2f} | {_cosine(mean, truth):.4f} |"
        )
    for name, (algorithm, factor) in exact.GROUPED.items():
        z = exact.z_scores(algorithm, factor * truth).max()
        print(f"| {name}, groups of 4 | {factor} x the true gradient | - | {z:.2f} | - |")
    for normalize in ("group", "none"):
        for aggregation in ("sequence_mean", "sequence_sum"):
            algorithm = replace(exact.GRPO, normalize=normalize, aggregation=aggregation)
            expected = exact.expectation_over_groups(algorithm)
            z, cosine = exact.z_scores(algorithm, expected).max(), _cosine(expected, truth)
            print(f"| grpo, pairs, {normalize}, {aggregation} | its own expectation | - | {z:.2f} | {cosine:.4f} |")
    gradients = exact.kl_gradients()
    print("\n| KL penalty | cosine | norm |\n|---|---|---|")
    for name in ("k1_reward", "k2_loss", "k3_loss"):
        ratio = gradients[name].norm() / gradients["true"].norm()
        print(f"| {name} | {_cosine(gradients[name], gradients['true']):.4f} | {ratio:.4f} |")


def _cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


if __name__ == "__main__":
    main()
