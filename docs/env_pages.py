"""One page an environment, from its docstring, its rules, its stored scores, and three episodes played now."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from docstrings import GENERATED, Docstring, code, escaped, fence, parse, slug, table

import textenvs

#: Rows of a transcript that are shown at its beginning and its end; a shorter one is shown whole.
HEAD, TAIL = 20, 8
#: What a person might write where nobody wrote a reference.
WRITTEN = {"TextGen-v0": (" wonderful, and we loved every minute of it.", " terrible, and the food was cold.")}
#: Families that are learnt from nothing; the others want a model that has seen text or demonstrations.
FROM_SCRATCH = ("strings", "graphs")
WARM = "--learning-rate 3e-4 --gae-lambda 1 --kl-coef 0.02"


def env_page(entry: textenvs.Entry) -> str:
    """The page of one id."""
    rules = textenvs.Rules(**entry.kwargs)
    task = rules.task
    source = type(task).__module__.replace(".", "/") + ".py"
    own, shared = parse(type(task).__doc__), parse(sys.modules[type(task).__module__].__doc__)
    alone = [path.split(":")[0] for path in textenvs.TASKS.values()].count(type(task).__module__) == 1
    parts = [
        GENERATED.format(source),
        f"# {_name_of(entry)}",
        f"`{entry.id}`, of the family {entry.family}.",
        "## Description",
        *_description(own, shared, alone),
        *_make_it(entry),
        "## Scores",
        _scores(entry, rules),
        "## Settings",
        _settings(task),
        "## Spaces and vocabulary",
        _spaces(entry, rules),
        "## Three episodes",
        "The same tokens with the reward at the end, as by default, and as it grows (`dense=True`).",
        *_episodes(entry, rules),
        "## Commands",
        fence(_commands(entry), "sh"),
    ]
    parts += _shared_sections(shared, alone)
    return "\n\n".join(part for part in parts if part).replace("`textenvs.env.TextGenEnv`", CONTRACT) + "\n"


CONTRACT = "[the contract](../contract.md)"


def _description(own: Docstring, shared: Docstring, alone: bool) -> Iterator[str]:
    """What the class says; of a module about it alone, what that says as well."""
    yield own.summary
    yield own.body
    if alone:
        yield from (shared.summary, shared.body, shared.headings.get("Description", ""))


def _shared_sections(shared: Docstring, alone: bool) -> list[str]:
    """The rest of the module's docstring; under one heading where it is about several tasks."""
    if alone:
        return [
            part for title, text in shared.headings.items() if title != "Description" for part in (f"## {title}", text)
        ]
    parts = ["## The family", shared.summary, shared.body]
    for title, text in shared.headings.items():
        parts += [f"### {title} of the family", text]
    return parts


def _make_it(entry: textenvs.Entry) -> list[str]:
    lines = ["import gymnasium as gym", "import textenvs", "", f'env = gym.make("{entry.id}")']
    lines += ["observation, info = env.reset(seed=1)", "print(env.unwrapped.text())  # the prompt"]
    return [fence("\n".join(lines), "python")]


def _scores(entry: textenvs.Entry, rules: textenvs.Rules) -> str:
    known = textenvs.Anchors.stored(entry.id) or textenvs.Anchors()
    values = (known.random, known.dumb, known.reference, known.optimal)
    scores = table(
        ("random tokens", "best policy that does not read", "reference", "optimal"),
        [["-" if value is None else f"{value:.3f}" for value in values]],
    )
    low, high = rules.reward.value_range
    solved = (
        ""
        if entry.reward_threshold is None
        else f" The id counts as solved at a mean return of {entry.reward_threshold:g}."
    )
    return (
        f"{scores}\n\nMean returns at default settings ([how they are measured](index.md#scores)). The reward is "
        f"{_reward(rules)}, in [{low:g}, {high:g}]; an episode succeeds from {rules.task.threshold:g} on.{solved}"
    )


def _reward(rules: textenvs.Rules) -> str:
    name = rules.reward.name
    return f"[`{name}`](../rewards/{name}.md)" if name in textenvs.REWARDS else f"`{name}`, the task's own"


