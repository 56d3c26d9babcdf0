"""What the env costs, by counting: bytes, calls and encodes that must not grow with V, N or the number of episodes.

Times are measured by benchmarks/env_batch.py and benchmarks/env_growth.py; these fail on any machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

import textenvs
from textenvs.starts import Streams

SMALL = {"length": 2, "alphabet": "ab", "split": "all"}  # four problems, so that all are soon encoded
THIRD_PARTY = """
import sys
def packages():
    found = {name.partition(".")[0] for name in sys.modules}
    return {name for name in found if not name.startswith("_")} - set(sys.stdlib_module_names)
import gymnasium
before = packages() | {"textenvs", "agents"}
"""


class Counting(textenvs.Reward):
    """1.0, whatever the response; keeps how many it was asked for at a time."""

    name = "counting"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, problems: Any, responses: textenvs.Responses) -> textenvs.Scores:
        self.batches.append(len(responses))
        return textenvs.Scores(np.ones(len(responses)))


def vocabulary(num_tokens: int) -> textenvs.CharVocab:
    return textenvs.CharVocab("ab=" + "".join(map(chr, range(0x10000, 0x10000 + num_tokens - 4))))


def work_of(what: Callable[..., Any], *arguments: Any, **options: Any) -> NDArray[np.int64]:
    """(2,) how many functions, of Python and of C, one call of `what` calls, and how many bytecodes it runs."""
    work = np.zeros(2, dtype=np.int64)

    def profile(frame: Any, event: str, arg: Any) -> None:
        work[0] += event in ("call", "c_call")

    def trace(frame: Any, event: str, arg: Any) -> Any:
        frame.f_trace_opcodes = True
        work[1] += event == "opcode"
        return trace

    before = sys.getprofile(), sys.gettrace()
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        what(*arguments, **options)
    finally:
        sys.setprofile(before[0])
        sys.settrace(before[1])
    return work


def peak_bytes(what: Callable[..., Any], *arguments: Any) -> int:
    """The most that one call of `what` holds at a time; NumPy tells tracemalloc of its arrays."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        what(*arguments)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------------------------------------------------- batch env


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_bytes_of_a_step_do_not_grow_with_the_vocabulary(mode: str) -> None:
    """Rows end and start in these steps. One (V,) array of bool would be 50 kB, an (N, V) one 12 MB."""
    peaks = []
    for num_tokens in (32, 50_000):
        envs = gym.make_vec(
            "textenvs/Copy-v0",
            num_envs=256,
            vocab=vocabulary(num_tokens),
            reward=Counting(),
            autoreset_mode=mode,
            **SMALL,
        )
        envs.reset(seed=0)
        rng, end, steps = np.random.default_rng(0), num_tokens - 1, []
        for _ in range(24):
            actions = np.where(rng.random(256) < 0.2, end, rng.integers(3, size=256))
            steps.append(peak_bytes(envs.step, actions))
        peaks.append(steps[8:])  # by then every problem has been encoded
        assert peak_bytes(envs.action_masks) < 4096
    observation = 256 * (3 + 3) * 8
    assert min(peaks[0]) > observation  # it counts arrays
    assert max(abs(large - small) for small, large in zip(*peaks, strict=True)) < 2048


@pytest.mark.parametrize("num_envs", [1, 7, 1024])
def test_the_reward_is_asked_once_however_many_rows_end(num_envs: int) -> None:
    for num_ended in {1, num_envs // 2, num_envs} - {0}:
        reward = Counting()
        envs = gym.make_vec("textenvs/Copy-v0", num_envs=num_envs, reward=reward, **SMALL)
        envs.reset(seed=0)
        envs.step(np.zeros(num_envs, dtype=int))
        envs.step(np.where(np.arange(num_envs) < num_ended, 3, 0))
        assert reward.batches == [num_ended]


def test_dense_rewards_ask_for_what_ended_and_for_what_goes_on() -> None:
    reward = Counting()
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=64, reward=reward, dense=True, **SMALL)
    envs.reset(seed=0)
    envs.step(np.zeros(64, dtype=int))
    assert reward.batches == [64]
    envs.step(np.where(np.arange(64) < 10, 3, 0))
    assert sorted(reward.batches[1:]) == [10, 54]


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_the_work_of_a_step_does_not_grow_with_the_rows(mode: str) -> None:
    """In every kind of step: nothing happens, half of the rows end, the others end, they start again.

    No row costs a bytecode of Python's, whatever becomes of it, until somebody looks at the infos.
    """
    works = []
    for num_envs in (64, 1024):
        envs: Any = gym.make_vec("textenvs/Copy-v0", num_envs=num_envs, reward=Counting(), autoreset_mode=mode, **SMALL)
        envs.reset(options={"problem": np.arange(num_envs) % 4})
        nobody, half = np.zeros(num_envs, dtype=bool), np.arange(num_envs) % 2 == 1
        steps = []
        for ends in (~nobody, ~nobody, ~nobody, nobody, half, ~half, nobody, ~nobody, nobody):
            if mode == "Disabled" and envs._ended.any():  # a reset reads the seeds one by one, without a call
                steps.append(work_of(envs.reset, options={"reset_mask": envs._ended.copy()})[:1])
            steps.append(work_of(envs.step, np.where(ends, 3, 0)))
        works.append(steps[4:])  # by then every row has numbers drawn ahead
    for few, many in zip(*works, strict=True):
        assert (many - few <= (4, 50)[: len(few)]).all(), works


