"""The contract of an environment as a check anybody can run: `check_env(env_or_id)`.

A clause is a function that yields what it saw against one demand; `every` holds those true of every env with token
actions, `textgen` and `surroundings` those of ours, `lab` the episodes they look at.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from textenvs.checks import every, surroundings, textgen
from textenvs.checks.lab import Clause, Lab, UncheckedError

logger = logging.getLogger("textenvs")

#: Clauses true of every env with token actions, and those of TextGen's own envs, the ones with metadata["textgen"].
EVERY = tuple(every.CLAUSES)
OURS = (*textgen.CLAUSES, *surroundings.CLAUSES)


@dataclass(frozen=True)
class Report:
    """What an examination found. Every clause is in exactly one of the three, by name.

    Attributes:
        name: the env.
        kept: clauses that hold, with their demand.
        broken: clauses that do not, with the demand, what was seen, and the remedy.
        unchecked: clauses that could not be run, with the reason.
    """

    name: str
    kept: dict[str, str]
    broken: dict[str, str]
    unchecked: dict[str, str]


class ContractError(AssertionError):
    """An env breaks clauses of the contract; an AssertionError, as Gymnasium's own checker raises.

    Attributes:
        clauses: names of the broken clauses.
        unchecked: names of those that could not be run.
        report: everything that was found.
    """

    def __init__(self, report: Report) -> None:
        self.report, self.clauses, self.unchecked = report, tuple(report.broken), tuple(report.unchecked)
        lines = [f"{name}: {text}" for name, text in report.broken.items()]
        lines += [f"unchecked {name}: {why}" for name, why in report.unchecked.items()]
        super().__init__("\n  ".join([f"{report.name} breaks the contract:", *lines]))


def check_env(env_or_id: gym.Env[Any, Any] | str, *, num_episodes: int = 8, other_process: bool = True) -> None:
    """Check an env against the contract; clauses that could not be run are logged.

    Args:
        env_or_id: a scalar Gymnasium env with Discrete actions, or the id of one. Fresh copies come from its spec.
        num_episodes: random episodes for each of four seeds, at least 1.
        other_process: also replay them in another process, which takes half a second.

    Raises:
        ContractError: clauses are broken; `.clauses` names them.
        TypeError: neither an env nor an id.
    """
    report = examine(env_or_id, num_episodes=num_episodes, other_process=other_process)
    if report.broken:
        raise ContractError(report)
    for name, why in report.unchecked.items():
        logger.warning("check_env of %s left %s unchecked: %s", report.name, name, why)


def examine(env_or_id: gym.Env[Any, Any] | str, *, num_episodes: int = 8, other_process: bool = True) -> Report:
    """What `check_env` finds, as a `Report` instead of an error. Arguments: see there."""
    if isinstance(num_episodes, bool) or not isinstance(num_episodes, int) or num_episodes < 1:
        raise ValueError(f"num_episodes must be an int of at least 1, got {num_episodes!r}")
    # Gymnasium's passive checker warns of what the clauses look for; here its warnings would only be noise.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lab = Lab(env_or_id, num_episodes)
        report = Report(env_or_id if isinstance(env_or_id, str) else str(env_or_id), {}, {}, {})
        for clause in EVERY if lab.facts is None else EVERY + OURS:
            if clause.name == "same_in_another_process" and not other_process:
                report.unchecked[clause.name] = "other_process=False"
            else:
                _try(clause, lab, report)
    return report


def _try(clause: Clause, lab: Lab, report: Report) -> None:
    """File one clause; an error inside it is what was seen against it."""
    try:
        seen = next(clause.find(lab), None)
    except UncheckedError as error:
        report.unchecked[clause.name] = str(error)
        return
    except Exception as error:
        seen = f"{type(error).__name__}: {error}"
    if seen is None:
        report.kept[clause.name] = clause.demand
    else:
        report.broken[clause.name] = f"{clause.demand} Seen: {seen}. Remedy: {clause.remedy}."
