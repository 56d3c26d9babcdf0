"""Saved responses, scored again by a task's reward, in batches: what `textenvs score` does."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import count
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.seeding import np_random
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import textenvs
from agents.responses import read_lines, read_object

#: Responses scored together, fewer where they are long; a row's score never depends on the others.
BATCH_SIZE, BATCH_CHARS = 256, 1 << 22

#: What is read of a line.
_KEYS = (
    "id",
    "prompt",
    "references",
    "metadata",
    "problem_id",
    "problem",
    "seed",
    "split",
    "response",
    "turns",
    "value",
)


@dataclass(frozen=True)
class Saved:
    """One line of a file of responses.

    Attributes:
        id: as the line has it, else the number of the response, from 0.
        problem: what it responds to.
        turns: agent, reply, agent, ...; one turn where the task never replies.
        value: the score that the line states, or None.
    """

    id: Any
    problem: textenvs.Problem
    turns: Sequence[str]
    value: float | None


@dataclass(frozen=True)
class Scored:
    """What the reward says of one saved response; `record` is its JSON line."""

    saved: Saved
    record: Mapping[str, Any]


class _Problems:
    """Finds the problem of a line: by its number, its seed or its prompt."""

    def __init__(self, env_id: str, env_kwargs: Mapping[str, Any]) -> None:
        self._env_id, self._env_kwargs = env_id, env_kwargs
        self._rules: dict[str | None, textenvs.Rules] = {}
        self.rules = self._split(None)
        self._by_prompt: dict[str, list[textenvs.Problem]] | None = None

    def find(self, line: Mapping[str, Any]) -> textenvs.Problem:
        """The problem of a line, which the reward can score.

        Raises:
            ValueError: there is none, or it lacks what the reward needs; names the key.
        """
        # "problem", as info and the options of a reset call it, where it is none of a prompt of one's own.
        key = "problem_id" if "problem_id" in line or line.get("problem", -1) == -1 else "problem"
        if key in line:
            rules = self._split(_text(line, "split") if "split" in line else None)
            start = rules.start(_whole(line, key, len(rules.task)))
            if "prompt" in line and _text(line, "prompt") not in (start.prompt, start.problem.prompt):
                raise ValueError(
                    f'"prompt" must be that of problem {line[key]}, {start.prompt!r:.80}, '
                    f'got {line["prompt"]!r:.80}; the line is of other env kwargs or of another split: add "split"'
                )
            return start.problem
        if "prompt" in line:
            if "references" in line or "metadata" in line:
                problem = self._given(line)
                self.rules.reward.require(problem)
                return problem
            problem = self._prompted(line)
            try:
                self.rules.reward.require(problem)
            except ValueError as error:
                raise ValueError(f"{error}{self._why_unknown(line, problem.prompt)}") from None
            return problem
        if "seed" not in line:
            raise ValueError('line must have "prompt", "problem_id" or "seed", got none of them; add one')
        # What a reset with this seed draws.
        draw = np_random(_whole(line, "seed", 1 << 63))[0].integers(len(self.rules.task))
        return self.rules.start(int(draw)).problem

    def _given(self, line: Mapping[str, Any]) -> textenvs.Problem:
        """The problem that a line spells out."""
        references, metadata = line.get("references", []), line.get("metadata", {})
        if not isinstance(references, list) or not all(isinstance(text, str) for text in references):
            raise ValueError(f'"references" must be a list of texts, got {references!r:.80}')
        if not isinstance(metadata, dict):
            raise ValueError(f'"metadata" must be an object, got {metadata!r:.80}')
        for text in references:
            try:
                self.rules.vocab.encode(text)
            except ValueError as error:
                raise ValueError(f'"references" must be in the vocabulary of the env: {error}') from None
        self._require_as_own(references, metadata)
        return textenvs.Problem(_text(line, "prompt"), tuple(references), metadata)

    def _require_as_own(self, references: list[str], metadata: Mapping[str, Any]) -> None:
        """Hold a given problem to what the task's own have, where the task's own reward says not what it needs."""
        task, reward = self.rules.task, self.rules.reward
        if reward is task.reward and type(reward).require is textenvs.Reward.require:
            missing = [f"metadata[{key!r}]" for key in task[0].metadata if key not in metadata]
            missing += ["references"] if task[0].references and not references else []
            if missing:
                raise ValueError(
                    f"line must have {', '.join(missing)}, as the problems of the task, got none; add it, or give "
                    '"problem_id"'
                )

    def _prompted(self, line: Mapping[str, Any]) -> textenvs.Problem:
        """The problem that the task reads from a prompt, or has with it."""
        prompt = _text(line, "prompt")
        if self.rules.has_replies:
            raise ValueError(
                'line must have "problem_id", or "references" and "metadata": a prompt does not tell it here'
            )
        if type(self.rules.task).problem is not textenvs.Task.problem:
            return self.rules.task.problem(prompt)
        found = self._stored().get(prompt, [])
        if len(found) > 1:
            raise ValueError(
                f'"prompt" must be of one problem, got one of {len(found)}; add "problem_id" or "references"'
            )
        return found[0] if found else textenvs.Problem(prompt)

    def _why_unknown(self, line: Mapping[str, Any], prompt: str) -> str:
        """What is likely to be the matter with a line of whose prompt the task has no problem; "" where it has one."""
        if prompt in self._stored():
            return ""
        for key in line:
            if key not in _KEYS and (close := get_close_matches(key, ("references", "metadata"), n=1)):
                return f'; the line has the unknown key {key!r}, did you mean "{close[0]}"?'
        with suppress(ValueError):  # of a task without splits
            for split in ("train", "heldout"):
                task = self._split(split).task
                if any(task[k].prompt == prompt for k in range(len(task))):
                    return f"; the prompt is of split {split}, and the env is on split {self._env_kwargs.get('split')}"
        own = next((own for own in self._stored() if own.strip() == prompt.strip()), None)
        if own is not None:
            place = "end" if own.startswith(prompt.rstrip()) else "beginning or end"
            return f"; the prompt of the task's own {own!r:.200} differs in white space at its {place}"
        return '; no problem of the task has this prompt: give "references", or "problem_id"'

    def _stored(self) -> dict[str, list[textenvs.Problem]]:
        """The task's own problems by their prompts, of every split when the env is given none."""
        if self._by_prompt is None:
            task, self._by_prompt = self.rules.task, {}
            if "split" not in self._env_kwargs:
                with suppress(ValueError):  # of a task without splits: its problems are those it has
                    task = self._split("all").task
            for k in range(len(task)):
                same = self._by_prompt.setdefault(task[k].prompt, [])
                if task[k] not in same:
                    same.append(task[k])
        return self._by_prompt

    def _split(self, split: str | None) -> textenvs.Rules:
        """The env's rules on a split; None for the one that it was given."""
        if split not in self._rules:
            settings = {} if split is None else {"split": split}
            try:
                env: Any = gym.make(self._env_id, **{**self._env_kwargs, **settings}).unwrapped
            except TypeError as error:
                if split is None:
                    raise
                raise ValueError(f'"split" must be left out, got {split!r}: {error}') from None
            self._rules[split] = env.rules
        return self._rules[split]


