"""What an evaluation leaves to read: evaluation.json for the report, and samples for `textenvs score`."""

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.checkpoint import write_file
from agents.rollout import Rollout
from agents.text_metrics import finite_or_none

NUM_PAIRS = 64  # problems whose responses before and after are kept in evaluation.json


def file_of(env: Mapping[str, Any] | None) -> str:
    """Name the file of an evaluation on the run's own env, None, or on another one of this id and these kwargs."""
    if env is None:
        return "evaluation.json"
    name = re.sub(r"[^A-Za-z0-9.]+", "-", env["id"]).strip("-.")[:60]
    return f"evaluation-{name}-{hashlib.sha256(json.dumps(env, sort_keys=True).encode()).hexdigest()[:8]}.json"


def write_evaluation(
    path: Path,
    result: Mapping[str, Any],
    rollouts: Mapping[str, Rollout],
    judged: Mapping[str, NDArray[np.float64]],
) -> None:
    """Leave the newest evaluation on an env in the run's directory; one that cannot be written to gets a warning.

    Args:
        path: in the run's directory, see `file_of`.
        result: what `evaluate_run` returns.
        rollouts: "sampled" and "start", on the same problems.
        judged: scores of the judge, (B,) each, under the same names; NaN where there is none.
    """
    pairs = []
    sides = {"before": "start", "after": "sampled"}
    for i in range(min(NUM_PAIRS, *(len(rollouts[name]) for name in sides.values()))):
        infos = {side: rollouts[name].infos[i] for side, name in sides.items()}
        if not all("response" in info for info in infos.values()):
            continue
        pair: dict[str, Any] = {"prompt": infos["after"].get("prompt")}
        for side, name in sides.items():
            faulty = bool(rollouts[name].faulty[i])
            pair[side] = {
                "response": infos[side]["response"],
                "return": None if faulty else float(rollouts[name].returns[i]),
                "judge": finite_or_none(judged[name][i]) if name in judged else None,
            }
        pairs.append(pair)
    try:
        write_file(path, json.dumps({**result, "pairs": pairs}, indent=1))
    except OSError as error:
        warnings.warn(f"{path.name} not left for `textenvs report`: {error}", stacklevel=3)


def write_samples(rollout: Rollout, path: Path, *, split: str | None) -> None:
    """Write one JSON line an episode: id, prompt, response, value (null where scoring failed).

    Where the task replies, also its turns, and the problem's number in the split: there a prompt does not tell it.
    A split of None is the one that the env is on by itself.
    """
    with path.open("w", encoding="utf-8") as file:
        for i, (info, value, faulty) in enumerate(zip(rollout.infos, rollout.returns, rollout.faulty, strict=True)):
            line = {"id": i, "prompt": info.get("prompt"), "response": info.get("response")}
            line["value"] = None if faulty else float(value)
            if "turns" in info:
                line |= {"turns": list(info["turns"]), "problem_id": int(info["problem"])}
                line |= {} if split is None else {"split": split}
            file.write(json.dumps(line) + "\n")
