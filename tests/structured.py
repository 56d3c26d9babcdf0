"""What the tests of the structured tasks share."""

from __future__ import annotations

from typing import Any

from reward_batches import responses_of

import textenvs


def problems(name: str, **options: Any) -> list[textenvs.Problem]:
    task = textenvs.make_task(name, **options)
    return [task[k] for k in range(0, len(task), max(1, len(task) // 300))]


def scored(name: str, problem: textenvs.Problem, *texts: str) -> list[float]:
    reward = textenvs.as_reward(textenvs.make_task(name).reward)
    return [float(value) for value in reward([problem] * len(texts), responses_of(texts)).values]
