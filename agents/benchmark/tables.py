"""What the results of a benchmark say: a summary of plain numbers, and tables of it.

docs/benchmark.md says how to read them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

import textenvs
from agents.benchmark.results import Key, Row, canonical
from agents.statistics import (
    Groups,
    bootstrap_interval,
    censored_median,
    holm,
    iqm,
    median_interval,
    optimality_gap,
    paired_difference,
    paired_p_value,
    probability_of_improvement,
)

Summary = dict[str, Any]

TOO_NARROW = "Where all of a few runs agree, an interval by bootstrap has no width: it is then too narrow."


def summarise(rows: Mapping[Key, Row], against: str | None = None) -> Summary:
    """Summarise all jobs of a benchmark.

    Args:
        rows: by agent, environment and seed.
        against: the agent that all others are compared with; None for the one with the highest IQM, of those
            that learn and have scores in all environments where there are such.

    Returns:
        JSON-able: "suite", "sources" (each combination of commit, versions and machine by a letter), "is_mixed",
        "agents" from the highest IQM down, "against" and "comparisons"; an interval is a list of two, a number that
        does not exist None.

    Raises:
        ValueError: no jobs, or an `against` that has none.
    """
    if not rows:
        raise ValueError("results must hold at least one job, got none; run the benchmark first")
    names = list(dict.fromkeys(key[0] for key in rows))
    envs = list(dict.fromkeys(key[1] for key in sorted(rows)))
    if against is not None and against not in names:
        raise ValueError(
            f"--against must be an agent of the results, got {against!r}; {textenvs.near_miss(against, names)}"
        )
    sources = _sources(rows)
    agents = [_agent(name, envs, rows, sources) for name in names]
    agents.sort(key=lambda agent: -math.inf if agent["iqm"] is None else agent["iqm"], reverse=True)
    scored = [agent for agent in agents if agent["iqm"] is not None]
    best = max(scored or agents, key=lambda agent: (agent["learns"], agent["is_complete"], agent["iqm"] or 0.0))
    chosen = against or best["agent"]
    first = next(iter(rows.values()))
    return {
        "suite": first["suite"],
        "envs": {
            key[1]: {"id": row["env_id"], "kwargs": row["env_kwargs"], "threshold": row["threshold"]}
            for key, row in sorted(rows.items(), key=lambda item: item[0])
        },
        "budget_episodes": first["budget_episodes"],
        "budget_seconds": first["budget_seconds"],
        "splits": sorted({row["split"] for row in rows.values() if row["split"]}),
        "without_heldout": sorted({row["env_id"] for row in rows.values() if row["split"] == "train"}),
        "sources": dict(sources.values()),
        "is_mixed": len(sources) > 1 or any(agent["num_settings"] > 1 for agent in agents),
        "agents": agents,
        "against": chosen,
        "comparisons": _comparisons(rows, envs, chosen, [agent["agent"] for agent in agents]),
    }


def scores_of(rows: Mapping[Key, Row], name: str, envs: Sequence[str]) -> dict[str, dict[int, float]]:
    """Scores of an agent's finished jobs by environment and seed; only environments where it has some."""
    found: dict[str, dict[int, float]] = {env: {} for env in envs}
    for (agent, env, seed), row in sorted(rows.items()):
        if agent == name and env in found and row["status"] == "ok" and row["score"] is not None:
            found[env][seed] = row["score"]
    return {env: scores for env, scores in found.items() if scores}


def _source(row: Row) -> str:
    return canonical([row["commit"], row["versions"], row["machine"]])


