"""Addition, parity, counting, brackets, dates, increasing numbers: answers by other means, chance by brute force."""

from __future__ import annotations

import calendar
import itertools
from collections import Counter
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import textenvs
from textenvs.rewards import as_reward

NAMES = {
    "addition": "Addition",
    "parity": "Parity",
    "char_count": "CharCount",
    "brackets": "Brackets",
    "dates": "Dates",
    "increasing_numbers": "IncreasingNumbers",
}
EXACT = ("parity", "char_count", "dates")
SOLVED = {
    "addition": [("12+7=", "19"), ("99+99=", "198"), ("0+0=", "0"), ("5+95=", "100")],
    "parity": [("0110=", "0"), ("0111=", "1"), ("00000000=", "0"), ("1=", "1")],
    "char_count": [("b:abcb=", "2"), ("h:abcdabcd=", "0"), (f"a:{'a' * 24}{'b' * 8}=", "24")],
    "brackets": [("([{=", "}])"), ("([]{=", "})"), ("()[=", "]"), ("((([]=", ")))")],
    "dates": [
        ("2024-02-27+3=", "2024-03-01"),
        ("2023-02-27+3=", "2023-03-02"),
        ("2100-02-28+1=", "2100-03-01"),
        ("2000-02-28+1=", "2000-02-29"),
        ("2099-12-31+1=", "2100-01-01"),
        ("2019-07-14+99=", "2019-10-21"),
    ],
    "increasing_numbers": [
        ("7=", "8,9,10,11,12"),
        ("0=", "1,2,3,4,5"),
        ("99=", "100,101,102,103,104"),
        ("999=", "1000,1001,1002,1003,1004"),
    ],
}
#: Settings so small that every response can be written down.
TINY: dict[str, dict[str, Any]] = {
    "addition": {"num_digits": 1},
    "parity": {"length": 4},
    "char_count": {"length": 5, "alphabet": "abc"},
    "brackets": {"length": 4, "kinds": 2},
    "increasing_numbers": {"count": 1, "max_start": 9},
}


def play(env: Any, text: str, prompt: str) -> tuple[float, dict[str, Any]]:
    """Reward and last info of a whole response, as far as the episode goes."""
    env.reset(options={"prompt": prompt})
    for token in [*env.rules.vocab.encode(text), env.rules.vocab.eos_id]:
        _, reward, terminated, _, info = env.step(token)
        if terminated:
            break
    return reward, info


def score_all(task: textenvs.Task, texts: list[str]) -> np.ndarray:
    """(B,) the task's own score of each problem's text, cut at the budget."""
    token_ids = np.full((len(texts), task.max_new_tokens), -1)
    for row, text in zip(token_ids, texts, strict=True):
        ids = task.vocab.encode(text)[: task.max_new_tokens]
        row[: len(ids)] = ids
    responses = textenvs.Responses(token_ids, (token_ids >= 0).sum(1), ["eos"] * len(texts), task.vocab)
    values: np.ndarray = as_reward(task.reward)([task[k] for k in range(len(texts))], responses).values
    return values


@pytest.mark.parametrize("name", NAMES)
def test_worked_examples(name: str) -> None:
    task = textenvs.make_task(name)
    assert [(prompt, task.problem(prompt).references[0]) for prompt, _ in SOLVED[name]] == SOLVED[name]


