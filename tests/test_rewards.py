"""Rewards: literal values, composition, attack strings, immutability."""

from __future__ import annotations

import copy
import functools
import math
import operator
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textenvs
from textenvs import CharVocab, ExactMatch, FunctionReward, LengthMatch, PositionMatch, Problem, Responses, Scores
from textenvs.rewards import as_reward
from textenvs.rewards.base import Reward, RewardTypeError

VOCAB = CharVocab("abcdefgh= ")


def responses(texts: list[str], width: int = 12) -> Responses:
    """A batch of texts spelt with VOCAB."""
    ids = np.full((len(texts), width), -1)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = VOCAB.encode(text)
    return Responses(ids, np.array([len(text) for text in texts]), ["eos"] * len(texts), VOCAB)


def score(reward: textenvs.Reward, texts: list[str], *references: str) -> list[float]:
    problems = [Problem("a=", references)] * len(texts)
    return reward(problems, responses(texts)).values.tolist()


def test_literal_values() -> None:
    texts = ["abc", "abd", "ab", "abca", "", "cba", "ba"]
    assert score(ExactMatch(), texts, "abc") == [1, 0, 0, 0, 0, 0, 0]
    assert score(PositionMatch(), texts, "abc") == [1, 2 / 3, 2 / 3, 3 / 4, 0, 1 / 3, 0]
    assert score(LengthMatch(), texts, "abc") == [1, 1, 2 / 3, 3 / 4, 0, 1, 2 / 3]


def test_the_best_of_several_references_counts() -> None:
    assert score(PositionMatch(), ["abd", "ha"], "abc", "h") == [2 / 3, 1 / 2]
    assert score(ExactMatch(), ["h"], "abc", "h") == [1]
    assert score(PositionMatch(), [""], "") == [0]  # which `require` refuses


@pytest.mark.parametrize("attack", ["", " ", "a=", "abc abc", "abcabc", "aaaaaaaaaaaa", "abc=", "=abc", "a b c"])
def test_attack_strings_never_reach_the_reference(attack: str) -> None:
    assert score(ExactMatch(), [attack], "abc") == [0]
    assert score(PositionMatch(), [attack], "abc")[0] < 1


@given(
    text=st.text("abcdefgh", max_size=8),
    reference=st.text("abcdefgh", min_size=1, max_size=8),
    pad=st.text("abc", min_size=1, max_size=4),
)
def test_properties(text: str, reference: str, pad: str) -> None:
    """Range [0, 1]; the reference scores 1; padding the reference never pays; a row does not depend on the batch."""
    for reward in (ExactMatch(), PositionMatch(), LengthMatch()):
        value, identity, padded = score(reward, [text, reference, reference + pad], reference)
        assert 0 <= value <= 1
        assert identity == 1
        assert padded < 1
        assert score(reward, [text], reference) == [value]


def test_composition_and_parts() -> None:
    both = 0.75 * ExactMatch() + PositionMatch() * 0.25
    scores = both([Problem("a=", ("abc",))] * 2, responses(["abc", "abd"]))
    assert scores.values.tolist() == [1.0, 0.25 * (2 / 3)]
    assert {name: part.tolist() for name, part in scores.parts.items()} == {
        "exact_match": [1.0, 0.0],
        "position_match": [1.0, 2 / 3],
    }
    gated = LengthMatch() * PositionMatch()
    assert score(gated, ["abd", "ab"], "abc") == [2 / 3, 4 / 9]
    assert list((ExactMatch() + ExactMatch())([Problem("", ("a",))], responses(["a"])).parts) == [
        "exact_match",
        "exact_match_2",
    ]
    assert score(2 * (ExactMatch() + LengthMatch()), ["abc"], "abc") == [4.0]


class Constant(textenvs.Reward):
    """The same values for any batch, with a stated range."""

    def __init__(self, *values: float, within: tuple[float, float] = (-math.inf, math.inf), name: str = "c") -> None:
        self.values, self.value_range, self.name = values, within, name

    def __call__(self, problems: Any, responses: Responses) -> Scores:
        return Scores(np.array(self.values), {self.name: np.array(self.values)})