def read_saved(path: Path, problems: _Problems) -> list[Saved]:
    """Read a file of JSON lines, blank ones skipped.

    Raises:
        ValueError, OSError: see `agents.responses.read_lines`; of a line, names the key too.
    """
    numbers = count()
    return read_lines(path, lambda text: _read_line(text, next(numbers), problems))


def _read_line(text: str, number: int, problems: _Problems) -> Saved:
    line, rules = read_object(text), problems.rules
    problem = problems.find(line)
    if not rules.has_replies:
        turns = [_text(line, "response")]
    elif "turns" in line:
        turns = _checked_turns(rules, problem, _texts(line, "turns"))
    else:
        spoken = _texts(line, "response") if isinstance(line.get("response"), list) else [_text(line, "response")]
        turns = _replied(rules, problem, spoken)
        if len(turns) < 2 * len(spoken) - 1:
            raise ValueError(
                f'"response" must end where the episode does, got {len(spoken)} turns, of which number '
                f"{(len(turns) + 1) // 2} ends it; cut the rest"
            )
    value = line.get("value")
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
        raise ValueError(f'"value" must be a number or null, got {value!r:.80}')
    try:
        stated = None if value is None else float(value)
    except OverflowError:
        raise ValueError(f'"value" must be a number of double precision, got {str(value)[:20]}...') from None
    return Saved(line.get("id", number), problem, turns, stated)


