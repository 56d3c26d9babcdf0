"""Checkpoints that are atomic, safe and exact: safetensors and JSON only, a manifest of hashes, fsync, rename.

A checkpoint is a directory step_000123. It appears under that name only when every byte of it is on disk, LATEST names
it only after that, and it is read only when every byte is what its manifest says. The newest two are kept, and the
best that METRICS.json knows. The manifest is `manifest`'s, one writer a run `runlock`'s; what is promised stands in
docs/determinism.md.
"""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from agents.manifest import DamagedError, changed_environment, verify, write_manifest

NUM_KEPT = 2  # the newest, and one to fall back on
LATEST = "LATEST"
METRICS = "METRICS.json"
_REPLAY = "replay.safetensors"
_SPARE_BYTES = 2**20  # for the JSON files and the file system itself
_NAME = r"step_([0-9]{6,})"


def write_directory(final: Path, write: Callable[[Path], None]) -> None:
    """Make a directory, or replace it, so that its name never stands for half of it.

    Every file fsynced, then every directory; then renamed, and the parent fsynced.

    Args:
        final: the directory; its siblings .tmp and .trash are this function's.
        write: fills the directory it is given.
    """
    temporary = final.with_name(f"{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a writer that was killed
    temporary.mkdir(parents=True)
    try:
        write(temporary)
        for path in sorted(temporary.rglob("*"), key=lambda path: (path.is_dir(), path)):
            _fsync(path)
        _fsync(temporary)
    except Exception:
        shutil.rmtree(temporary, ignore_errors=True)  # half of it would keep a full disk full
        raise
    if final.exists():
        _delete(final)
    temporary.rename(final)
    _fsync(final.parent)


def write_file(path: Path, text: str) -> None:
    """Make or replace a text file so that its name never stands for half of it, also after a power cut."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    _fsync(temporary)
    temporary.rename(path)
    _fsync(path.parent)


def save_checkpoint(
    folder: Path,
    step: int,
    *,
    write_policy: Callable[[Path], None],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    tensors: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Write step_<step> below a folder, atomically; then point LATEST at it and delete what is no longer needed.

    When it returns, the checkpoint outlives a power cut. The newest two stay, and the best of those that
    `note_metric` was told of.

    Args:
        folder: the run's checkpoints directory; the manifest notes the hash of the config.json beside it.
        step: number of updates done.
        write_policy: writes the policy, one or more *.safetensors, into the directory it is given, and makes that.
        optimizer: its state and counters are kept exactly.
        state: JSON-able; everything else needed to go on.
        tensors: what of that is tensors, such as a replay; contiguous.

    Returns:
        The checkpoint's directory.

    Raises:
        OSError: when the disk has too little room, with both numbers of bytes, or fails; older checkpoints stay whole.
    """
    final = folder / f"step_{step:06d}"
    moments, settings = _split_optimizer(optimizer)

    def write(temporary: Path) -> None:
        write_policy(temporary / "policy")
        save_file(moments, temporary / "optimizer.safetensors")
        if tensors:
            save_file(dict(tensors), temporary / _REPLAY)
        content = {"step": step, "optimizer": settings, **state}
        (temporary / "state.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        config = folder.parent / "config.json"
        write_manifest(temporary, device=_device(optimizer), config=config)

    if not folder.is_dir():
        folder.mkdir(parents=True)
        _fsync(folder.parent)
    for leftover in _directories(folder, _NAME + r"\.(tmp|trash)"):  # of a writer that was killed
        shutil.rmtree(leftover)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept = (*parameters, *moments.values(), *(tensors or {}).values())
    _require_space(folder, sum(tensor.nbytes for tensor in kept) + _SPARE_BYTES)
    try:
        write_directory(final, write)
        write_file(folder / LATEST, final.name + "\n")
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"{final.name} must be written whole, got {error}; see to the disk of {folder} and resume: "
            "the checkpoints before it are unharmed"
        ) from error
    _prune(folder, step)
    return final


def note_metric(folder: Path, step: int, value: float) -> None:
    """Note in METRICS.json what a checkpoint is worth; nothing when there is no such checkpoint.

    Its weights are scored by the episodes that they sample, which is after it was written.

    Args:
        folder: the run's checkpoints directory.
        step: of the checkpoint.
        value: mean return of the episodes that its weights sampled; finite; the more the better.

    Raises:
        ValueError: for a value that is not finite.
        OSError: when the disk fails; what was noted before stays.
    """
    if not math.isfinite(value):
        raise ValueError(f"value must be finite, got {value}; leave out a step that has none")
    values = {_step(path): noted for path, noted in _noted(folder).items()}
    if step in map(_step, _directories(folder, _NAME)):
        write_file(folder / METRICS, json.dumps(values | {step: float(value)}) + "\n")


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint whose manifest verifies, None without any; warn about each newer lost one.

    Raises:
        ValueError: when there are or were checkpoints but none is whole, as starting again would cut the run's records;
            or when one has a format that this version does not know.
    """
    paths = _directories(folder, _NAME)
    lost = []
    if (folder / LATEST).is_file():
        with (folder / LATEST).open(encoding="utf-8", errors="replace") as file:
            name = file.read(100).removesuffix("\n")
        if name not in [path.name for path in paths]:
            lost.append(f"{name!r} is missing, which {LATEST} names")
    return _first_whole(folder, reversed(paths), lost)


def best_checkpoint(folder: Path) -> Path | None:
    """Return the whole checkpoint with the highest value noted, the newest of equals, None when nothing is noted.

    The newest of a run is not among them: no episode was sampled by its weights yet.

    Raises:
        ValueError: as `latest_checkpoint`.
    """
    return _first_whole(folder, reversed(_ranked(folder)), [])


def newest_state(folder: Path) -> dict[str, Any]:
    """Return state.json of the newest checkpoint where it can be read, unverified; empty without one."""
    for path in reversed(_directories(folder, _NAME)):
        state = _read_object(path / "state.json")
        if state:
            return state
    return {}


def load_checkpoint(path: Path, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore the optimizer and return the rest of the state. The policy is in path / "policy".

    Warns when versions, threads or device are not those it was written under: the run then goes on, but its numbers
    may differ in the last bits from those of a run that never stopped.
    """
    state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
    tensors = load_file(path / "optimizer.safetensors")
    restored: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".")
        restored.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": restored, "param_groups": state.pop("optimizer")})
    changes = changed_environment(path, _device(optimizer))
    if changes:
        text = f"{path.name} was written with {'; '.join(changes)}: the run goes on, but not bit for bit"
        warnings.warn(text, stacklevel=2)
    return state