def values_of(reward: textenvs.Reward, count: int) -> list[float]:
    scores = reward([Problem("a=")] * count, responses([""] * count))
    return [float(value) for value in scores.values]


def test_clip_threshold_and_gate_by_hand() -> None:
    a, b = Constant(-2, 0.25, 0.5, 3), Constant(0.5, 0.49, 0.5, -1)
    assert values_of(a.clip(0, 1), 4) == [0, 0.25, 0.5, 1]
    assert values_of(a.clip(high=0.3), 4) == [-2, 0.25, 0.3, 0.3]
    assert values_of(a.clip(low=0.3), 4) == [0.3, 0.3, 0.5, 3]
    assert values_of(a.threshold(0.5), 4) == [0, 0, 1, 1]
    assert values_of(a.gate(b, at_least=0.5), 4) == [-2, 0, 0.5, 0]
    assert values_of((2 * a + b).clip(-1, 1), 4) == [-1, 0.99, 1, 1]
    gated = a.gate(Constant(1, 1, 1, 1, name="gate"), at_least=1)
    assert list(gated([Problem("a=")] * 4, responses([""] * 4)).parts) == ["c", "gate"]


def test_ranges_of_composites_by_hand() -> None:
    unit, wide, free = Constant(within=(0, 1)), Constant(within=(-2, 3)), Constant()
    assert (unit + wide).value_range == (-2, 4)
    assert (0.5 * unit + -2 * wide).value_range == (-6, 4.5)  # -2 * [-2, 3] is [-6, 4]
    assert (unit * wide).value_range == (-2, 3)
    assert (wide * wide).value_range == (-6, 9)  # two different rewards may be -2 and 3
    assert (-1 * unit * wide).value_range == (-3, 2)
    assert (0 * free + unit).value_range == (0, 1)
    assert (free + unit).value_range == (-math.inf, math.inf)
    assert (unit * free).value_range == (-math.inf, math.inf)
    assert (Constant(within=(-math.inf, 0)) * unit).value_range == (-math.inf, 0)
    assert (-1 * Constant(within=(-math.inf, 0))).value_range == (0, math.inf)
    assert wide.clip(-1, 5).value_range == (-1, 3)
    assert wide.clip(4, 5).value_range == (4, 4)
    assert free.clip(high=0).value_range == (-math.inf, 0)
    assert wide.threshold(0).value_range == (0, 1)
    assert wide.gate(unit, at_least=0.5).value_range == (-2, 3)
    assert Constant(within=(1, 3)).gate(unit, at_least=0.5).value_range == (0, 3)
    tenths = [Constant(n / 10, within=(0, n / 10)) for n in (1, 2, 3)]  # added from the other end they make 0.6
    assert values_of(tenths[0] + tenths[1] + tenths[2], 1) == [0.6000000000000001]
    assert (tenths[0] + tenths[1] + tenths[2]).value_range == (0, 0.6000000000000001)


NUMBERS = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, st.floats(0, 1)), min_size=1, max_size=4), NUMBERS, NUMBERS)
def test_composites_stay_within_their_range(
    terms: list[tuple[float, float, float, float]], low: float, high: float
) -> None:
    """At the ends and inside, to the last bit: weights of any sign, nested to any depth."""
    rewards = []
    for weight, one, other, inside in terms:
        below, above = sorted((one, other))
        middle = min(max(below + inside * (above - below), below), above)
        rewards.append(weight * Constant(below, above, middle, within=(below, above)))
    total = functools.reduce(operator.add, rewards)
    product = functools.reduce(operator.mul, rewards)
    for reward in (
        total,
        product,
        total.clip(*sorted((low, high))),
        product.gate(total, at_least=low),
        total * product,
    ):
        assert all(reward.value_range[0] <= value <= reward.value_range[1] for value in values_of(reward, 3))