def _replied(rules: textenvs.Rules, problem: textenvs.Problem, spoken: Sequence[str]) -> list[str]:
    """The agent's turns with the task's replies between them, up to the turn that ends the episode."""
    turns: list[str] = []
    for text in spoken:
        turns.append(text)
        try:
            reply = rules.task.reply(problem, turns)
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f'"metadata" must have what the task replies by, got {dict(problem.metadata)!r:.80}: '
                f"{type(error).__name__}: {error}"
            ) from None
        if reply is None:
            break
        turns.append(rules.vocab.decode(rules.vocab.encode(reply).tolist()))
    return turns


def _checked_turns(rules: textenvs.Rules, problem: textenvs.Problem, turns: list[str]) -> list[str]:
    """Turns whose replies are the task's own; they may stop anywhere, as the budget does."""
    replied = _replied(rules, problem, turns[::2])
    for i in range(1, len(turns), 2):
        if i >= len(replied) or turns[i] != replied[i]:
            own = f"the task replies {replied[i]!r:.80}" if i < len(replied) else "the episode has ended"
            raise ValueError(
                f'"turns" must be agent, reply, agent, ... with the replies of the task, got {turns[i]!r:.80} as turn '
                f'{i + 1}, where {own}; give "response", the list of the agent\'s turns, to have it replied to'
            )
    return turns


def _texts(line: Mapping[str, Any], key: str) -> list[str]:
    value = line[key]
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise ValueError(f'"{key}" must be a list of texts, got {value!r:.80}')
    return value


def _text(line: Mapping[str, Any], key: str) -> str:
    if key not in line:
        raise ValueError(f'"{key}" is missing; add it, a text')
    value = line[key]
    if not isinstance(value, str):
        raise ValueError(f'"{key}" must be a text, got {value!r:.80}')
    return value


