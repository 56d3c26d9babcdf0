"""Infos are made at the first look, and say what was true when they were given."""

from __future__ import annotations

import copy
import operator
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

from textenvs.infos import Infos, fill

LOOKS: dict[str, Callable[[Infos], Any]] = {
    "[]": lambda infos: infos["a"],
    "in": lambda infos: "a" in infos,
    "len": len,
    "iter": list,
    "reversed": lambda infos: list(reversed(infos)),
    "get": lambda infos: infos.get("a"),
    "keys": lambda infos: list(infos.keys()),
    "values": lambda infos: list(infos.values()),
    "items": lambda infos: list(infos.items()),
    "dict": dict,
    "**": lambda infos: {**infos},
    "keywords": lambda infos: dict(**infos),
    "| dict": lambda infos: infos | {"c": 3},
    "dict |": lambda infos: {"c": 3} | infos,
    "update of another": lambda infos: Infos() or {"c": 3}.update(infos),
    "==": lambda infos: infos == {"a": 1, "b": 2},
    "== of a dict": lambda infos: operator.eq({"a": 1, "b": 2}, infos),
    "!=": lambda infos: infos != {"a": 1, "b": 2},
    "repr": repr,
    "bool": bool,
    "pop": lambda infos: infos.pop("a"),
    "popitem": lambda infos: infos.popitem(),
    "setdefault": lambda infos: infos.setdefault("a", 5),
    "del": lambda infos: infos.__delitem__("a"),
    "copy": lambda infos: infos.copy(),
    "copy.copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda infos: pickle.loads(pickle.dumps(infos)),
    "mapping pattern": lambda infos: isinstance(infos, Mapping) and infos["b"],
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_every_look_sees_what_a_plain_dict_shows(look: Callable[[Any], Any]) -> None:
    infos, plain, written = Infos(a=0), {"a": 1, "b": 2}, []
    infos.defer(lambda infos: infos.update(a=1))
    infos.defer(lambda infos: (written.append(1), infos.update(b=2)))
    assert not written
    assert look(infos) == look(plain)
    assert infos == plain
    assert written == [1]


@pytest.mark.parametrize("compare", [operator.eq, operator.ne, lambda a, b: a | b])
def test_both_sides_of_an_operator_are_written(compare: Callable[[Any, Any], Any]) -> None:
    one, other = Infos(a=1), Infos(a=1)
    for infos, value in ((one, 2), (other, 3)):
        infos.defer(lambda infos, value=value: infos.update(b=value))
    assert compare(one, other) == compare({"a": 1, "b": 2}, {"a": 1, "b": 3})


@pytest.mark.parametrize(
    "change", [lambda d: d.update(a=7), lambda d: d.__setitem__("a", 7), lambda d: d.__ior__({"a": 7})]
)
def test_what_is_written_by_hand_comes_after_what_was_deferred(change: Callable[[Any], Any]) -> None:
    infos = Infos()
    infos.defer(lambda infos: infos.update(a=1, b=2))
    change(infos)
    assert infos == {"a": 7, "b": 2}
    infos.defer(lambda infos: infos.update(b=3))
    infos.clear()
    assert infos == {}


def test_columns_are_filled_as_gymnasium_does() -> None:
    infos = Infos()
    fill(infos, 4, np.array([1, 3]), {"n": np.array([5, 6]), "text": ["a", "b"], "turns": [["x"], ["y", "z"]]})
    fill(infos, 4, np.array([0]), {"n": np.array([9]), "more": np.array([True])})
    fill(infos, 4, np.array([], int), {"nothing": np.array([])})
    assert infos["n"].tolist() == [9, 5, 0, 6]
    assert infos["_n"].tolist() == [True, True, False, True]
    assert infos["text"].tolist() == [None, "a", None, "b"]
    assert infos["_text"].tolist() == [False, True, False, True]
    assert infos["turns"].tolist() == [None, ["x"], None, ["y", "z"]]
    assert infos["more"].tolist() == [True, False, False, False]
    assert infos["_more"].sum() == 1
    assert "nothing" not in infos


def plain(value: Any) -> Any:
    """Infos with lists for arrays, dtypes kept."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return (str(value.dtype), [plain(x) for x in value]) if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize("env_id", ["textenvs/Copy-v0", "textenvs/GuessNumber-v0"])
def test_infos_looked_at_late_are_those_looked_at_once(env_id: str, mode: str) -> None:
    """Prompts of one's own among them; what the env does meanwhile changes nothing."""
    late, early = (gym.make_vec(env_id, num_envs=5, autoreset_mode=mode) for _ in range(2))
    rng, kept = np.random.default_rng(0), []
    prompt = late.unwrapped.rules.task[3].prompt  # type: ignore[attr-defined]
    for options in ({}, {"prompt": prompt}):
        for envs in (late, early):
            kept.append(envs.reset(seed=1 if options else 0, options=options)[1])
        kept[-1] = copy.deepcopy(dict(kept[-1]))
        for _ in range(80):
            actions = rng.integers(late.single_action_space.n, size=5)  # type: ignore[attr-defined]
            ended = None
            for envs in (late, early):
                _, _, terminated, truncated, infos = envs.step(actions)
                ended = terminated | truncated
                kept.append(infos)
            kept[-1] = copy.deepcopy(dict(kept[-1]))
            if mode == "Disabled" and ended is not None and ended.any():
                for envs in (late, early):
                    kept.append(envs.reset(options={"reset_mask": ended})[1])
                kept[-1] = copy.deepcopy(dict(kept[-1]))
    assert sum("response" in infos or "final_info" in infos for infos in kept[1::2]) > 5
    for one, other in zip(kept[::2], kept[1::2], strict=True):
        assert plain(one) == plain(other)


def test_a_step_that_nobody_looks_at_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=8)
    envs.reset(seed=0)
    decoded: list[int] = []
    vocab = type(envs.unwrapped.rules.vocab)  # type: ignore[attr-defined]
    monkeypatch.setattr(
        vocab, "decode_rows", lambda self, rows, lengths: decoded.append(len(rows)) or ["?"] * len(rows)
    )
    actions = np.full(8, envs.single_action_space.n - 1)  # type: ignore[attr-defined]
    infos = envs.step(actions)[-1]
    assert decoded == []
    assert infos["response"].tolist() == ["?"] * 8
    assert decoded == [8]


def test_wrappers_of_gymnasium_take_them() -> None:
    envs = DictInfoToList(RecordEpisodeStatistics(gym.make_vec("textenvs/Copy-v0", num_envs=2)))  # type: ignore[arg-type]
    envs.reset(seed=0)
    infos: Any = envs.step(np.full(2, envs.single_action_space.n - 1))[-1]  # type: ignore[attr-defined]
    assert [info["response"] for info in infos] == ["", ""]
    assert infos[0]["episode"]["l"] == 1
