"""Agents that learn to write: language-model policies, PPO, evaluation and baselines over Gymnasium environments."""