def test_a_composite_requires_what_its_members_require() -> None:
    free = Constant()
    for reward in (
        free + ExactMatch(),
        -1 * ExactMatch(),
        free * ExactMatch(),
        ExactMatch().clip(0, 1),
        ExactMatch().threshold(1),
        free.gate(ExactMatch(), at_least=1),
        (free + free.gate(ExactMatch(), at_least=1)).clip(0, 1),
    ):
        reward.require(Problem("why=", ("a",)))
        with pytest.raises(ValueError, match="'why=' must have a reference"):
            reward.require(Problem("why="))


def test_bad_bounds() -> None:
    with pytest.raises(ValueError, match="clip must have low <= high, got 1 and 0"):
        ExactMatch().clip(1, 0)
    with pytest.raises(ValueError, match="clip must have low <= high, got nan"):
        ExactMatch().clip(math.nan, 0)
    with pytest.raises(ValueError, match="at_least must be a finite number, got nan"):
        ExactMatch().threshold(math.nan)
    with pytest.raises(ValueError, match="at_least must be a finite number, got '1'"):
        ExactMatch().gate(ExactMatch(), at_least="1")  # type: ignore[arg-type]


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), True, None])
def test_bad_weights(weight: Any) -> None:
    with pytest.raises(ValueError, match="weight must be a finite number"):
        weight * ExactMatch()


def test_only_rewards_names_and_functions_are_combined() -> None:
    with pytest.raises(TypeError, match="combined with a Reward, its name or a function, got 1"):
        ExactMatch() + 1  # type: ignore[operator]
    with pytest.raises(TypeError, match="combined with a Reward, its name or a function, got None"):
        ExactMatch().gate(None, at_least=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reward must be a known name, got '2'; known: "):
        "2" * ExactMatch()
    with pytest.raises(TypeError, match="pass an instance"):
        ExactMatch() * ExactMatch  # type: ignore[operator]


def test_names_and_functions_are_combined_as_rewards_are() -> None:
    def half(problem: Any, text: str) -> float:
        return 0.5

    problems, batch = [Problem("q", ("ab",))] * 2, responses(["ab", "a"])
    exact = ExactMatch()
    for reward, expected in (
        (exact + "prefix_match", [2, 0.5]),
        ("prefix_match" + exact, [2, 0.5]),
        (exact + half, [1.5, 0.5]),
        (half + exact, [1.5, 0.5]),
        (exact * "prefix_match", [1, 0]),
        ("prefix_match" * exact, [1, 0]),
        (exact * half, [0.5, 0]),
        (textenvs.PrefixMatch().gate("exact_match", at_least=0.5), [1, 0]),
        (exact.gate(half, at_least=0.6), [0, 0]),
    ):
        assert reward(problems, batch).values.tolist() == expected


def test_the_worst_status_wins() -> None:
    class Judge(textenvs.Reward):
        name = "judge"

        def __init__(self, status: tuple[str, ...], causes: tuple[str, ...] = ()) -> None:
            self.status, self.causes = status, causes

        def __call__(self, problems: Any, responses: Responses) -> Scores:
            return Scores(np.array([0.0, np.nan, 0.0]), {}, self.status, self.causes)

    three, batch = [Problem("")] * 3, responses(["", "", ""])
    a, b = Judge(("ok", "infra_fault", "model_fault"), ("", "it died", "")), Judge(("ok", "ok", "ok"))
    worst = ("ok", "infra_fault", "model_fault")
    for reward in (a + b, b * a, a.clip(0, 1), a.threshold(1), b.gate(a, at_least=1), a.gate(b, at_least=1)):
        assert reward(three, batch).status == worst
        assert reward(three, batch).causes == ("", "it died", "")
    c = Judge(("ok", "infra_fault", "ok"), ("", "it died later", ""))
    assert (
        (a + c)(three, batch).causes == (Judge(("ok",) * 3, ("",) * 3) + a)(three, batch).causes == ("", "it died", "")
    )
    assert (ExactMatch() + LengthMatch())([Problem("", ("a",))], responses(["a"])).status == ()


@pytest.mark.parametrize(
    "value", ["0.5", b"0.5", None, [1.0], 10**400, 10**5000, 1j, np.zeros(2)], ids=lambda x: type(x).__name__
)
def test_a_function_that_returns_no_number_breaks_the_contract(value: Any) -> None:
    reward = FunctionReward(lambda problem, text: value)
    with pytest.raises(RewardTypeError, match=r"must return a number, got .* for the response 'a'") as caught:
        reward([Problem("q")], responses(["a"]))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [1, True, 0.5, np.float32(0.5), np.int64(3), np.array(0.5), Fraction(1, 2)], ids=str)
