"""Your own reward: a function of (problem, text), or a class that scores a batch; composed, registered, trained on."""

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import textenvs

try:
    from agents.algorithms import ALGORITHMS
    from agents.evaluate import evaluate
    from agents.lm import LMPolicy
    from agents.train import TrainConfig, make_envs, start_policy, train
except ImportError:
    raise SystemExit('this example needs PyTorch and transformers; pip install "textenvs[agents]"') from None


def vowels(problem, text):
    """The share of vowels; a plain function is lifted into a Reward."""
    return sum(letter in "aeiou" for letter in text) / max(1, len(text))


class Brevity(textenvs.Reward):
    """1 / (1 + tokens). Range (0, 1]."""

    name = "brevity"

    def __call__(self, problems, responses):
        values = 1 / (1 + responses.lengths)
        return textenvs.Scores(values, {self.name: values})


# Each part is in info. In a file mine.py this line is all that `textenvs train mine:ShortVowels-v0` needs.
REWARD = 0.7 * textenvs.as_reward(vowels) + 0.3 * Brevity()
ENTRY = textenvs.Entry("ShortVowels-v0", "mine", {"task": "copy", "alphabet": "abcde", "reward": REWARD})
textenvs.register_envs([ENTRY])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one update only")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    small = {"episodes_per_update": 64, "num_epochs": 2} if arguments.smoke else {}
    algorithm, num_episodes = replace(ALGORITHMS["ppo"], **small), 64 if arguments.smoke else 2560
    config = TrainConfig("ShortVowels-v0", {}, algorithm, num_episodes=num_episodes, seed=arguments.seed)
    envs = make_envs(config.env_id, 64, {})
    start = start_policy(config, envs)
    with TemporaryDirectory() as folder:
        train(config, Path(folder))
        trained = LMPolicy.from_pretrained(f"{folder}/final", envs.metadata["textgen"])
    for name, policy in (("before", start), ("after", trained)):
        numbers, rollout = evaluate(policy, envs, num_episodes=256, seed=1)
        print(f"{name:6} {numbers['mean_return']:.3f}", [info["response"] for info in rollout.infos[:6]])


if __name__ == "__main__":
    main()
