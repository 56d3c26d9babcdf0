"""What the command tells somebody whose task is their own: a file in the working directory with its mistakes."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest
from command import lines, run
from tasks_for_tests import GuessingGame, SpelledOut

import textenvs
from agents.held_out import held_out_envs


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ids that a test registers, and modules and paths that it imports, are gone afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*gym.registry}
    yield
    for env_id in {*gym.registry} - before:
        del gym.registry[env_id]
    for name in ("own_words", "needy"):
        sys.modules.pop(name, None)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file own_words.py in the working directory, which registers three ids."""
    path = tmp_path / "own_words.py"
    path.write_text(
        "import textenvs\n"
        "task = textenvs.make_task('copy', length=2, alphabet='ab', split='all')\n"
        "names = 'Reverse-v0', 'CopyTwo-v0', 'CopyTwoHard-v0'\n"
        "textenvs.register_envs([textenvs.Entry(name, 'mine', {'task': task}) for name in names])\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one update."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    fast = ["--episodes", "4", "--episodes-per-update", "4", "--num-envs", "4"]
    assert run("train", "textenvs/Copy-v0", "--run-dir", str(run_dir), *fast) == 0
    return run_dir


# --------------------------------------------------------------------------------------------------------- ids


VERBS = {
    "show": [],
    "check": [],
    "play": [],
    "train": ["--run-dir", "run"],
    "sft": ["--run-dir", "run"],
    "score": ["--input", "own_words.py"],
    "benchmark": ["--agents", "random", "--seeds", "1"],
}


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("verb", VERBS)
def test_an_id_that_the_file_does_not_register_lists_those_it_does(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in ("CopyTow-v0", "CopyTwo-v7"):
        assert run(verb, f"own_words:{wrong}", *VERBS[verb]) == 2
        nearest = "'own_words:CopyTwo-v0', 'own_words:CopyTwoHard-v0', 'own_words:Reverse-v0'"
        assert f"; the ids of your own are {nearest}" in lines(capsys)


def test_a_file_that_registers_nothing_is_told_so(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own.write_text("import textenvs\n", encoding="utf-8")
    assert run("show", "own_words:CopyTwo-v0") == 2
    assert "own_words registers no id; end it with textenvs.register_envs([textenvs.Entry('CopyTwo-v0'," in lines(
        capsys
    )


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("verb", VERBS)
def test_a_module_that_is_nowhere_is_looked_for_in_the_current_directory(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(verb, "own_word:CopyTwo-v0", *VERBS[verb]) == 2
    assert lines(capsys) == (
        f"textenvs: module 'own_word' must be in the current directory, {tmp_path}, or installed, and is neither; "
        "did you mean 'own_words'? run the command in the directory of own_word.py\n"
    )


def test_a_file_with_its_ending_and_one_that_needs_what_is_missing(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("show", "own_words.py:CopyTwo-v0") == 2
    assert "did you mean 'own_words'?" in lines(capsys)
    (own.parent / "needy.py").write_text("import nowhere_to_be_found\n", encoding="utf-8")
    assert run("show", "needy:CopyTwo-v0") == 2
    assert "module 'needy' imports 'nowhere_to_be_found', which cannot be found; install it" in lines(capsys)


def test_evaluate_gives_the_hints_of_the_other_verbs(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fast = ["--episodes", "4", "--episodes-per-update", "4", "--num-envs", "4"]
    assert run("train", "own_words:CopyTwo-v0", "--run-dir", "run", *fast) == 0
    for env_id, words in {
        "CopyThree-v0": "no environment has the id 'CopyThree-v0'.* one of your own is 'module:Name-v0'",
        "own_words:CopyTow-v0": "own are 'own_words:CopyTwo-v0'",
        "own_word:CopyTwo-v0": "current directory, .*did you mean 'own_words'",
    }.items():
        capsys.readouterr()
        assert run("evaluate", "run", "--env", env_id) == 2
        assert re.search(words, lines(capsys))
    own.unlink()
    del sys.modules["own_words"]
    for verb in ("evaluate", "play"):
        assert run(verb, "run") == 2
        assert "module 'own_words' must be in the current directory" in lines(capsys)
    own.write_text("", encoding="utf-8")
    for env_id in ("CopyTwo-v0", "CopyTwoHard-v0"):
        del gym.registry[env_id]
    assert run("evaluate", "run") == 2
    assert "one of your own is 'module:Name-v0'" in lines(capsys)


# -------------------------------------------------------------------------------------------------------- paths


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("sft ID --run-dir run --text-file nowhere.txt", "nowhere.txt must be a file that exists, got none"),
        ("sft ID --run-dir run --text-file folder", "folder must be a file, got a directory"),
        ("score ID --input folder", "folder must be a file, got a directory"),
        ("benchmark nowhere.json --agents random", "nowhere.json must be a file that exists, got none"),
        ("benchmark folder.json --agents random", "folder.json must be a file, got a directory"),
        ("benchmark ID --agents random --seeds 1 --out own_words.py/x", "own_words.py/x must be in a directory, got a"),
        ("train ID --run-dir own_words.py/x", "own_words.py/x must be in a directory, got a file in its place"),
        ("report run --out nodir/page.html", "nodir/page.html must be in a directory that exists, got none"),
        ("report run --out folder", "folder must be a file, got a directory"),
        ("report run --format markdown --out nodir/page.md", "nodir/page.md must be in a directory that exists"),
        ("evaluate run --samples nodir/x.jsonl", "nodir/x.jsonl must be in a directory that exists, got none"),
        ("evaluate run --samples folder", "folder must be a file, got a directory"),
        ("play nowhere", "target must be an id or the directory of a run, got 'nowhere', which is neither"),
        ("play runs/nowhere", "target must be an id or the directory of a run, got 'runs/nowhere', which is neither"),
    ],
)
def test_a_wrong_path_is_one_sentence_with_a_remedy(
    arguments: str, words: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("folder", "folder.json"):
        Path(name).mkdir()
    if arguments.split()[0] in ("report", "evaluate"):
        shutil.copytree(trained, "run")
    assert run(*arguments.replace("ID", "own_words:CopyTwo-v0").split()) == 2
    said = lines(capsys)
    assert words in said
    assert "; " in said
    assert "Errno" not in said


# -------------------------------------------------------------------------------------------------------- pages


class Words(SpelledOut):
    """Spell a digit, in a page of two paragraphs.

    Both at the margin.

    Args:
        split: "train" or "heldout",
            as everywhere.
    """

    def __init__(self, *, split: str = "train") -> None:
        super().__init__(split=split)


class Shouted(Words):
    """Spell a digit loudly."""


def test_show_prints_docstrings_at_the_margin(capsys: pytest.CaptureFixture[str]) -> None:
    args = 'Args:\n    split: "train" or "heldout",\n        as everywhere.\n\nWhat the command tells'
    for task, page in {
        Words: "Spell a digit, in a page of two paragraphs.\n\nBoth at the margin.\n\n" + args,
        Shouted: "Spell a digit loudly.\n\n" + args,  # the settings that it inherits
        SpelledOut: "Spell a digit.\n\nTasks and rewards that",
    }.items():
        textenvs.register_envs([textenvs.Entry(f"{task.__name__}-v0", "mine", {"task": task})])
        assert run("show", f"{task.__name__}-v0") == 0
        assert capsys.readouterr().out.startswith(f"{task.__name__}-v0  {page}")


# ----------------------------------------------------------------------------------- references that do not fit


def test_check_fails_where_the_budget_cuts_every_reference(capsys: pytest.CaptureFixture[str]) -> None:
    textenvs.register_envs([textenvs.Entry("Own-v0", "mine", {"task": SpelledOut, "max_new_tokens": 2})])
    assert run("check", "Own-v0") == 1
    assert (
        "max_new_tokens must leave room for an answer, got 2, which cuts the reference of 3 of 3 problems looked at "
        "(problem 2 takes 6 tokens with the end token); make it at least 6" in lines(capsys)
    )


def test_check_passes_a_reference_that_fills_the_budget(capsys: pytest.CaptureFixture[str]) -> None:
    """The last token ends the episode, and the score is paid in full: the end token needs no room."""
    textenvs.register_envs([textenvs.Entry("Own-v0", "mine", {"task": SpelledOut, "max_new_tokens": 5}, 1.0)])
    assert run("check", "Own-v0") == 0
    assert capsys.readouterr() == ("Own-v0 keeps the contract\n", "")


def test_check_warns_where_some_references_are_cut() -> None:
    textenvs.register_envs([textenvs.Entry("Own-v0", "mine", {"task": SpelledOut, "max_new_tokens": 4})])
    with pytest.warns(UserWarning, match="got 4, which cuts the reference of 1 of 3 .*problem 2 takes 6 .*at least 6"):
        assert run("check", "Own-v0") == 0


def test_check_warns_where_a_reference_misses_the_threshold() -> None:
    class Lenient(SpelledOut):
        threshold = 0.4

    settings = {"task": Lenient, "reward": lambda problem, text: 0.5 * (text in problem.references)}
    textenvs.register_envs([textenvs.Entry("Own-v0", "mine", settings, reward_threshold=0.9)])
    with pytest.warns(UserWarning, match=r"reward_threshold must .*got 0.9, .* 3 problems score 0.5 in the mean"):
        assert run("check", "Own-v0") == 0


def test_a_threshold_is_of_the_mean_of_the_references_not_of_each() -> None:
    def reward(problem: textenvs.Problem, text: str) -> float:
        return (0.9 if problem.prompt == "1" else 1.0) * (text in problem.references)

    rules = textenvs.Rules(SpelledOut(), reward=reward)
    textenvs.check_references(rules, reward_threshold=0.96)
    with pytest.warns(UserWarning, match=r"score 0.966667 in the mean, problem 0's 0.9;"):
        textenvs.check_references(rules, reward_threshold=0.97)


class Many(SpelledOut):
    """400 problems, of which every other one has a reference of 5 letters, and a demonstration that may be none."""

    first = 0

    def __len__(self) -> int:
        return 400

    def __getitem__(self, k: int) -> textenvs.Problem:
        return textenvs.Problem("1", ("three" if k % 2 == self.first else "one",))


@pytest.mark.parametrize("first", [0, 1])
def test_references_are_drawn_whatever_the_order_of_the_problems(first: int) -> None:
    rules = textenvs.Rules(type("Own", (Many,), {"first": first})(), max_new_tokens=4)
    with pytest.warns(UserWarning, match="which cuts the reference of") as caught:
        textenvs.check_references(rules, num_problems=200)
    num = int(re.search(r"reference of (\d+) of 200", str(caught[0].message))[1])  # type: ignore[index]
    assert 70 < num < 130


@pytest.mark.timeout(60)
def test_references_of_an_endless_task_are_drawn_without_listing_its_problems() -> None:
    class Endless(SpelledOut):
        max_prompt_tokens = 1

        def __len__(self) -> int:
            return 10**15

        def __getitem__(self, k: int) -> textenvs.Problem:
            return textenvs.Problem("1", ("one",))

    textenvs.check_references(textenvs.Rules(Endless()), reward_threshold=1.0)


def test_a_demonstration_of_nothing_is_none() -> None:
    class Silent(SpelledOut):
        def demonstration(self, problem: textenvs.Problem) -> list[str]:
            return []

    textenvs.check_references(textenvs.Rules(Silent()), reward_threshold=1.0)


# ------------------------------------------------------------------------------------------------------- splits


def test_a_class_that_knows_no_split_has_no_held_out_problems() -> None:
    class Heedless(SpelledOut):
        def __init__(self, **settings: object) -> None:
            super().__init__()

    class Closed(SpelledOut):
        def __init__(self) -> None:
            super().__init__()

    class Own(SpelledOut):
        def __init__(self, *, longest: int = 5, **settings: str) -> None:
            super().__init__(**settings)

    for cls, split in ((Closed, "train"), (Heedless, "train"), (Own, "heldout")):
        textenvs.register_envs([textenvs.Entry(f"{cls.__name__}-v0", "mine", {"task": cls})])
        envs, found = held_out_envs(f"{cls.__name__}-v0", {}, 2)
        assert (found, envs.unwrapped.rules.task[0].prompt) == (split, "4" if split == "heldout" else "1")
    assert textenvs.make_task(Own, longest=4, split="heldout")[0].prompt == "4"
    with pytest.raises(TypeError, match="did you mean 'max_new_tokens'"):
        gym.make("TextGen-v0", task=Heedless, max_new_token=3)


def test_a_held_out_split_that_is_broken_is_no_missing_one() -> None:
    class Damaged(SpelledOut):
        def __init__(self, *, split: str = "train") -> None:
            super().__init__(split=split)
            if split == "heldout":
                raise ValueError("held.txt is damaged")

    textenvs.register_envs([textenvs.Entry("Own-v0", "mine", {"task": Damaged})])
    with pytest.raises(ValueError, match=r"held\.txt is damaged"):
        held_out_envs("Own-v0", {}, 2)


def test_references_that_nobody_wrote_are_no_fault() -> None:
    textenvs.check_references(textenvs.Rules(max_new_tokens=1), reward_threshold=1.0)


def test_the_references_of_a_task_that_replies() -> None:
    class Shown(GuessingGame):
        def demonstration(self, problem: textenvs.Problem) -> list[str]:
            return ["0", problem.references[0]] if problem.references != ("0",) else ["0"]

    # "0", end, "<", "3": a last end token needs no room, a reply does.
    textenvs.check_references(textenvs.Rules(Shown(), max_new_tokens=4))
    with pytest.warns(UserWarning, match=r"got 3, which cuts the reference of 6 of 8 .* 4, and more for the replies"):
        textenvs.check_references(textenvs.Rules(Shown(), max_new_tokens=3))


def test_a_reference_that_the_vocabulary_cannot_spell_is_named() -> None:
    with pytest.raises(ValueError, match="the reference of problem 0: text must be spelt"):
        textenvs.check_references(textenvs.Rules(SpelledOut(), vocab=textenvs.CharVocab("12345")))


@pytest.mark.parametrize("entry", textenvs.ENTRIES, ids=lambda entry: entry.id)
def test_the_references_of_every_id_fit_and_reach_its_threshold(entry: textenvs.Entry) -> None:
    """Warnings are errors here."""
    try:
        rules = textenvs.Rules(**entry.kwargs)
    except ImportError as error:
        pytest.skip(str(error))
    textenvs.check_references(rules, reward_threshold=entry.reward_threshold)


def test_the_librarys_own_module_before_an_id_hides_no_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "textenvs:textenvs/Cpoy-v0") == 2
    assert "did you mean 'textenvs/Copy-v0'?" in lines(capsys)
