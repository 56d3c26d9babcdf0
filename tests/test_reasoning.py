"""ReasoningGym: every dataset is scored or refused; padding, code and noise earn nothing; equal in every process."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from fractions import Fraction
from itertools import permutations
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reward_batches import responses_of

import textenvs
from textenvs.tasks.reasoning import MAX_CHARS, OWN_SCORER, REFUSED, ReasoningGym, ReasoningGymReward, spelt

#: Cheap to generate, and together of every kind: words, numbers, grids, logic, dates, formats.
SOME = (
    "chain_sum", "binary_matrix", "string_insertion", "spiral_matrix", "word_sorting", "survo",
    "fraction_simplification", "time_intervals",
)  # fmt: skip
MARKER = "textenvs_marker"
CODE = (
    f"__import__('os').environ.__setitem__('{MARKER}', '1')",
    f"[__import__('os').putenv('{MARKER}', '1')]",
    f"open('{MARKER}', 'w')",
    "().__class__.__base__.__subclasses__()",
)
HOSTILE = (
    *CODE, "", " \n", "\x00\x07\x1b[2J", "\u202e\u2066", "日本語", "9" * 100_000, "[" * 100_000, "1e999999999",
    "-" * 5000, "9" * 5000, "NaN", "null", "{}", '{"a": 1}', "[[]]", "[null]", '["fill Q"]', '[["a", 1]]', "A=1",
    "A=1," * 3000 + "A=1", "Move disk 99 from Peg 9 to Peg 8", "Move disk 1 from Peg 1 to Peg 1\n" * 300, "U" * 10_000,
    "LRUD" * 2500, " → ".join("ABC" * 1000), "up " * 3000, "0 1\n1 0", "\n".join(["1 0 1"] * 1000),
)  # fmt: skip


def rules(dataset: str, **settings: Any) -> textenvs.Rules:
    return textenvs.Rules("reasoning_gym", dataset=dataset, num_problems=10, split="all", **settings)


def score(env_rules: textenvs.Rules, problem: textenvs.Problem, texts: list[str]) -> textenvs.Scores:
    vocab = env_rules.vocab
    encoded = [vocab.encode(text) for text in texts]
    token_ids = np.full((len(texts), max(map(len, encoded))), -1)
    for row, ids in zip(token_ids, encoded, strict=True):
        row[: len(ids)] = ids
    lengths = np.array([len(ids) for ids in encoded])
    responses = textenvs.Responses(token_ids, lengths, ["eos"] * len(texts), vocab)
    return env_rules.reward([problem] * len(texts), responses)


def padded(answer: str, other: str) -> list[str]:
    around = [
        answer + " zz",
        answer + "\nzz",
        "zz " + answer,
        answer + ",zz",
        answer + " " + answer,
        f"It is {answer}.",
    ]
    return [*around, f"{answer} or {other}", f"{other} {answer}", f"{answer}\n\n{answer}"]


def check_answers(env_rules: textenvs.Rules) -> None:
    """The answers score 1, also with white space around them; with anything else around them they score 0."""
    task = env_rules.task
    for k in range(len(task)):
        problem, other = task[k], task[(k + 1) % len(task)].references[0]
        answer = problem.references[0]
        assert score(env_rules, problem, [answer, f" {answer}\n", ""]).values.tolist() == [1, 1, 0]
        assert not score(env_rules, problem, padded(answer, other)).values.any()


@pytest.mark.parametrize("dataset", SOME)
def test_the_answer_scores_one_and_padded_nothing(dataset: str) -> None:
    check_answers(rules(dataset))


@pytest.mark.parametrize(
    ("answer", "right", "wrong"),
    [
        ("[[0,1],[1,0]]", ["[[0, 1], [1, 0]]", "[\n [0, 1],\n [ 1,0 ]\n]"], ["[[0,1][1,0]]", "[[0,1],[1,0]] ,"]),
        ("-12.582507840", ["-12.58250784", "-12.5825078400"], ["-12.5825078", "12.58250784", "-12.58250784 -1"]),
        ("48.0 + 36.0i", ["48 + 36i", "48.00 + 36i"], ["48 + 36", "48 + 36i zz", "480 + 36i"]),
        ("0.0, 0.5909", ["0,0.5909", "-0.0 , 0.59090"], ["0.5909", "0, 0.5909, 0", "0 0.5909"]),
        ("4.50 4.50\n4.75 5.00", ["4.5 4.5\n4.75 5", "4.50 4.50 \r\n4.75 5.00"], ["4.5 4.5 4.75 5", "4.54.5\n4.75 5"]),
        ("-14282", ["-14282.0", " -14282 "], ["- 14282", "-14282.", "-014282", "-14282.01", "14282", "-1428"]),
        ("Hart, find", ["Hart,find", "Hart ,\tfind"], ["Hart find", "hart, find", "Hart, , find", "Hart,, find"]),
        ("['-91.9', '0.50']", ["['-91.9','0.5']", "[ '-91.90', '0.5' ]"], ["['-91.9']", "[-91.9, 0.5]"]),
        ("0", ["-0", "0.000"], ["00", "", ".", "--0"]),
        ("--4.50", ["--4.5"], ["-4.5", "4.5"]),
        ("1.2.30", ["1.2.30"], ["1.2.3", "1.20.30"]),
        ("9.360e-18", ["9.36e-18"], ["9.36e-18.0", "9.36e-180", "9.36"]),
        ("0011", ["0011"], ["11", "11.0", "011"]),
    ],
)  # fmt: skip
def test_an_answer_may_be_spelt_otherwise(answer: str, right: list[str], wrong: list[str]) -> None:
    reward, problem = ReasoningGymReward("chain_sum", None), textenvs.Problem("q", (answer,))
    wrong = [*wrong, *padded(answer, "7"), f"{answer},", f"[{answer}]"]
    assert reward([problem] * len(right), responses_of(right)).values.tolist() == [1] * len(right)
    assert reward([problem] * len(wrong), responses_of(wrong)).values.tolist() == [0] * len(wrong)


@given(st.text(st.sampled_from("0123456789.-, \n[]a\u0661"), max_size=30))
@example("--0")
def test_spelling_changes_no_number_and_is_stable(text: str) -> None:
    assert spelt(spelt(text)) == spelt(text)
    assert set(spelt(text)) <= set(text)
    if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text):
        assert Fraction(spelt(text)) == Fraction(text)


def test_spelling_takes_linear_time() -> None:
    start = time.perf_counter()
    for part in (" ", "0", "1.", "-", "\n", " \n", ", ", "0 ", "[", "1.0", "\t\r"):
        spelt("a" + part * MAX_CHARS + "a")
    assert time.perf_counter() - start < 0.5


def test_where_several_answers_are_right_the_library_judges() -> None:
    env_rules = rules("palindrome_generation")
    problem = env_rules.task[0]
    answer = problem.references[0]
    half, middle = answer[: len(answer) // 2], answer[len(answer) // 2 : (len(answer) + 1) // 2]
    others = ["".join(ends) + middle + "".join(reversed(ends)) for ends in permutations(half)]
    assert len(set(others)) > 1
    assert score(env_rules, problem, others).values.all()
    assert not score(env_rules, problem, ["xyzzy", answer[1:]]).values.any()


@pytest.mark.parametrize("dataset", OWN_SCORER)
def test_the_librarys_scorers_are_strict_quick_and_run_no_code(dataset: str) -> None:
    ran: list[str] = []
    watched = {"on": True}

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        # Regular expressions are compiled by `re`, which raises no such event.
        if watched["on"] and event in ("compile", "exec", "open", "os.putenv", "subprocess.Popen"):
            ran.append(event)

    env_rules = rules(dataset)
    check_answers(env_rules)
    sys.addaudithook(audit)
    for text in HOSTILE:
        start = time.perf_counter()
        scores = score(env_rules, env_rules.task[0], [text])
        assert time.perf_counter() - start < 1
        assert scores.values[0] == 0
        assert scores.status[0] in ("ok", "model_fault")
    assert not ran
    compile("1", "control", "eval")
    watched["on"] = False
    assert ran == ["compile"]


def test_every_dataset_of_the_library_is_scored_or_refused_with_a_reason() -> None:
    import reasoning_gym

    names = set(reasoning_gym.factory.DATASETS)
    assert set(OWN_SCORER) | set(REFUSED) <= names
    assert not set(OWN_SCORER) & set(REFUSED)
    assert (len(names), len(OWN_SCORER), len(REFUSED)) == (106, 10, 18)  # as the page says
    for name, why in REFUSED.items():
        with pytest.raises(ValueError, match=f"dataset must be one that can be scored, got '{name}': {why[:20]}"):
            ReasoningGym(dataset=name)


def test_splits_are_disjoint_and_settings_reach_the_generator() -> None:
    tasks = {name: ReasoningGym(split=name) for name in ("train", "heldout", "all")}
    prompts = {name: {task[k].prompt for k in range(len(task))} for name, task in tasks.items()}
    assert not prompts["train"] & prompts["heldout"]
    assert prompts["train"] | prompts["heldout"] == prompts["all"]
    assert {name: len(task) for name, task in tasks.items()} == {"train": 397, "heldout": 99, "all": 496}
    task = ReasoningGym(config={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})
    assert len(task) < 397, "repeated questions are dropped"
    assert ReasoningGym(dataset_seed=1)[0] != ReasoningGym()[0]


def test_an_unknown_dataset_is_told_those_that_can_be_played() -> None:
    with pytest.raises(ValueError, match=r"got 'n_queen'; .*known: ") as caught:
        ReasoningGym(dataset="n_queen")
    known = str(caught.value).partition("known: ")[2].split(", ")
    assert len(known) == 88
    assert not set(known) & set(REFUSED)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dataset": "chainsum"}, "dataset must be one of reasoning-gym's, got 'chainsum'; did you mean 'chain_sum'"),
        ({"dataset": 5}, "dataset must be one that can be scored, got 5"),
        ({"config": 5}, "config must be a mapping of settings, got 5"),
        ({"config": "terms"}, "config must be a mapping of settings, got 'terms'"),
        ({"config": {"terms": {2}}}, "config must be JSON-able, got"),
        ({"config": {"terms": 2}}, "config must be settings of the dataset 'chain_sum', got .*terms"),
        ({"config": {"min_terms": -2}}, "config must be settings of the dataset 'chain_sum', got .*min_terms"),
        ({"num_problems": 5}, "num_problems must be an int in"),
        ({"dataset_seed": -1}, "dataset_seed must be an int in"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ReasoningGym(**settings)


def test_the_library_is_imported_by_the_constructor_only_and_named_when_missing() -> None:
    code = (
        "import sys, textenvs, textenvs.tasks.reasoning as r; assert 'reasoning_gym' not in sys.modules\n"
        "sys.modules['reasoning_gym'] = None\n"
        "try: r.ReasoningGym()\nexcept ImportError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == 'task reasoning_gym needs reasoning_gym; pip install "textenvs[reasoning]"\n'


def test_making_it_again_is_quick() -> None:
    gym.make("textenvs/ReasoningGym-v0")
    start = time.perf_counter()
    gym.make("textenvs/ReasoningGym-v0")
    assert time.perf_counter() - start < 0.3


def test_a_generator_that_prints_is_kept_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    rules("bf")
    assert capsys.readouterr().out == ""
