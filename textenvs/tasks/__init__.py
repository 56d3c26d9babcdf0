"""Tasks by name. A new one is a file in this package and a line in the table."""

from __future__ import annotations

from importlib import import_module
from inspect import Parameter, signature
from typing import Any

from textenvs.task import Task
from textenvs.vocab import near_miss

#: name -> "module:Class"; loaded when asked for.
TASKS = {
    "continuation": "textenvs.tasks.continuation:Continuation",
    "copy": "textenvs.tasks.strings:Copy",
    "reverse": "textenvs.tasks.strings:Reverse",
    "sort": "textenvs.tasks.strings:Sort",
    "count": "textenvs.tasks.strings:Count",
    "length": "textenvs.tasks.strings:Length",
    "addition": "textenvs.tasks.arithmetic:Addition",
    "parity": "textenvs.tasks.arithmetic:Parity",
    "char_count": "textenvs.tasks.arithmetic:CharCount",
    "brackets": "textenvs.tasks.brackets:Brackets",
    "dates": "textenvs.tasks.dates:Dates",
    "increasing_numbers": "textenvs.tasks.increasing_numbers:IncreasingNumbers",
    "guess_number": "textenvs.tasks.guess_number:GuessNumber",
    "slot_filling": "textenvs.tasks.slot_filling:SlotFilling",
    "twenty_questions": "textenvs.tasks.twenty_questions:TwentyQuestions",
    "wordle": "textenvs.tasks.wordle:Wordle",
    "random_walk": "textenvs.tasks.random_walk:RandomWalk",
    "python_function": "textenvs.tasks.code:PythonFunction",
    "json_request": "textenvs.tasks.structured_json:JsonRequest",
    "regular_language": "textenvs.tasks.structured_regular:RegularLanguage",
    "countdown": "textenvs.tasks.structured_countdown:Countdown",
    "translate": "textenvs.tasks.translate:Translate",
    "constrained_rewrite": "textenvs.tasks.rewrite:ConstrainedRewrite",
    "style_transfer": "textenvs.tasks.rewrite:StyleTransfer",
    "summarize": "textenvs.tasks.text_reading:Summarize",
    "question_answering": "textenvs.tasks.text_reading:QuestionAnswering",
    "word_problem": "textenvs.tasks.word_problems:WordProblem",
    "reasoning_gym": "textenvs.tasks.reasoning:ReasoningGym",
    "dataset": "textenvs.tasks.dataset:Dataset",
}

#: What every env takes beside its task's own settings; here only to name them in an error.
ENV_SETTINGS = (
    *("task", "prompts", "reward", "vocab", "max_prompt_tokens", "max_new_tokens", "stop"),
    *("dense", "observation", "mask_keys", "render_mode"),
)


def make_task(task: str | type[Task], **settings: Any) -> Task:
    """The task of that name, or of a class of your own, with these settings.

    Raises:
        ValueError: no such task.
        TypeError: the task has no such setting; the message names those it has.
    """
    if isinstance(task, str):
        if task not in TASKS:
            raise ValueError(f"task must be a known name, got {task!r}; {near_miss(task, list(TASKS))}")
        module, class_name = TASKS[task].split(":")
        name, task_class = task, getattr(import_module(module), class_name)
    else:
        name, task_class = task.__name__, task
    known = _settings_of(task_class)
    for setting in settings:
        if setting not in known:
            hint = near_miss(setting, [*known, *ENV_SETTINGS])
            if name == "reasoning_gym":
                hint = f"the dataset's own settings go into config={{...}}; {hint}"
            # Python's own words too: TorchRL tries settings of other envs, looks for these, and goes on without.
            python = f"an unexpected keyword argument {setting!r}"
            raise TypeError(f"{setting!r} is not a setting of task {name!r} or of the env ({python}); {hint}")
    made: Task = task_class(**settings)
    return made


def _settings_of(task_class: type[Task]) -> list[str]:
    """Names of a class's parameters; with **kwargs, which hand on what they get, those of the classes above too."""
    known: list[str] = []
    for cls in (cls for cls in task_class.__mro__ if issubclass(cls, Task) and "__init__" in vars(cls)):
        parameters = list(signature(cls).parameters.values())
        known += [p.name for p in parameters if p.kind in (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
        if all(p.kind is not Parameter.VAR_KEYWORD for p in parameters):
            break
    return list(dict.fromkeys(known))


def misspelt_setting(name: str, task: Task) -> str:
    """Which setting of the env is near a name that is no setting of the task either, as a question; none: empty."""
    own = name in signature(type(task)).parameters
    return "" if own else near_miss(name, ENV_SETTINGS, instead="").strip()