def test_references_by_other_means() -> None:
    """Each reference is what a second program says, written another way."""
    task = textenvs.make_task("dates", split="all")
    for k in range(0, 10_000, 9):
        (text, reference) = task[k].prompt[:-1], task[k].references[0]
        year, month, day = map(int, text[:10].split("-"))
        for _ in range(int(text[11:])):
            day += 1
            if day > calendar.monthrange(year, month)[1]:
                year, month, day = (year, month + 1, 1) if month < 12 else (year + 1, 1, 1)
        assert reference == f"{year:04}-{month:02}-{day:02}"
    task = textenvs.make_task("brackets", split="all")
    for k in range(2000):
        text = task[k].prompt[:-1] + task[k].references[0]
        assert len(task[k].prompt) == 9
        while any(pair in text for pair in ("()", "[]", "{}")):
            for pair in ("()", "[]", "{}"):
                text = text.replace(pair, "")
        assert text == ""


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_scores_one_through_the_env(name: str) -> None:
    for split in ("train", "heldout"):
        env: Any = gym.make(f"textenvs/{NAMES[name]}-v0", split=split).unwrapped
        for k in range(0, len(env.rules.task), max(1, len(env.rules.task) // 40)):
            env.reset(options={"problem": k})
            for token in env.demonstration():
                assert env.action_masks()[token]
                _, reward, terminated, _, info = env.step(token)
            assert (reward, terminated, info["is_success"]) == (1.0, True, True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tiny", [True, False])
def test_splits_are_disjoint_and_cover_everything(name: str, *, tiny: bool) -> None:
    settings = TINY.get(name, {}) if tiny else {}
    tasks = {split: textenvs.make_task(name, split=split, **settings) for split in ("train", "heldout", "all")}
    prompts = {split: [task[k].prompt for k in range(len(task))] for split, task in tasks.items()}
    assert len(set(prompts["all"])) == len(prompts["all"]) == min(tasks["all"].num_inputs(), 10_000)
    assert sorted(prompts["train"] + prompts["heldout"]) == sorted(prompts["all"])
    assert len(prompts["heldout"]) == len(prompts["all"]) // 5


@pytest.mark.parametrize("name", TINY)
def test_every_input_comes_once(name: str) -> None:
    task = textenvs.make_task(name, split="all", **TINY[name])
    inputs = [task.input(number) for number in range(task.num_inputs())]
    assert len(set(inputs)) == len(inputs)
    if name == "brackets":  # all of them: by trying every string
        prefixes = [text for text in map("".join, itertools.product("()[]", repeat=4)) if task._open(text)]
        assert sorted(inputs) == sorted(prefixes)


@pytest.mark.parametrize("num_digits", [1, 2, 3, 4])
def test_a_sum_and_its_summands_the_other_way_round_are_in_one_split(num_digits: int) -> None:
    tasks = [textenvs.make_task("addition", num_digits=num_digits, split=split) for split in ("train", "heldout")]
    seen = [{task[k].prompt[:-1] for k in range(len(task))} for task in tasks]
    turned = [{"+".join(text.split("+")[::-1]) for text in texts} for texts in seen]
    assert not seen[0] & seen[1]
    assert turned == seen
    # Neither way round is rarer where problems are taken evenly spread.
    task = textenvs.make_task("addition", num_digits=num_digits, split="all")
    summands = [map(int, task[k].prompt[:-1].split("+")) for k in range(0, len(task), max(2, len(task) // 200))]
    assert 0.3 < np.mean([left < right for left, right in summands]) < 0.7


def test_every_sum_of_two_digit_numbers_comes_once() -> None:
    task = textenvs.make_task("addition", split="all")
    texts = sorted(task.input(number) for number in range(task.num_inputs()))
    assert texts == sorted(f"{left}+{right}" for left in range(100) for right in range(100))


def test_brackets_of_two_kinds_come_once_and_all() -> None:
    task = textenvs.make_task("brackets", length=5, kinds=2, split="all")
    inputs = sorted(task.input(number) for number in range(task.num_inputs()))
    assert inputs == sorted(text for text in map("".join, itertools.product("()[]", repeat=5)) if task._open(text))


@pytest.mark.parametrize("name", [*TINY, "longer increasing_numbers"])
def test_random_return_by_brute_force(name: str) -> None:
    """All V^T token sequences of a small task, each with its probability, scored one by one."""
    settings = TINY.get(name, {"count": 2, "max_start": 9})
    task = textenvs.make_task(name.split()[-1], split="all", **settings)
    task.max_new_tokens = min(task.max_new_tokens, 4)
    v, eos, budget = task.vocab.num_tokens, task.vocab.eos_id, task.max_new_tokens
    texts: Counter[str] = Counter()
    for tokens in itertools.product(range(v), repeat=budget):
        texts[task.vocab.decode(tokens[: tokens.index(eos)] if eos in tokens else tokens)] += 1
    token_ids = np.full((len(texts), budget), -1)
    for row, text in zip(token_ids, texts, strict=True):
        row[: len(text)] = task.vocab.encode(text)
    responses = textenvs.Responses(token_ids, (token_ids >= 0).sum(1), ["eos"] * len(texts), task.vocab)
    weights = np.array(list(texts.values())) / v**budget
    numbers = range(0, len(task), max(1, len(task) // 16))
    expected = {}
    for k in numbers if name != "addition" else range(len(task)):
        values = as_reward(task.reward)([task[k]] * len(texts), responses).values
        expected[k] = float(values @ weights)
    if name.endswith("increasing_numbers"):
        assert len(expected) == len(task)
        assert task.random_return() == pytest.approx(np.mean(list(expected.values())), abs=1e-12)
    for k, value in expected.items():
        if not name.endswith("increasing_numbers"):
            assert task.random_score(len(task[k].references[0])) == pytest.approx(value, abs=1e-12)
    assert budget < task.count * 3 if name.startswith("longer") else task.optimal_return() == 1.0


def test_random_return_of_dates() -> None:
    """Ten right symbols of 14, then the end token."""
    assert textenvs.make_task("dates").random_return() == pytest.approx(14.0**-11)


@pytest.mark.parametrize("name", ["addition", "parity", "char_count", "brackets", "increasing_numbers"])
def test_random_return_agrees_with_played_episodes(name: str) -> None:
    envs = gym.make_vec(f"textenvs/{NAMES[name]}-v0", num_envs=200, autoreset_mode="SameStep")
    envs.reset(seed=0)
    rng, returns = np.random.default_rng(0), []
    while len(returns) < 10_000:
        _, rewards, terminated, _, _ = envs.step(rng.integers(envs.single_action_space.n, size=200))
        returns += rewards[terminated].tolist()
    expected = textenvs.make_task(name).random_return()
    assert abs(np.mean(returns) - expected) < 4 * np.std(returns) / len(returns) ** 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_policies_that_do_not_read_seldom_succeed(name: str, split: str) -> None:
    """Success of the best constant, empty, echoing, repeating and everything-at-once policy; parity has two answers."""
    task = textenvs.make_task(name, split=split)
    problems = [task[k] for k in range(min(len(task), 600))]
    num = len(problems)
    references = Counter(problem.references[0] for problem in problems)
    constants = [text for text, _ in references.most_common(5)]
    policies = [[""] * num, *([text] * num for text in constants), *([text * 3] * num for text in constants)]
    inputs = [problem.prompt[:-1] for problem in problems]
    policies += [[text + "=" for text in inputs], inputs, [text[::-1] for text in inputs]]
    policies += [[text[:10] for text in inputs], [text.split("+")[-1].split(":")[-1] for text in inputs]]
    policies += [["".join([*references][:12])] * num]
    scores = np.array([score_all(task, texts) for texts in policies])
    success = (scores == 1.0).mean(1).max()
    assert success <= (0.58 if name == "parity" else 0.05)
    if name not in EXACT:
        assert 1 - scores.mean(1).max() >= 0.3
    gold = [problem.references[0] for problem in problems]
    for suffix in ("=", task.vocab.tokens[0] * 5, *task.vocab.tokens[1:3]):
        padded = [text + suffix for text in gold]
        if name == "increasing_numbers" and suffix != "=":
            continue  # the end of the last number: another list, which is judged as it stands
        assert (score_all(task, padded) < 1).all() or task.max_new_tokens == len(gold[0])


def test_padding_a_wrong_answer_never_gains() -> None:
    for name in EXACT:
        task = textenvs.make_task(name)
        wrong = [task[(k + 1) % 50].references[0] for k in range(50)]
        keep = [k for k in range(50) if wrong[k] != task[k].references[0]]
        for pad in ("=", "1", task.vocab.tokens[2], "11"):
            for texts in ([pad + text for text in wrong], [text + pad for text in wrong]):
                longer = [text != task[k].references[0] for k, text in enumerate(texts)]
                scores = score_all(task, texts)
                assert all(scores[k] == 0 for k in keep if longer[k])


def test_counts_are_uniform() -> None:
    """A constant answer to the default task is right in 1 of 31, on both splits."""
    for split in ("train", "heldout"):
        task = textenvs.make_task("char_count", split=split)
        counts = Counter(task[k].references[0] for k in range(len(task)))
        assert set(counts) == {str(i) for i in range(31)}
        assert max(counts.values()) - min(counts.values()) <= 1
    letters: Counter[str] = Counter()
    for k in range(1600):
        letters.update(task[k].prompt[2:-1].replace(task[k].prompt[0], ""))
    assert max(letters.values()) < 1.2 * min(letters.values())


def test_constant_answers_to_parity_are_chance() -> None:
    task = textenvs.make_task("parity", length=12, split="all")
    assert Counter(task[k].references[0] for k in range(len(task))) == {"0": 2048, "1": 2048}


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("8,9,10,11,12", 1),
        ("10,13,16,19,22", 1),
        ("8,9,10", 3 / 5),
        ("8,9,10,11,12,13", 5 / 6),
        ("8,9,10,11,12,", 5 / 6),
        ("8,8,8,8,8", 1 / 5),
        ("8,9,9,10,11", 2 / 5),
        ("7,8,9,10,11", 0),
        ("11,12,13,14,15", 0),
        ("08,9,10", 0),
        ("8,,9", 1 / 5),
        ("", 0),
        (",,,,,,,", 0),
        ("8=", 0),
        ("8,9=", 1 / 5),
    ],
)
def test_positions_of_increasing_numbers(text: str, score: float) -> None:
    env: Any = gym.make("textenvs/IncreasingNumbers-v0").unwrapped
    reward, info = play(env, text, "7=")
    assert reward == info["in_steps"] == pytest.approx(score)


def test_increasing_numbers_of_any_script_and_length() -> None:
    reward = textenvs.make_task("increasing_numbers").reward
    for text in ("٨,٩", "²", "8" * 100_000, "8," * 50_000, "+8,+9", " 8, 9", "8.0", "8_0", "\ud800,8", "\x00", "-1"):
        assert 0 <= reward._score("7", text) <= 0.001


def test_masks_allow_balanced_strings_that_fit() -> None:
    """Random legal walks end balanced; the masks are those of a second program that tries every continuation."""
    env: Any = gym.make("textenvs/Brackets-v0", length=4, kinds=2).unwrapped
    task, rng = env.rules.task, np.random.default_rng(0)

    def closable(text: str, room: int) -> bool:
        opened = task._open(text)
        return opened is not None and len(opened) <= room

    for seed in range(60):
        env.reset(seed=seed)
        prompt, response = task[env._number].prompt[:-1], ""
        for left in range(task.max_new_tokens, 0, -1):
            expected = [
                task._open(prompt + response) == ""
                if symbol == "<eos>"
                else closable(prompt + response + symbol, left - 1)
                for symbol in task.vocab.tokens
            ]
            assert env.action_masks().tolist() == expected
            token = int(rng.choice(np.flatnonzero(env.action_masks())))
            _, _, terminated, _, info = env.step(token)
            response += task.vocab.decode([token])
            if terminated:
                break
        assert task._open(prompt + info["response"]) == ""
        assert info["is_success"] == (info["response"] == task[info["problem"]].references[0])
    env.reset(seed=0)
    env.step(task.vocab.token_id("="))
    assert np.flatnonzero(env.action_masks()).tolist() == [task.vocab.eos_id]
    assert gym.make("textenvs/Brackets-v0", masked=False).unwrapped.metadata["textgen"]["has_masks"] is False


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        *(("addition", prompt) for prompt in ("12+7", "12=", "+7=", "123+1=", "1+2+3=", "1-2=", "１+2=", "=", "")),
        *(("parity", prompt) for prompt in ("0120=", "=", "01")),
        *(("char_count", prompt) for prompt in ("b:=", "babc=", "z:abc=", "b:abz=", ":abc=", "b:abc")),
        *(("brackets", prompt) for prompt in ("()=", "(]=", ")=", "=", "<=", "((")),
        *(("dates", prompt) for prompt in ("2023-02-29+1=", "2023-1-1+1=", "2023-01-01=", "2023-01-01+0=")),
        *(("dates", prompt) for prompt in ("2023-13-01+1=", "9999-12-31+1=", "٢٠٢٣-01-01+1=")),
        *(("increasing_numbers", prompt) for prompt in ("1000=", "07=", "x=", "=", "7")),
    ],
)
def test_prompts_that_no_task_can_read(name: str, prompt: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        textenvs.make_task(name).problem(prompt)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("addition", {"num_digits": 0}, r"num_digits must be an int in \[1, 100\], got 0"),
        ("parity", {"length": 3}, r"length must be an int in \[4, 1000\], got 3"),
        ("char_count", {"alphabet": "ab1"}, "alphabet must be"),
        ("char_count", {"alphabet": "aa"}, "alphabet must be"),
        ("char_count", {"length": True}, "length must be"),
        ("brackets", {"kinds": 5}, r"kinds must be an int in \[1, 4\], got 5"),
        ("brackets", {"masked": 1}, "masked must be True or False, got 1"),
        ("brackets", {"length": 2, "kinds": 1}, "split must be 'all'"),
        ("dates", {"first_year": 2001, "last_year": 2000}, "last_year must be an int in"),
        ("dates", {"max_days": 0}, "max_days must be an int in"),
        ("increasing_numbers", {"count": 0}, "count must be an int in"),
        ("increasing_numbers", {"max_start": 3}, "max_start must be an int in"),
    ],
)
def test_settings_out_of_range(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        textenvs.make_task(name, **settings)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("addition", {"num_digits": 100}),
        ("parity", {"length": 1000}),
        ("char_count", {"length": 200}),
        ("brackets", {"length": 200, "kinds": 4}),
        ("dates", {"first_year": 1000, "last_year": 9700, "max_days": 99_999}),
        ("increasing_numbers", {"count": 100, "max_step": 1000, "max_start": 10**6}),
    ],
)
def test_the_largest_settings_work(name: str, settings: dict[str, Any]) -> None:
    task = textenvs.make_task(name, **settings)
    assert (score_all(task, [task[k].references[0] for k in range(50)]) == 1).all()