def test_one_row_needs_no_array_of_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at its one status tells."""
    monkeypatch.delattr(textenvs.Scores, "faulty")
    env = gym.make("textenvs/Copy-v0", **SMALL)
    env.reset(seed=0)
    assert env.step(3)[2]


def test_a_stream_is_asked_once_in_hundreds_of_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one thing in a start that is done row by row: for one number at first, and for 512 from then on."""
    asked: Counter[int] = Counter()
    generator = Streams.generator
    monkeypatch.setattr(Streams, "generator", lambda self, row: asked.update([row]) or generator(self, row))
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=64, autoreset_mode="SameStep", **SMALL)
    envs.reset(seed=0)
    for num_starts in range(1, 515):
        assert asked == dict.fromkeys(range(64), 1 if num_starts == 1 else 2 if num_starts <= 513 else 3)
        envs.step(np.full(64, 3))


def test_a_masked_reset_touches_the_streams_of_its_rows_only() -> None:
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=6, autoreset_mode="Disabled", **SMALL)
    envs.reset(seed=0)
    mask = np.array([False, True, False, True, False, False])

    def states() -> list[Any]:
        return [stream.bit_generator.state for stream in envs.np_random]

    before = states()
    envs.reset(options={"reset_mask": mask})
    assert [one != other for one, other in zip(before, states(), strict=True)] == mask.tolist()


def test_the_work_of_a_masked_reset_does_not_grow_with_the_other_rows() -> None:
    works = []
    for num_envs in (64, 1024):
        envs = gym.make_vec("textenvs/Copy-v0", num_envs=num_envs, autoreset_mode="Disabled", **SMALL)
        envs.reset(seed=0)
        mask = np.arange(num_envs) < 3
        works.append(work_of(envs.reset, options={"reset_mask": mask}))
    assert (abs(works[0] - works[1]) <= (4, 50)).all(), works


# ------------------------------------------------------------------------------------------------------------ encodes


@pytest.mark.parametrize("batch", [False, True])
def test_a_prompt_is_encoded_once_however_often_it_is_started(batch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: Counter[str] = Counter()
    encode = textenvs.TokenizerVocab.encode

    def counting(self: textenvs.TokenizerVocab, text: str) -> Any:
        encoded[text] += 1
        return encode(self, text)

    monkeypatch.setattr(textenvs.TokenizerVocab, "encode", counting)
    prompts = ["We went to", "The food was", "My visit to the"]
    settings: dict[str, Any] = {"prompts": prompts, "reward": Counting(), "max_prompt_tokens": 8, "max_new_tokens": 2}
    env: Any = gym.make_vec("TextGen-v0", num_envs=16, **settings) if batch else gym.make("TextGen-v0", **settings)
    for seed in range(30):
        env.reset(seed=seed)
        ended: Any = np.False_
        while not ended.all():
            _, _, ended, *_ = env.step(np.zeros(16, dtype=int) if batch else 0)
            ended = np.asarray(ended)
    assert encoded == dict.fromkeys(prompts, 1)


# ----------------------------------------------------------------------------------------------------------- start-up


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("import textenvs", ""),
        ("import textenvs; gymnasium.make('textenvs/Copy-v0').reset()", ""),
        ("import textenvs; gymnasium.make('TextGen-v0').reset()", "tokenizers"),
        (
            "import contextlib, io\nfrom agents.cli import main\n"
            "with contextlib.redirect_stdout(io.StringIO()):\n    main(['list'])",
            "tyro rich pygments markdown_it mdurl docstring_parser typeguard shtab colorama typing_extensions",
        ),
    ],
    ids=["import", "Copy-v0", "TextGen-v0", "list"],
)
def test_starting_loads_no_library_that_it_does_not_use(code: str, wanted: str) -> None:
    """Beside what Gymnasium loads by itself, and, of `textenvs list`, what tyro and rich do."""
    script = f"{THIRD_PARTY}\n{code}\nprint(*sorted(packages() - before))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) <= set(wanted.split())
    assert ("tokenizers" in result.stdout) == ("tokenizers" in wanted)


def test_what_is_asked_wrongly_is_refused_before_torch_is_loaded() -> None:
    """Which takes seconds, and longer where the disk is cold."""
    wrong = [
        ["train", "textenvs/Copi-v0", "--run-dir", "run"],
        ["train", "textenvs/Copy-v0", "--run-dir", "run", "--episodes", "0"],
        ["sft", "textenvs/Copi-v0", "--run-dir", "run"],
        ["play", "textenvs/Copy-v0", "--episodes", "0"],
        ["evaluate", "run", "--episodes", "0"],
        ["score", "textenvs/Copy-v0", "--input", "nowhere.jsonl"],
    ]
    code = (
        "import contextlib, json, sys\nfrom agents.cli import main\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    with contextlib.suppress(SystemExit):\n        main(arguments)\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code, json.dumps(wrong)], capture_output=True, text=True, check=True)
    said = result.stderr.splitlines()
    assert len(said) == len(wrong)
    assert said[0].endswith(
        "; did you mean 'textenvs/Copy-v0'? `textenvs list` prints all; one of your own is 'module:Name-v0'"
    )
    assert said[-1].startswith("textenvs: --input must be a file of JSON lines, got nowhere.jsonl")
    assert result.stdout == "False\n"
