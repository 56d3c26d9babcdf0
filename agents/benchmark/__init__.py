"""`textenvs benchmark`: agents x environments x seeds as jobs, of which none that is done is ever run again.

What is asked comes from `agents.suites`. `runner` is the one way in: who trains is in `agents`, one job in `jobs`, the
processes that run them in `workers`, what is left on disk in `results`, what is made of it in `tables`, `curves` and
`picture`.
"""

from agents.benchmark.results import read_results
from agents.benchmark.runner import run_benchmark, with_budget

__all__ = ["read_results", "run_benchmark", "with_budget"]
