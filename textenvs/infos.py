"""The infos of a vector env, whose arrays are made when somebody first looks at them.

Texts and columns of finished rows take longer than the step itself, and most steps are taken by loops that read none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import RLock
from typing import Any

import numpy as np

from textenvs.vocab import IntArray

#: C code such as json's takes a dict of size 0 for empty without asking it: this key stands there until it is written.
_UNWRITTEN = ""


class Infos(dict[str, Any]):
    """A dict; what `defer` was given is written into it before anybody sees it, in whatever thread.

    Whoever must have a plain one, such as code that compares types, takes `dict(infos)`.
    """

    _deferred: tuple[Callable[[dict[str, Any]], None], ...] = ()

    def defer(self, write: Callable[[dict[str, Any]], None]) -> None:
        """Call `write(infos)` at the first look, with what is in here so far. It must not depend on when that is."""
        if not self._deferred:
            self._lock = RLock()
            dict.__setitem__(self, _UNWRITTEN, None)
        self._deferred += (write,)

    def _write(self) -> None:
        """All or nothing: a look that is interrupted leaves everything to the next one."""
        with self._lock:
            if not self._deferred:  # by another thread meanwhile
                return
            infos = dict(dict.items(self))
            del infos[_UNWRITTEN]
            for write in self._deferred:
                write(infos)
            dict.clear(self)
            dict.update(self, infos)
            self._deferred = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def _looking(name: str) -> Callable[..., Any]:
    """The method of dict of that name, after everything deferred was written, into an operand as well."""
    method = getattr(dict, name)

    def look(self: Infos, *args: Any, **kwargs: Any) -> Any:
        for infos in (self, *args):
            if isinstance(infos, Infos) and infos._deferred:
                infos._write()
        return method(self, *args, **kwargs)

    return look


# With `__iter__` among them, C code such as dict(infos) and {**infos} goes through these methods as well.
for _name in (
    *("__contains__", "__delitem__", "__eq__", "__getitem__", "__ior__", "__iter__", "__len__", "__ne__", "__or__"),
    *("__repr__", "__reversed__", "__ror__", "__setitem__", "clear", "copy", "get", "items", "keys", "pop", "popitem"),
    *("setdefault", "update", "values"),
):
    setattr(Infos, _name, _looking(_name))


def fill(infos: dict[str, Any], num_envs: int, rows: IntArray, columns: Mapping[str, Any]) -> None:
    """Write columns (M,) of `rows` (M,) as Gymnasium does: arrays (N,) beside `_key` masks, which say who has the key.

    Args:
        infos: what is written into.
        num_envs: N.
        rows: (M,) distinct.
        columns: arrays (M,), or M objects that are no numbers.
    """
    if not len(rows):
        return
    filled = np.zeros(num_envs, dtype=bool)
    filled[rows] = True
    for key, values in columns.items():
        if key not in infos:
            numbers = isinstance(values, np.ndarray)
            infos[key] = np.zeros(num_envs, values.dtype) if numbers else np.empty(num_envs, object)
        mask = f"_{key}"
        infos[mask] = infos[mask] | filled if mask in infos else filled.copy()
        if isinstance(values, list) and isinstance(values[0], list):  # NumPy would take the lists for a second axis
            for i, value in zip(rows.tolist(), values, strict=True):
                infos[key][i] = value
        else:
            infos[key][rows] = values