def load_replay(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors that `save_checkpoint` was given; none when it was given none."""
    file = path / _REPLAY
    return load_file(file) if file.exists() else {}


def parameter_hash(module: torch.nn.Module) -> str:
    """Return the SHA-256 of all parameters: names, shapes, kinds and bytes."""
    digest = hashlib.sha256()
    for name, parameter in sorted(module.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _first_whole(folder: Path, paths: Iterable[Path], lost: list[str]) -> Path | None:
    """Return the first path that verifies, with a warning for each before it and for what is lost already."""
    for path in paths:
        try:
            verify(path)
        except DamagedError as error:
            lost.append(f"{path.name} is damaged: {error}")
            continue
        for text in lost:
            warnings.warn(f"checkpoint {text}; using {path.name}", stacklevel=3)
        return path
    if lost:
        raise ValueError(
            f"checkpoints must hold a whole one, got none in {folder}: {lost[0]}; "
            "restore it from a copy or train in a new run_dir"
        )
    return None


def _prune(folder: Path, step: int) -> None:
    """Delete all checkpoints up to a step but the newest two and the best; later ones are damaged, and not ours."""
    done = [path for path in _directories(folder, _NAME) if _step(path) <= step]
    best = [path for path in _ranked(folder) if _step(path) <= step][-1:]
    for old in done[:-NUM_KEPT]:
        if old not in best:
            _delete(old)


def _ranked(folder: Path) -> list[Path]:
    """Return the checkpoints that something is noted of, best last."""
    noted = _noted(folder)
    return sorted(noted, key=lambda path: (noted[path], _step(path)))


def _noted(folder: Path) -> dict[Path, float]:
    """Return the values in METRICS.json of the checkpoints there are, without those that are no finite number."""
    values = _read_object(folder / METRICS)
    found = {path: values.get(str(_step(path))) for path in _directories(folder, _NAME)}
    return {path: value for path, value in found.items() if isinstance(value, float) and math.isfinite(value)}


def _read_object(path: Path) -> dict[str, Any]:
    """Return a file's JSON object, empty where it is absent or anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"the disk of {folder} must have {needed:,} bytes free for a checkpoint, got {free:,}; "
            "delete something and resume, or train on another disk",
        )


def _step(path: Path) -> int:
    match = re.match(_NAME, path.name)
    assert match is not None
    return int(match[1])


def _device(optimizer: torch.optim.Optimizer) -> str:
    parameter: torch.Tensor = optimizer.param_groups[0]["params"][0]
    return parameter.device.type


def _directories(folder: Path, pattern: str) -> list[Path]:
    """Return the directories whose whole name matches a pattern that starts with _NAME, oldest step first; no links."""
    paths = [path for path in folder.glob("step_*") if path.is_dir() and not path.is_symlink()]
    return sorted((path for path in paths if re.fullmatch(pattern, path.name)), key=_step)


def _delete(path: Path) -> None:
    """Delete a directory, renamed first: half of it must not look like the whole."""
    trash = path.with_name(f"{path.name}.trash")
    shutil.rmtree(trash, ignore_errors=True)
    shutil.rmtree(path.rename(trash))


def _split_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Return the optimizer's tensors by "<parameter>.<key>", and its JSON-able settings."""
    state = optimizer.state_dict()
    tensors = {f"{index}.{key}": value for index, values in state["state"].items() for key, value in values.items()}
    return tensors, state["param_groups"]


def _fsync(path: Path) -> None:
    """Force a file or directory to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