def _settings(task: textenvs.Task) -> str:
    meaning: dict[str, str] = {}
    for cls in reversed(type(task).__mro__):
        meaning |= parse(cls.__doc__).args if issubclass(cls, textenvs.Task) and cls is not textenvs.Task else {}
    rows = []
    for name, parameter in inspect.signature(type(task).__init__).parameters.items():
        if name != "self":
            cells = code(name), code(str(parameter.annotation)), code(repr(parameter.default))
            rows.append([*cells, escaped(meaning[name])])
    rest = "What every environment takes besides (`reward`, `dense`, `observation`, `mask_keys`, ...) is in "
    return f"{table(('setting', 'type', 'default', 'meaning'), rows)}\n\n{rest}{CONTRACT}."


def _spaces(entry: textenvs.Entry, rules: textenvs.Rules) -> str:
    env: Any = gym.make(entry.id).unwrapped
    limits = f"a prompt of at most {rules.max_prompt_tokens} tokens, a response of at most {rules.max_new_tokens}"
    heldout = _num_heldout(entry)
    rows = [
        ("action space", code(str(env.action_space))),
        ("observation space", f"{code(str(env.observation_space))}: {limits}"),
        ("end token", f"id {rules.vocab.eos_id}"),
        (
            "masks",
            "`action_masks()` follows the task's grammar" if rules.task.has_masks else "none: every token is legal",
        ),
        ("replies", "the task answers each turn" if rules.has_replies else "none: one turn"),
        ("problems", f"{len(rules.task):,} to train on, {heldout}"),
        ("vocabulary", _vocabulary(rules.vocab)),
    ]
    return table(("", ""), rows)


def _num_heldout(entry: textenvs.Entry) -> str:
    try:
        return f"{len(textenvs.Rules(**entry.kwargs, split='heldout').task):,} held out"
    except ValueError:
        return "none held out"


def _vocabulary(vocab: textenvs.Vocab) -> str:
    if isinstance(vocab, textenvs.CharVocab):
        symbols = "".join(vocab.tokens[:-1])
        return f"{len(symbols)} characters, ids 0 to {len(symbols) - 1}: {code(symbols)}"
    return f"the shipped byte-level tokenizer, {vocab.num_tokens:,} tokens (`textenvs/assets/tokenizer.json`)"