def _whole(line: Mapping[str, Any], key: str, end: int) -> int:
    value = line[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < end:
        raise ValueError(f'"{key}" must be an integer in [0, {end}), got {value!r:.80}')
    return value


def score_saved(rules: textenvs.Rules, saved: Sequence[Saved]) -> Iterator[Scored]:
    """Score responses whole, whatever the env's budget; one as long as the budget has the finish_reason length.

    A response that the vocabulary cannot spell is a model_fault of the reward's least value, or 0 without one.
    """
    first = longest = 0
    for i, one in enumerate(saved):
        longest = max(longest, sum(map(len, one.turns)))
        if i > first and (i - first == BATCH_SIZE or (i - first + 1) * longest > BATCH_CHARS):
            yield from _score_batch(rules, saved[first:i])
            first, longest = i, sum(map(len, one.turns))
    yield from _score_batch(rules, saved[first:])


def _score_batch(rules: textenvs.Rules, batch: Sequence[Saved]) -> Iterator[Scored]:
    rows: list[list[int]] = []
    turn_ends: list[list[int]] = []
    unspelt: dict[int, str] = {}
    for i, saved in enumerate(batch):
        try:
            row, ends = _laid_out(rules.vocab, saved.turns)
        except ValueError as error:
            row, ends, unspelt[i] = [], [0], str(error)
        rows.append(row)
        turn_ends.append(ends)
    lengths = np.array([len(row) for row in rows])
    token_ids = np.full((len(rows), max(1, lengths.max())), -1)
    for slots, row in zip(token_ids, rows, strict=True):
        slots[: len(row)] = row
    reasons = [_finish_reason(rules, row) for row in rows]
    responses = textenvs.Responses(token_ids, lengths, reasons, rules.vocab, turn_ends if rules.has_replies else ())
    scores = rules.judge([saved.problem for saved in batch], responses)
    for i, saved in enumerate(batch):
        record: dict[str, Any] = {"id": saved.id, "value": float(scores.values[i])}
        record |= {"parts": {name: float(column[i]) for name, column in scores.parts.items()}}
        record |= {"status": scores.status[i], "finish_reason": reasons[i]}
        if i in unspelt:
            record |= {"value": rules.reward.least, "parts": {}, "status": "model_fault"}
            record |= {"cause": unspelt[i]}
        elif record["status"] == "infra_fault":
            record |= {"value": None, "parts": {}, "finish_reason": "fault", "cause": scores.causes[i]}
        elif scores.causes[i]:
            record |= {"cause": scores.causes[i]}
        solved = record["value"] is not None and record["value"] >= rules.task.threshold
        yield Scored(saved, record | {"is_success": solved})


def _laid_out(vocab: textenvs.Vocab, turns: Sequence[str]) -> tuple[list[int], list[int]]:
    """Tokens of agent, reply, agent, ... with the end token after each of the agent's but the last; where each ends."""
    row: list[int] = []
    ends = []
    for i, turn in enumerate(turns):
        row += vocab.encode(turn).tolist()
        if i % 2 == 0 and i + 1 < len(turns):
            row.append(vocab.eos_id)
        ends.append(len(row))
    return row, ends


def _finish_reason(rules: textenvs.Rules, row: Sequence[int]) -> str:
    if row and row[-1] in rules.stop_ids:
        return "stop"
    return "eos" if len(row) < rules.max_new_tokens else "length"


def score_file(env_id: str, env_kwargs: Mapping[str, Any], path: Path) -> Iterator[Scored]:
    """Score a file's responses by the reward of an env, with a progress bar for long ones.

    Args:
        env_id: a registered id of a TextGen env.
        env_kwargs: its keyword arguments.
        path: JSON lines, each with "response" (a text, or in a task that replies the agent's turns, or "turns" with
            the task's own replies between them) and its problem: "prompt" with "references" and "metadata"; a "prompt"
            that the task can read or has; "problem_id" (or "problem", as in `info`), the number in the env's split or
            in "split"; or "seed", for the problem that a reset draws. `textenvs evaluate --samples` writes such a file.

    Raises:
        ValueError, OSError: see `read_saved`, before anything is scored.
    """
    problems = _Problems(env_id, env_kwargs)
    saved = read_saved(path, problems)
    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    short = len(saved) <= BATCH_SIZE
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=short) as progress:
        yield from progress.track(score_saved(problems.rules, saved), total=len(saved))


def summary_table(scored: Sequence[Scored], title: str) -> Table:
    """Lay out the means over the judged responses with their standard errors, and the counts of each status.

    A part is a mean over fewer where some responses have none, as one has that the vocabulary cannot spell: "(of n)".
    """
    judged = [row.record for row in scored if row.record["value"] is not None]
    table = Table(title=escape(title), caption="mean ± standard error over the responses that were judged")
    table.add_column("metric")
    table.add_column("", justify="right", no_wrap=True)
    table.add_row("responses", f"{len(scored):,}")
    columns = {"value": [row["value"] for row in judged], "success_rate": [row["is_success"] for row in judged]}
    for name in dict.fromkeys(name for row in judged for name in row["parts"]):
        columns[f"part/{name}"] = [row["parts"][name] for row in judged if name in row["parts"]]
    for name, column in columns.items():
        values = np.array(column, np.float64)
        error = f" ± {values.std(ddof=1) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
        fewer = f" (of {len(values):,})" if len(values) < len(judged) else ""
        table.add_row(escape(name), f"{values.mean():.3f}{error}{fewer}" if len(values) else "-")
    for key in ("status", "finish_reason"):
        for word, num in Counter(row.record[key] for row in scored).most_common():
            table.add_row(f"{key} {word}", f"{num:,}")
    stated = [(row.saved.value, row.record["value"]) for row in scored if row.saved.value is not None]
    if stated:
        table.add_row("equal to the file's value", f"{sum(a == b for a, b in stated):,} of {len(stated):,}")
    return table
