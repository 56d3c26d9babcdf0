"""Your own task, in four steps: a class, an entry, the contract checked, an agent trained on it."""

import argparse
import itertools
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import textenvs

try:
    from agents.algorithms import ALGORITHMS
    from agents.train import TrainConfig, train
except ImportError:
    raise SystemExit('this example needs PyTorch and transformers; pip install "textenvs[agents]"') from None

ALPHABET, SHIFTED = "abcdef", str.maketrans("abcdef", "bcdefa")


class Caesar(textenvs.Task):
    """Shift every letter by one, round the alphabet: `afb` -> `bac`."""

    vocab = textenvs.CharVocab(ALPHABET)
    reward = "position_match"
    max_new_tokens = 4  # three letters and the end token

    def __init__(self, *, split: str = "train") -> None:
        prompts = ["".join(letters) for letters in itertools.product(ALPHABET, repeat=3)]
        kept = {"train": (1, 2, 3, 4), "heldout": (0,), "all": range(5)}[split]  # of every five
        self.prompts = [prompt for k, prompt in enumerate(prompts) if k % 5 in kept]

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, k: int) -> textenvs.Problem:
        return textenvs.Problem(self.prompts[k], references=(self.prompts[k].translate(SHIFTED),))


textenvs.register_envs([textenvs.Entry("Caesar-v0", "mine", {"task": Caesar(), "dense": True}, 0.95)])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one update only")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    textenvs.check_env("Caesar-v0")  # spaces, seeds, masks, rewards: an error names every clause that is broken
    algorithm = replace(ALGORITHMS["ppo"], episodes_per_update=64, num_epochs=2 if arguments.smoke else 8)
    config = TrainConfig("Caesar-v0", {}, algorithm, num_episodes=64 if arguments.smoke else 6400, seed=arguments.seed)
    with TemporaryDirectory() as folder:
        train(config, Path(folder) / "run")
        lines = (Path(folder) / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    returns = [json.loads(line)["return"] for line in lines]
    print(f"mean return {returns[0]:.3f} in the first update, {returns[-1]:.3f} in the last of {len(returns)}")


if __name__ == "__main__":
    main()