def _sources(rows: Mapping[Key, Row]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Each combination of commit, versions and machine, with its letter, in the order of the dates."""
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for row in sorted(rows.values(), key=lambda row: row["date"] or ""):
        if _source(row) not in found:
            letter = ascii_lowercase[len(found)] if len(found) < 26 else f"z{len(found)}"
            found[_source(row)] = letter, {name: row[name] for name in ("commit", "versions", "machine")}
    return found


def _agent(
    name: str,
    envs: Sequence[str],
    rows: Mapping[Key, Row],
    sources: Mapping[str, tuple[str, Any]],
) -> Summary:
    own = [row for key, row in rows.items() if key[0] == name]
    groups = [np.array(list(by_seed.values())) for by_seed in scores_of(rows, name, envs).values()]
    done = [row for row in own if row["status"] == "ok"]
    per_env: dict[str, list[Row]] = {env: [] for env in envs}
    for key, row in rows.items():
        if key[0] == name and row["status"] == "ok":
            per_env[key[1]].append(row)
    learns = any(row["episodes"] for row in done)
    return {
        "agent": name,
        "library": own[0]["library"],
        "num_jobs": len(own),
        "num_failed": len(own) - len(done),
        "learns": learns,
        # A mean over fewer environments than the others had is no comparison.
        "is_complete": len(groups) == len(envs),
        "num_settings": len({row["settings_sha256"] for row in own}),
        "sources": sorted({sources[_source(row)][0] for row in own}),
        "iqm": float(iqm(groups)) if groups else None,
        "iqm_interval": _interval(iqm, groups),
        "optimality_gap": float(optimality_gap(groups)) if groups else None,
        "optimality_gap_interval": _interval(optimality_gap, groups),
        "envs": {env: _env(found) for env, found in per_env.items() if found},
    }


def _interval(statistic: Any, *groups: Groups, paired: bool = False) -> list[float] | None:
    """None of single runs: drawing one run anew always gives the same."""
    if not all(groups) or all(len(scores) < 2 for group in groups for scores in group):
        return None
    low, high = bootstrap_interval(statistic, *groups, paired=paired)
    return [float(low), float(high)]


def _env(rows: Sequence[Row]) -> Summary:
    """An agent's jobs in one environment."""
    reached = [row["episodes_to_threshold"] is not None for row in rows]
    result: Summary = {
        "num_runs": len(rows),
        "mean_return": float(np.mean([row["final_return"] for row in rows])),
        "mean_return_greedy": float(np.mean([row["final_return_greedy"] for row in rows])),
        "num_reached": sum(reached) if any(row["episodes"] for row in rows) else None,
    }
    for unit in ("episodes", "seconds"):
        # A run that did not get there was watched for all that it trained.
        values = [row[f"{unit}_to_threshold"] if there else row[unit] for row, there in zip(rows, reached, strict=True)]
        latest = [value if there else math.inf for value, there in zip(values, reached, strict=True)]
        result[f"median_{unit}"] = censored_median(values, reached)
        result[f"median_{unit}_interval"] = [end if math.isfinite(end) else None for end in median_interval(latest)]
    return result


def _comparisons(rows: Mapping[Key, Row], envs: Sequence[str], chosen: str, names: Sequence[str]) -> list[Summary]:
    """The chosen agent with every other, on the seeds and environments that both have."""
    ours = scores_of(rows, chosen, envs)
    compared: list[Summary] = []
    for name in names:
        theirs = scores_of(rows, name, envs)
        seeds = {env: sorted(ours[env].keys() & theirs[env].keys()) for env in ours if env in theirs}
        shared = [env for env in seeds if seeds[env]]
        if name == chosen or not shared:
            continue
        a, b = ([np.array(list(side[env].values())) for env in shared] for side in (ours, theirs))
        c, d = ([np.array([side[env][seed] for seed in seeds[env]]) for env in shared] for side in (ours, theirs))
        compared.append(
            {
                "agent": name,
                "num_pairs": sum(map(len, c)),
                "probability_of_improvement": float(probability_of_improvement(a, b)),
                "probability_interval": _interval(probability_of_improvement, a, b),
                "paired_difference": float(paired_difference(c, d)),
                "difference_interval": _interval(paired_difference, c, d, paired=True),
                "p_value": paired_p_value(c, d),
            }
        )
    for entry, adjusted in zip(compared, holm([entry["p_value"] for entry in compared]), strict=True):
        entry["p_value_holm"] = float(adjusted)
    return compared


def cells(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """The main table as text: its header, and a line an agent; names show no control characters."""
    envs = summary["envs"]
    header = ["agent", "jobs", "IQM of scores [95 %]", "optimality gap [95 %]", *(_title(env, envs) for env in envs)]
    mixed = len(summary["sources"]) > 1
    lines = []
    for agent in summary["agents"]:
        jobs = str(agent["num_jobs"]) + (f", {agent['num_failed']} failed" if agent["num_failed"] else "")
        line = [
            textenvs.printable(agent["agent"]),
            jobs,
            _with_interval(agent, "iqm"),
            _with_interval(agent, "optimality_gap"),
        ]
        if not agent["is_complete"]:
            line[2] += " (not all environments)"
        if agent["num_settings"] > 1:
            line[1] += ", mixed settings"
        line += [_reached(agent["envs"].get(env)) for env in envs]
        lines.append([*line, " ".join(agent["sources"])] if mixed else line)
    return [*header, "from"] if mixed else header, lines


def scored_problems(summary: Summary) -> str:
    """Say which problems the scores are of."""
    where = "training problems" if summary["splits"] == ["train"] else "held-out problems"
    return where + (", where there are any" if len(summary["splits"]) > 1 else "")


def training_scores(summary: Summary) -> list[str]:
    """Say of which environments the scores are no held-out ones."""
    return [
        f"{textenvs.printable(env_id)} has no held-out problems: its scores are of the problems that were trained on"
        for env_id in summary["without_heldout"]
    ]


def notes(summary: Summary) -> list[str]:
    """What must stand beside the main table."""
    said = [
        f"Budget of a job: {summary['budget_episodes']:,} episodes or {summary['budget_seconds']:g} s of CPU time, "
        f"whichever is first. Score: 0 random, 1 optimal, of the sampled policy on {scored_problems(summary)}. "
        "k of n: runs whose last 128 training episodes reached 95 % of the way; then the median episodes and seconds "
        "of CPU time (one thread), runs that did not get there counted as later.",
    ]
    said += training_scores(summary)
    if len(summary["sources"]) > 1:
        said.append("MIXED: results of different commits, versions or machines stand side by side:")
        for letter, source in summary["sources"].items():
            versions = " ".join(f"{name}={number}" for name, number in (source["versions"] or {}).items())
            told = f"{letter}: commit {source['commit'] or 'unknown'}; {source['machine']}; {versions}"
            said.append(textenvs.printable(told))
    return said


def tables(summary: Summary) -> list[Table | str]:
    """The summary for a terminal."""
    header, lines = cells(summary)
    table = Table(
        title=f"benchmark {escape(textenvs.printable(summary['suite']))}", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for name in header:
        table.add_column(escape(name.replace(" [95 %]", "\n[95 %]")), overflow="fold")
    for line in lines:
        table.add_row(*(escape(cell.replace(" [", "\n[").replace(": ", ":\n")) for cell in line))
    second = Table(
        title=f"{escape(textenvs.printable(summary['against']))} against each", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for name in ("agent", "chance to beat it\n[95 %]", "paired difference\n[95 %]", "p (Holm)", "pairs"):
        second.add_column(escape(name), overflow="fold")
    for entry in summary["comparisons"]:
        second.add_row(
            escape(textenvs.printable(entry["agent"])),
            escape(_numbers(entry["probability_of_improvement"], entry["probability_interval"])),
            escape(_numbers(entry["paired_difference"], entry["difference_interval"])),
            f"{entry['p_value_holm']:.3f}",
            str(entry["num_pairs"]),
        )
    comparisons: list[Table | str] = [second, TOO_NARROW] if summary["comparisons"] else []
    return [table, *notes(summary), *comparisons]


def markdown(summary: Summary) -> str:
    """The main table in Markdown, with its notes."""
    header, lines = cells(summary)
    titles = [*header[:4], *map(_as_text, header[4:])]  # of the environments, behind our own
    rows = [titles, ["---"] * len(header), *([_as_text(name), *rest] for name, *rest in lines)]
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return "\n\n".join([text, "\n".join(map(_as_text, notes(summary)))]) + "\n"


def _as_text(said: str) -> str:
    """Escape what Markdown would take for code, links, emphasis or HTML in what a user or a file named.

    What closes them is enough: an underscore before no letter, a bracket that has a partner.
    """
    return re.sub(r"([`*<|&~]|\[(?=.*\])|_(?![A-Za-z0-9])|\\(?=[!-/:-@\[-`{-~]))", r"\\\1", said)


def _title(env: str, envs: Mapping[str, Any]) -> str:
    """An env's short name; its folder's where two would be alike."""
    short = {name: re.split("[/:]", value["id"])[-1].removesuffix("-v0") for name, value in envs.items()}
    return textenvs.printable(short[env] if list(short.values()).count(short[env]) == 1 else env)


def _with_interval(agent: Summary, name: str) -> str:
    return "-" if agent[name] is None else _numbers(agent[name], agent[f"{name}_interval"])


def _numbers(value: float, interval: Sequence[float] | None) -> str:
    number = f"{round(value, 3) + 0.0:.3f}"  # rounded first: -1e-8 is not -0.000
    return number if interval is None else f"{number} [{interval[0] + 0.0:.3f}, {interval[1] + 0.0:.3f}]"


def _reached(env: Summary | None) -> str:
    if env is None or env["num_reached"] is None:
        return "-"
    said = f"{env['num_reached']} of {env['num_runs']}"
    if env["median_episodes"] is None:
        return said
    low, high = env["median_episodes_interval"]
    ends = "" if low is None else f" [{low:,.0f}, {'not reached' if high is None else format(high, ',.0f')}]"
    return f"{said}: {env['median_episodes']:,.0f}{ends}, {env['median_seconds']:.1f} s"
