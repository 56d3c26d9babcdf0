"""Given responses as whole episodes: demonstrations of an env, or the lines of a file. What learns them is `sft`."""

from collections.abc import Callable, Iterable
from json import JSONDecodeError
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

import textenvs
from agents.rollout import Rollout

#: A file larger than this is refused: its lines are held in memory.
MAX_FILE_BYTES = 256 << 20

T = TypeVar("T")


class Episode(NamedTuple):
    """One response under an env's rules: n decisions."""

    row: NDArray[np.int64]  # (P + T,) the final prefix
    actions: list[int]  # n token ids
    positions: list[int]  # n slots
    legal: list[NDArray[np.bool_]]  # n masks (V,)


def play_back(rules: textenvs.Rules, start: Any, token_ids: Iterable[int]) -> Episode:
    """Lay a response out as the env would, replies included; what comes after the episode's end is left.

    Args:
        rules: the env's.
        start: from `rules.start` or `rules.start_prompt`.
        token_ids: what the agent chooses.

    Raises:
        ValueError: for a token that the env's mask forbids: its likelihood is 0, whatever the weights.
    """
    row, end = start.row.copy(), rules.max_prompt_tokens
    turn_ends: list[int] = []
    episode = Episode(row, [], [], [])
    for token in token_ids:
        legal = rules.legal(start.problem, row, end)
        if not legal[token]:
            allowed = ", ".join(repr(rules.vocab.tokens[i]) for i in np.flatnonzero(legal)[:10])
            raise ValueError(
                f"response must keep to the env's masks, got {rules.vocab.tokens[token]!r} as token "
                f"{len(episode.actions) + 1} after the prompt {start.prompt[:80]!r}, where {allowed} may follow"
            )
        episode.actions.append(token)
        episode.positions.append(end)
        episode.legal.append(legal)
        row[end] = token
        end += 1
        if rules.ends_turn[token] or end == rules.width:
            end, reason = rules.close_turn(start.problem, row, end, turn_ends)
            if reason is not None:
                break
    return episode


def demonstrations(rules: textenvs.Rules, max_demonstrations: int) -> list[Episode]:
    """Play back the demonstrations of the first problems.

    Raises:
        ValueError: for a problem that has none.
    """
    episodes = []
    for k in range(min(len(rules.task), max_demonstrations)):
        start = rules.start(k)
        token_ids = rules.demonstration(start.problem)
        if token_ids is None:
            raise ValueError(
                f"every problem must have a demonstration, got none for problem {k}, {start.prompt[:80]!r}; "
                "give it a reference, or pass --text-file"
            )
        episodes.append(play_back(rules, start, token_ids))
    return episodes


def read_responses(path: str | Path, rules: textenvs.Rules) -> list[Episode]:
    """Play back a file of responses, one a line; blank lines are skipped.

    A line is `prompt<TAB>response`; without a TAB plain text, whose first token is the prompt. In a file named .jsonl
    it is an object with "prompt" and "response", as `textenvs evaluate --samples` writes. The end token is added where
    there is room for it.

    Raises:
        ValueError: for a file without responses or not in UTF-8, and for a line whose prompt the task cannot read,
            whose response is longer than the limit or goes on after the episode's end, or that has a symbol outside
            the vocabulary or against the mask; the message names line and value.
        OSError: when the file cannot be read.
    """
    is_json = Path(path).suffix == ".jsonl"
    return read_lines(path, lambda line: _read_line(line, rules, is_json=is_json))


def read_lines(path: str | Path, read: Callable[[str], T]) -> list[T]:
    """What `read` makes of each line of a file of responses; blank lines are skipped.

    Raises:
        ValueError: too large, without responses, not UTF-8, or a line that `read` refuses; names file and line.
        OSError: the file cannot be read.
    """
    file = Path(path)
    if (size := file.stat().st_size) > MAX_FILE_BYTES:
        raise ValueError(f"{path} must be at most {MAX_FILE_BYTES:,} bytes, got {size:,}; split it")
    found: list[T] = []
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if text.strip():
                    found.append(read(text))
            except UnicodeDecodeError as error:
                byte = f"0x{line[error.start]:02x} as byte {error.start + 1}"
                raise ValueError(f"{path}:{number}: line must be UTF-8, got {byte}; re-encode the file") from None
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from None
    if not found:
        raise ValueError(f"{path} must hold at least one response, got none; write one a line")
    return found


def _read_line(line: str, rules: textenvs.Rules, *, is_json: bool) -> Episode:
    vocab = rules.vocab
    if is_json:
        record = read_object(line)
        prompt, response = record.get("prompt"), record.get("response")
        if not isinstance(prompt, str) or not isinstance(response, str):
            raise ValueError(f'line must be a JSON object with the texts "prompt" and "response", got {line[:80]!r}')
        ids = vocab.encode(response).tolist()
    elif "\t" in line:
        prompt, _, response = line.partition("\t")
        ids = vocab.encode(response).tolist()
    else:
        first, *ids = vocab.encode(line).tolist()
        prompt = vocab.decode([first])
    limit = rules.max_new_tokens
    if len(ids) > limit:
        raise ValueError(
            f"response must be at most {limit} tokens, got {len(ids)} in {line[:80]!r}; "
            "shorten it, or raise max_new_tokens"
        )
    episode = play_back(rules, rules.start_prompt(prompt), [*ids, vocab.eos_id])
    if len(episode.actions) < len(ids):
        raise ValueError(
            f"response must end where the episode does, got {len(ids)} tokens in {line[:80]!r}, of which number "
            f"{len(episode.actions)} ends it; cut the rest"
        )
    return episode


def read_object(line: str) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        ValueError: it is none, or one that `textenvs.read_json` refuses.
    """
    try:
        record = textenvs.read_json(line, textenvs.JSON_LINE)
    except JSONDecodeError as error:  # which counts lines of its own
        raise ValueError(
            f"line must be JSON, got {line[:80]!r}: {error.msg} at character {error.pos + 1}; write one object a line"
        ) from None
    except ValueError as error:
        raise ValueError(f"line must be JSON, got {line[:80]!r}: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f"line must be a JSON object, got {line[:80]!r}")
    return record


def as_rollout(episodes: list[Episode], *, has_masks: bool) -> Rollout:
    """Put B episodes of at most T decisions side by side; log-probs, values and rewards are 0: nobody sampled them."""
    shape = (len(episodes), max(len(episode.actions) for episode in episodes))
    mask = np.zeros(shape, bool)
    actions, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    legal = np.zeros((*shape, len(episodes[0].legal[0])), bool) if has_masks else None
    for i, episode in enumerate(episodes):
        n = len(episode.actions)
        mask[i, :n], actions[i, :n], positions[i, :n] = True, episode.actions, episode.positions
        if legal is not None:
            legal[i, :n] = episode.legal
    return Rollout(
        observations=np.stack([episode.row for episode in episodes]),
        actions=actions,
        mask=mask,
        positions=positions,
        legal=legal,
        log_probs=np.zeros(shape, np.float32),
        values=np.zeros(shape, np.float32),
        rewards=np.zeros(shape),
        terminated=np.ones(shape[0], bool),
        truncated=np.zeros(shape[0], bool),
        bootstrap_values=np.zeros(shape[0], np.float32),
        infos=np.array([{} for _ in episodes], object),
        episodes=np.arange(shape[0]),
    )
