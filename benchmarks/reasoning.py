"""Check every dataset of reasoning-gym as `textenvs/ReasoningGym-v0` plays it: `python benchmarks/reasoning.py`.

For each dataset that is not refused: 30 questions are generated, here and in another process under another hash seed,
and must be equal; every answer must score 1 through the env's rules and 0 with anything put before or after it. For
comparison, how many of the padded answers the library's own scorer gives full marks, and which other forms of the right
answer it gives full marks where the env pays 0. Then the refused, with the reason.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import reasoning_gym

import textenvs
from textenvs.tasks.reasoning import OWN_SCORER, REFUSED

NUM_PROBLEMS = 30
PADDINGS = ("{} zz", "{}\nzz", "zz {}", "{},zz", "It is {}.", "{0} or {0}")

_NUMBER = r"(?<![\w.])([0-9]+)"
#: Other forms of an answer.
FORMS: dict[str, Callable[[str], str]] = {
    "spacing after commas": lambda text: re.sub(r",\s*", lambda found: "," if found[0] != "," else ", ", text),
    "spacing at line ends": lambda text: text.replace("\n", " \n"),
    "zeros after the point": lambda text: re.sub(r"(?<![\w.])([0-9]+\.[0-9]+)(?![\w.])", r"\g<1>00", text),
    "fraction .0 added": lambda text: re.sub(_NUMBER + r"(?![\w.])", r"\1.0", text),
    "fraction .0 dropped": lambda text: re.sub(_NUMBER + r"\.0+(?![\w.])", r"\1", text),
    "order": lambda text: next((s.join(reversed(text.split(s))) for s in (" × ", ", ") if s in text), text),
    "capitals": str.upper,
    "small letters": str.lower,
    "a near number": lambda text: re.sub(_NUMBER + r"\.([0-9]+)", lambda n: str(float(n[0]) + 1e-6), text),
    "plus sign": lambda text: "+" + text,
    "leading zeros": lambda text: re.sub(_NUMBER, r"0\1", text),
    "final point": lambda text: text + ".",
    "quotation marks": lambda text: f'"{text}"',
    "no quotation marks": lambda text: re.sub("['\"]", "", text),
    "no spaces": lambda text: re.sub(r"\s", "", text),
}


def make_rules(dataset: str) -> textenvs.Rules:
    """The env's rules for all questions."""
    return textenvs.Rules("reasoning_gym", dataset=dataset, num_problems=NUM_PROBLEMS, split="all")


def problems(rules: textenvs.Rules) -> list[textenvs.Problem]:
    """All of them."""
    return [rules.task[k] for k in range(len(rules.task))]


def score(rules: textenvs.Rules, texts: list[str]) -> np.ndarray[Any, Any]:
    """Score one text a problem, in full length."""
    ids = [rules.vocab.encode(text) for text in texts]
    token_ids = np.full((len(ids), max(map(len, ids))), -1)
    for row, tokens in zip(token_ids, ids, strict=True):
        row[: len(tokens)] = tokens
    lengths = np.array([len(tokens) for tokens in ids])
    responses = textenvs.Responses(token_ids, lengths, ["eos"] * len(ids), rules.vocab)
    return rules.reward(problems(rules), responses).values


def full_marks(dataset: str, answers: list[str]) -> int:
    """How many questions of the library's scorer gives full marks to some padded answer; never to code."""
    scorer = reasoning_gym.create_dataset(dataset, size=NUM_PROBLEMS, seed=0)
    entries = {entry["question"]: entry for entry in (scorer[k] for k in range(NUM_PROBLEMS))}

    def fooled(answer: str, entry: Any) -> bool:
        for padding in PADDINGS:
            try:
                if float(scorer.score_answer(padding.format(answer), entry)) >= 1:
                    return True
            except Exception:  # its scorer did not expect such a text
                continue
        return False

    return sum(fooled(answer, entry) for answer, entry in zip(answers, entries.values(), strict=True))


def only_there(dataset: str, rules: textenvs.Rules) -> list[str]:
    """Forms of a right answer that the library's scorer gives full marks, for some question, and the env 0."""
    scorer = reasoning_gym.create_dataset(dataset, size=NUM_PROBLEMS, seed=0)
    entries = {entry["question"]: entry for entry in (scorer[k] for k in range(NUM_PROBLEMS))}
    answers = [problem.references[0] for problem in problems(rules)]

    def full(text: str, entry: Any) -> bool:
        try:
            return float(scorer.score_answer(text, entry)) >= 1
        except Exception:  # its scorer did not expect such a text
            return False

    found = []
    for name, form in FORMS.items():
        texts = [form(answer) for answer in answers]
        rows = zip(texts, score(rules, texts), entries.values(), strict=True)
        if any(value == 0 and full(text, entry) for text, value, entry in rows):
            found.append(name)
    return found


def questions_digest() -> None:
    """Print a digest of the questions of every dataset, for the other process."""
    import hashlib

    for dataset in sys.argv[2:]:
        text = repr([(problem.prompt, problem.references) for problem in problems(make_rules(dataset))])
        print(dataset, hashlib.sha256(text.encode()).hexdigest())


def digests(datasets: list[str], hash_seed: str) -> dict[str, str]:
    """Digests by name, from a fresh process."""
    environ = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, __file__, "--digest", *datasets]
    lines = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.splitlines()
    return dict(line.split() for line in lines)


def main() -> None:
    """Print a Markdown table of the datasets, the refused ones and the counts."""
    datasets = sorted(set(reasoning_gym.factory.DATASETS) - set(REFUSED))
    first, second = (digests(datasets, seed) for seed in ("1", "2"))
    head = ["dataset", "scored by", "P", "T", "ms a question", "same elsewhere", "answers 1", "padded 0"]
    head += ["library fooled", "1 there, 0 here"]
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    good = strict = fooled = 0
    for dataset in datasets:
        start = time.perf_counter()
        rules = make_rules(dataset)
        cost = 1e3 * (time.perf_counter() - start) / NUM_PROBLEMS
        answers = [problem.references[0] for problem in problems(rules)]
        right = int((score(rules, answers) == 1).sum())
        wrong = sum(
            int((score(rules, [padding.format(answer) for answer in answers]) == 0).sum()) for padding in PADDINGS
        )
        marks = full_marks(dataset, answers)
        good += right == len(answers)
        strict += wrong == len(answers) * len(PADDINGS)
        fooled += marks > 0
        cells = (
            dataset,
            "library" if dataset in OWN_SCORER else "equality",
            rules.max_prompt_tokens,
            rules.max_new_tokens,
            f"{cost:.2f}",
            "yes" if first[dataset] == second[dataset] else "NO",
            f"{right}/{len(answers)}",
            f"{wrong}/{len(answers) * len(PADDINGS)}",
            f"{marks}/{len(answers)}",
            ", ".join(only_there(dataset, rules)) or "-",
        )
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    print("\n| refused | why |\n|---|---|")
    for dataset, why in REFUSED.items():
        print(f"| {dataset} | {why} |")
    print(
        f"\n{len(datasets)} datasets played: all answers score 1 in {good}, all padded ones 0 in {strict}; the "
        f"library's own scorer gives full marks to padded answers in {fooled}. {len(REFUSED)} refused."
    )


if __name__ == "__main__":
    questions_digest() if sys.argv[1:2] == ["--digest"] else main()
