"""The episodes of a page: those sampled in training, and those of an evaluation, with its numbers.

The files may hold anything where something is expected. Names that somebody else chose become pairs, never keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agents.report.runs import RunRecord, as_number, as_text

_BLOCKS = (("start", "before"), ("sampled", "after, sampled"), ("greedy", "after, greedy"))
_NO_NUMBER = (None, None)


def episodes(run: RunRecord, k: int) -> list[dict[str, Any]]:
    """Lay out what a run sampled.

    Args:
        run: whose samples.
        k: its place among the runs of the page.

    Returns:
        One object an episode: run, update, prompt, response, finish_reason, return, parts (pairs), tokens (texts, or
        None where none were kept) and columns: pairs of a name and one number a token.
    """
    return [_episode(sample, k) for sample in run.samples]


def _episode(sample: Mapping[str, Any], k: int) -> dict[str, Any]:
    columns = _mapping(sample.get("tokens"))
    tokens = [str(token) for token in _list(columns.get("token"))]
    numbers = [
        [name, [as_number(value) for value in values]]
        for name, values in columns.items()
        if name != "token" and isinstance(values, list) and len(values) == len(tokens)
    ]
    return {
        "run": k,
        "update": as_number(sample.get("update")),
        "prompt": as_text(sample.get("prompt")),
        "response": as_text(sample.get("response")),
        "finish_reason": as_text(sample.get("finish_reason")),
        "return": as_number(sample.get("return")),
        "parts": [[name, as_number(value)] for name, value in _mapping(sample.get("parts")).items()],
        "tokens": tokens or None,
        "columns": numbers,
    }


def evaluation(run: RunRecord, found: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out one of what evaluate left.

    Returns:
        The run's label; env, split, judge and warnings; "columns" and "rows": a row a number, and in it a pair of mean
        and standard error a policy; "main": of the reward and the judge these pairs, and their gain over the start;
        "pairs" of episodes on the same problem.
    """
    tables = {"sampled": found, "greedy": _mapping(found.get("greedy")), "start": _mapping(found.get("start"))}
    rows: list[tuple[str, list[Any]]] = []
    for name in tables["start"]:
        if name != "stderr" and not name.endswith("_stderr"):
            error = "stderr" if name == "mean_return" else f"{name}_stderr"
            cells = [[as_number(tables[key].get(name)), as_number(tables[key].get(error))] for key, _ in _BLOCKS]
            rows.append((name, cells))
    gains, by_name = _mapping(found.get("gain")), dict(rows)
    judge = as_text(found.get("judge_name"))
    main = [
        {
            "by": by,
            "cells": by_name.get(name, [_NO_NUMBER] * len(_BLOCKS)),
            "gain": [as_number(gains.get(name)), as_number(gains.get(f"{name}_stderr"))],
        }
        for name, by in (("mean_return", "the reward"), ("judge", f"judge: {judge}"))
        if name in by_name
    ]
    env = _mapping(found.get("env"))
    kwargs = env.get("kwargs")
    said = f" {json.dumps(kwargs, sort_keys=True)}" if kwargs and kwargs != run.config.get("env_kwargs") else ""
    return {
        "run": run.label,
        "env": None if env.get("id") is None else f"{env['id']}{said}",
        "split": as_text(found.get("split")),
        "judge": judge,
        "columns": [title for _, title in _BLOCKS],
        "rows": rows,
        "main": main,
        "warnings": [str(warning) for warning in _list(found.get("warnings"))],
        "pairs": [_pair(_mapping(pair)) for pair in _list(found.get("pairs"))],
    }


def _pair(pair: Mapping[str, Any]) -> dict[str, Any]:
    sides: dict[str, Any] = {}
    for name in ("before", "after"):
        side = _mapping(pair.get(name))
        numbers = {key: as_number(side.get(key)) for key in ("return", "judge")}
        sides[name] = {"response": as_text(side.get("response")), **numbers}
    return {"prompt": as_text(pair.get("prompt")), **sides}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
