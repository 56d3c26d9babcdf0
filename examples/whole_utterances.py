"""An agent without tokens: it reads and writes whole turns of text, as a chat model behind an API would."""

import argparse
import re

import gymnasium as gym

import textenvs


def halve(conversation):
    """Guess the middle of what `1-200=100>150<` leaves open; any function from text to text would do."""
    limits, *turns = re.split("[=<>]", conversation)
    low, high = map(int, limits.split("-"))
    for guess, answer in zip(turns, re.findall("[<>]", conversation), strict=False):
        low, high = (int(guess) + 1, high) if answer == ">" else (low, int(guess) - 1)
    return str((low + high) // 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="five episodes only")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    env = textenvs.Utterances(gym.make("textenvs/GuessNumber-v0"))  # an action is a text, a step is a turn
    num_episodes, total = 5 if arguments.smoke else 500, 0.0
    for episode in range(num_episodes):
        conversation, _ = env.reset(seed=arguments.seed if episode == 0 else None)
        done = False
        while not done:
            conversation, reward, terminated, truncated, info = env.step(halve(conversation))
            total, done = total + reward, terminated or truncated
        if episode < 3:
            print(conversation, "|", info["finish_reason"], info["is_success"])
    print(f"mean return {total / num_episodes:.3f} over {num_episodes} episodes")


if __name__ == "__main__":
    main()