def test_a_function_may_return_any_number(value: Any) -> None:
    reward = FunctionReward(lambda problem, text: value)
    assert reward([Problem("q")], responses(["a"])).values.tolist() == [float(value)]


def test_a_list_of_rewards_is_added_up_by_sum() -> None:
    one, other = FunctionReward(lambda problem, text: len(text)), FunctionReward(lambda problem, text: 2.0)
    total = sum([one, 0.5 * other])
    assert isinstance(total, Reward)
    assert total([Problem("q")], responses(["abc"])).values.tolist() == [4.0]
    for start in (1, True):
        with pytest.raises(TypeError, match="a reward is combined with a Reward, its name or a function, got"):
            _ = start + one


def test_plain_functions_are_lifted() -> None:
    def share_of_a(problem: Problem, text: str) -> float:
        return text.count("a") / max(1, len(text))

    reward = as_reward(share_of_a)
    scores = reward([Problem("")] * 2, responses(["ab", "aa"]))
    assert scores.values.tolist() == [0.5, 1.0]
    assert list(scores.parts) == ["share_of_a"]
    assert isinstance(reward, FunctionReward)


def test_copies_are_the_same_object() -> None:
    reward = ExactMatch() + LengthMatch()
    assert copy.deepcopy(reward) is copy.copy(reward) is reward


def test_texts_decode_on_first_use_only() -> None:
    batch = responses(["abc", ""])
    assert "texts" not in vars(batch)
    assert batch.texts == ["abc", ""]
    assert batch.turns == [["abc"], [""]]


def test_a_missing_reference_is_named() -> None:
    for reward in (ExactMatch(), PositionMatch(), LengthMatch()):
        with pytest.raises(ValueError, match="'why=' must have a reference"):
            reward([Problem("why=")], responses(["a"]))


PAGE = Path(__file__).parent.parent / "docs" / "rewards.md"


def test_the_page_has_every_reward_by_name_with_its_class_and_range() -> None:
    rows = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    found = {cells[0].strip("| `"): tuple(cells[1:3]) for cells in rows if len(cells) == 7}
    expected = {}
    for name in textenvs.REWARDS:
        reward = as_reward(name)
        low, high = reward.value_range
        bounds = f"{'(-inf' if low == -math.inf else f'[{low:g}'}, {high:g}]"
        expected[name] = (f"`{type(reward).__name__}`", bounds)
    assert found == expected


def test_the_code_of_the_page_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    script = tmp_path / "page.py"
    check = "assert Share()([Problem('', (), {'letters': 'ab'})], RESPONSES).values.tolist() == [0.5]"
    batch = "import textenvs\nvocab = textenvs.CharVocab('abcd')\n"
    batch += "RESPONSES = Responses(np.array([[0, 2, 3, 1]]), np.array([4]), ['eos'], vocab)\n"
    clipped = "assert composed == (0.0, 1.0), composed\n"
    blocks[1] = re.sub(r"^\(\(0\.7", "composed = ((0.7", blocks[1], flags=re.MULTILINE) + clipped
    script.write_text("\n".join([*blocks, batch, check]), encoding="utf-8")
    subprocess.run([sys.executable, "-W", "error", str(script)], check=True, cwd=tmp_path, timeout=300)