def _episodes(entry: textenvs.Entry, rules: textenvs.Rules) -> Iterator[str]:
    """A solution, something wrong, and uniformly random tokens; each on a problem of its own."""
    num = len(rules.task)
    numbers = [num // 4, num // 2, num - 1]
    rng = np.random.default_rng(0)
    for (title, tokens), k in zip(_policies(entry, rules, rng), numbers, strict=True):
        yield f"### {title}"
        yield fence(transcript(entry.id, k, tokens), "text")


def _policies(entry: textenvs.Entry, rules: textenvs.Rules, rng: np.random.Generator) -> Iterator[tuple[str, Any]]:
    """Titles, and what chooses the next token: a function of the env."""
    vocab = rules.vocab
    if entry.id in WRITTEN:
        happy, unhappy = ([*vocab.encode(text).tolist(), vocab.eos_id] for text in WRITTEN[entry.id])
        yield "Written by hand, happy", lambda env, step: happy[step]
        yield "Written by hand, unhappy", lambda env, step: unhappy[step]
    else:
        yield "The reference", _solution
        if rules.task.has_masks:
            yield "Random legal tokens", lambda env, step: int(rng.choice(np.flatnonzero(env.action_masks())))
        else:
            other = rules.demonstration(rules.task[0]) or [vocab.eos_id]
            yield "The answer to another problem", lambda env, step: other[step]
    yield "Random tokens", lambda env, step: int(rng.integers(rules.num_tokens))


def _solution(env: Any, step: int) -> int:
    demonstration: list[int] = env.demonstration()
    return demonstration[step]


def transcript(env_id: str, problem: int, choose: Any) -> str:
    """An episode token by token, as text: step, id, token, reward at the end, reward as it grows."""
    sparse: Any = gym.make(env_id).unwrapped
    dense: Any = gym.make(env_id, dense=True).unwrapped
    for env in (sparse, dense):
        env.reset(seed=0, options={"problem": problem})
    prompt, vocab, width = sparse.text(), sparse.rules.vocab, sparse.rules.num_tokens
    lines, done, step, info = [], False, 0, {}
    start = sparse.rules.max_prompt_tokens
    while not done:
        token = choose(sparse, step)
        row, reward, terminated, truncated, info = sparse.step(token)
        grown = dense.step(token)[1]
        step, done = step + 1, terminated or truncated
        lines.append(f"{step:4} {token:5}  {_name(vocab, token):16} {reward:8.3f} {grown:8.3f}")
        end = start + 1
        used = row[end:][row[end:] < width].tolist()
        if used:
            lines.append(f"{'':12}{'reply ' + _quoted(vocab.decode(used))}")
        start = end + len(used)
    head = "step    id  token              reward    dense"
    if len(lines) > HEAD + TAIL + 1:
        lines = [*lines[:HEAD], f"     ... {len(lines) - HEAD - TAIL} lines more ...", *lines[-TAIL:]]
    spoken = " | ".join(map(_quoted, info["turns"])) if "turns" in info else _quoted(info["response"])
    extra = "success" if info["is_success"] else "no success"
    return "\n".join(
        [
            f"prompt    {_quoted(prompt)}",
            f"response  {spoken}",
            f"ended by  {info['finish_reason']}, {extra}",
            "",
            head,
            *lines,
        ]
    )


def _quoted(text: str) -> str:
    return f"'{textenvs.printable(text)}'"


def _name(vocab: textenvs.Vocab, token: int) -> str:
    """What a token spells; its name in the vocabulary where that is nothing, or part of a character."""
    text = vocab.decode([token])
    return textenvs.printable(vocab.tokens[token]) if not text or "�" in text else _quoted(text)


def _commands(entry: textenvs.Entry) -> str:
    run, name = f"runs/{slug(entry.id)}", entry.id
    lines = [f"textenvs show {name}", f"textenvs play {name}"]
    if name == "TextGen-v0":
        lines.append(_wrapped(f"textenvs train {name} --run-dir {run} --model tiny", WARM))
    elif entry.family in FROM_SCRATCH:
        lines.append(_wrapped(f"textenvs train {name} --run-dir {run}", "--env-kwargs '{\"dense\": true}'"))
    else:
        characters = isinstance(textenvs.Rules(**entry.kwargs).vocab, textenvs.CharVocab)
        lines.append(f"textenvs sft {name} --run-dir {run}-sft --model {'scratch' if characters else 'tiny'}")
        lines.append(_wrapped(f"textenvs train {name} --run-dir {run} --model {run}-sft/final", WARM))
    return "\n".join([*lines, f"textenvs evaluate {run}", f"textenvs play {run}"])


def _wrapped(command: str, flags: str) -> str:
    """A long command on two lines."""
    return f"{command} \\\n    {flags}"


def index_page() -> str:
    """The table of all ids, by family."""
    parts = [GENERATED.format("textenvs/registration.py"), "# Environments", INDEX]
    for family in dict.fromkeys(entry.family for entry in textenvs.ENTRIES):
        rows = []
        for entry in (entry for entry in textenvs.ENTRIES if entry.family == family):
            known = textenvs.Anchors.stored(entry.id) or textenvs.Anchors()
            task = textenvs.Rules(**entry.kwargs).task
            values = (known.random, known.dumb, known.reference, known.optimal)
            summary = escaped(parse(type(task).__doc__).summary)
            scores = ["-" if value is None else f"{value:.3f}" for value in values]
            rows.append([f"[{_name_of(entry)}]({slug(entry.id)}.md)", summary, *scores])
        parts += [f"## {family.capitalize()}", table(("id", "task", "random", "dumb", "reference", "optimal"), rows)]
    return "\n\n".join([*parts, "## Scores", SCORES]) + "\n"


def _name_of(entry: textenvs.Entry) -> str:
    return entry.id.removeprefix("textenvs/").removesuffix("-v0")


INDEX = """Every environment keeps [the same contract](../contract.md): an action is a token id, an observation the
prompt and what has been written so far, the reward a score of the response. `textenvs list` prints this table,
`textenvs show ID` a page of it. The id of Copy is `textenvs/Copy-v0`, and so on; that of TextGen is `TextGen-v0`."""

SCORES = """The four columns say what a mean return is worth:

- **random**: uniformly random tokens; exact for the string tasks, the walks and GuessNumber, else 500 episodes.
- **dumb**: the best of seven policies that do not read the problem: say nothing, echo the prompt or its first sentence,
  always give one reference, the commonest, all at once, or one token again and again.
- **reference**: the problems' own references; in a game its demonstration.
- **optimal**: the best that is possible, where somebody knows it.

They are measured on 200 problems of the training split at default settings by `python benchmarks/board.py`, stored in
`textenvs/assets/anchors.csv`, and held to what the code computes by `tests/test_board.py`."""
