"""Checkpoints that are atomic, safe and exact: safetensors and JSON only, a manifest of hashes, fsync, rename.

A checkpoint is a directory step_000123. It appears under that name only when every byte of it is on disk, and it is
read only when every byte has the hash its manifest names.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

FORMAT = 1
NUM_KEPT = 2  # the newest, and one to fall back on


def save_checkpoint(
    folder: Path,
    step: int,
    *,
    write_policy: Callable[[Path], None],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> Path:
    """Write step_<step> below a folder, atomically, and delete all but the newest two.

    Files first, each fsynced; the manifest last; the directory fsynced, renamed, and its parent fsynced.

    Args:
        folder: the run's checkpoints directory.
        step: number of updates done.
        write_policy: writes the policy into the directory it is given.
        optimizer: its state and counters are kept exactly.
        state: JSON-able; everything else needed to go on.

    Returns:
        The checkpoint's directory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step_{step:06d}"
    temporary = folder / f"{final.name}.tmp-{os.getpid()}"
    for leftover in folder.glob("step_*.*"):  # of a writer that was killed
        shutil.rmtree(leftover)
    temporary.mkdir()
    write_policy(temporary / "policy")
    tensors, settings = _split_optimizer(optimizer)
    save_file(tensors, temporary / "optimizer.safetensors")
    _write_json(temporary / "state.json", {"step": step, "optimizer": settings, **state})
    files = sorted(path for path in temporary.rglob("*") if path.is_file())
    hashes = {str(path.relative_to(temporary)): _sha256(path) for path in files}
    for path in files:
        _fsync(path)
    _write_json(temporary / "manifest.json", {"format": FORMAT, "torch": torch.__version__, "files": hashes})
    for path in (temporary / "manifest.json", temporary / "policy", temporary):
        _fsync(path)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    _fsync(folder)
    for old in _checkpoints(folder)[:-NUM_KEPT]:
        # Renamed first: a half-deleted directory must not look like a checkpoint.
        trash = old.rename(old.with_name(old.name + ".trash"))
        shutil.rmtree(trash)
    return final


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint whose manifest verifies, or None; warn about each newer one that does not."""
    for path in reversed(_checkpoints(folder)):
        problem = _problem(path)
        if problem is None:
            return path
        warnings.warn(f"checkpoint {path.name} is damaged: {problem}; using the one before it", stacklevel=2)
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


def _checkpoints(folder: Path) -> list[Path]:
    """Return the finished checkpoint directories, oldest first."""
    found = [path for path in folder.glob("step_*") if path.is_dir() and path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def _problem(path: Path) -> str | None:
    """Say what is wrong with a checkpoint, naming the file, or None."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "manifest.json is missing or not JSON"
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        return f"manifest.json must have format {FORMAT}"
    for name, expected in manifest["files"].items():
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
