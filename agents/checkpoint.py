"""Checkpoints that are atomic, safe and exact: safetensors and JSON only, a manifest of hashes, fsync, rename.

A checkpoint is a directory step_000123. It appears under that name only when every byte of it is on disk, and it is
read only when every byte has the hash its manifest names.
"""

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

FORMAT = 1
NUM_KEPT = 2  # the newest, and one to fall back on
_NAME = r"step_([0-9]{6,})"
_READ_ON_RESUME = ("state.json", "optimizer.safetensors", "policy/model.safetensors", "policy/value_head.safetensors")


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
    write(temporary)
    for path in sorted(temporary.rglob("*"), key=lambda path: (path.is_dir(), path)):
        _fsync(path)
    _fsync(temporary)
    if final.exists():
        _delete(final)
    temporary.rename(final)
    _fsync(final.parent)


def save_checkpoint(
    folder: Path,
    step: int,
    *,
    write_policy: Callable[[Path], None],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> Path:
    """Write step_<step> below a folder, atomically, and delete all but the newest two.

    Args:
        folder: the run's checkpoints directory.
        step: number of updates done.
        write_policy: writes the policy, model.safetensors and value_head.safetensors, into the directory it is given.
        optimizer: its state and counters are kept exactly.
        state: JSON-able; everything else needed to go on.

    Returns:
        The checkpoint's directory.
    """

    def write(temporary: Path) -> None:
        write_policy(temporary / "policy")
        tensors, settings = _split_optimizer(optimizer)
        save_file(tensors, temporary / "optimizer.safetensors")
        _write_json(temporary / "state.json", {"step": step, "optimizer": settings, **state})
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        hashes = {path.relative_to(temporary).as_posix(): _sha256(path) for path in files}
        _write_json(temporary / "manifest.json", {"format": FORMAT, "torch": torch.__version__, "files": hashes})

    for leftover in _directories(folder, _NAME + r"\.(tmp|trash)"):  # of a writer that was killed
        shutil.rmtree(leftover)
    final = folder / f"step_{step:06d}"
    write_directory(final, write)
    for old in _directories(folder, _NAME)[:-NUM_KEPT]:
        _delete(old)
    return final


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint whose manifest verifies, None without any; warn about each newer damaged one.

    Raises:
        ValueError: when there are checkpoints but all are damaged: starting again would cut the run's records.
    """
    damaged: list[str] = []
    for path in reversed(_directories(folder, _NAME)):
        problem = _problem(path)
        if problem is None:
            for text in damaged:
                warnings.warn(f"checkpoint {text}; using the one before it", stacklevel=2)
            return path
        damaged.append(f"{path.name} is damaged: {problem}")
    if damaged:
        raise ValueError(
            f"checkpoints must hold a whole one, got none in {folder}, the newest, {damaged[0]}; "
            "restore it from a copy or train in a new run_dir"
        )
    return None


def load_checkpoint(path: Path, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore the optimizer and return the rest of the state. The policy is in path / "policy"."""
    state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
    tensors = load_file(path / "optimizer.safetensors")
    restored: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".")
        restored.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": restored, "param_groups": state.pop("optimizer")})
    return state


def parameter_hash(module: torch.nn.Module) -> str:
    """Return the SHA-256 of all parameters: names, shapes, kinds and bytes."""
    digest = hashlib.sha256()
    for name, parameter in sorted(module.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _directories(folder: Path, pattern: str) -> list[Path]:
    """Return the directories whose whole name matches a pattern that starts with _NAME, oldest step first."""
    matches = {path: re.fullmatch(pattern, path.name) for path in folder.glob("step_*") if path.is_dir()}
    steps = {path: int(match[1]) for path, match in matches.items() if match}
    return sorted(steps, key=steps.__getitem__)


def _delete(path: Path) -> None:
    """Delete a directory, renamed first: half of it must not look like the whole."""
    trash = path.with_name(f"{path.name}.trash")
    shutil.rmtree(trash, ignore_errors=True)
    shutil.rmtree(path.rename(trash))


def _problem(path: Path) -> str | None:
    """Say what is wrong with a checkpoint, naming the file, or None."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return "manifest.json is missing or not JSON"
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        return f"manifest.json must have format {FORMAT}"
    hashes = manifest.get("files")
    if not isinstance(hashes, dict) or not hashes.keys() >= set(_READ_ON_RESUME):
        return f"manifest.json must name the files {', '.join(_READ_ON_RESUME)}"
    for name, expected in hashes.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if _sha256(path / name) != expected:
            return f"{name} does not have the hash of its manifest"
    return None


def _split_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Return the optimizer's tensors by "<parameter>.<key>", and its JSON-able settings."""
    state = optimizer.state_dict()
    tensors = {f"{index}.{key}": value for index, values in state["state"].items() for key, value in values.items()}
    return tensors, state["param_groups"]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _fsync(path: Path) -> None:
    """Force a file or directory to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
