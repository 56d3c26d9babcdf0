"""The manifest of a checkpoint: what was running when it was written, and the hash of its every byte.

manifest.json lists every file with its size and SHA-256; manifest.sha256 holds the hash of manifest.json itself, in the
form that `sha256sum -c` reads. Hashes show damage, not an attacker, who could write new ones: what is loaded afterwards
is JSON and safetensors only, which cannot run code.
"""

import functools
import hashlib
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from agents.versions import versions

FORMAT = 2
_READABLE = (1, FORMAT)  # format 1 had neither manifest.sha256 nor sizes, environment and config_sha256
_NAME, _HASH_NAME = "manifest.json", "manifest.sha256"
_REQUIRED = ("state.json", "optimizer.safetensors")
_PACKAGES = ("textenvs", "torch", "transformers", "safetensors", "numpy", "gymnasium")
_ROOT = Path(__file__).parent.parent


class DamagedError(Exception):
    """A checkpoint that must not be read; its text names the file."""


def environment(device: str) -> dict[str, str | int | None]:
    """Return what results may depend on besides the settings: versions, threads, device, instruction set, commit."""
    return {
        **versions(_PACKAGES),
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "device": device,
        "threads": torch.get_num_threads(),
        "git_commit": _git_commit(),
    }


def changed_environment(folder: Path, device: str) -> list[str]:
    """Say how the environment differs from the one a checkpoint was written in, the commit aside."""
    before, now = read_manifest(folder).get("environment", {}), environment(device)  # format 1 noted none
    names = [name for name in now if name in before and name != "git_commit"]
    return [f"{name} {before[name]}, now {now[name]}" for name in names if before[name] != now[name]]


def write_manifest(folder: Path, *, device: str, config: Path) -> None:
    """Write manifest.json and manifest.sha256, the last files of a checkpoint.

    Args:
        folder: holds every other file of the checkpoint already.
        device: where the parameters are.
        config: the run's config.json; its hash is noted, None when there is no such file.
    """
    files = {name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for name, path in _files(folder).items()}
    manifest = {
        "format": FORMAT,
        "config_sha256": sha256(config) if config.is_file() else None,
        "environment": environment(device),
        "files": files,
    }
    (folder / _NAME).write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (folder / _HASH_NAME).write_text(_hash_line(folder), encoding="ascii")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a manifest that nobody has verified.

    Raises:
        DamagedError: when it is absent or not a JSON object.
    """
    try:
        manifest = json.loads((folder / _NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict):
        raise DamagedError(f"{_NAME} is missing or not a JSON object")
    return manifest


def verify(folder: Path) -> None:
    """Read every byte of a checkpoint, compare it with the manifest, and see that the policy's weights are finite.

    Only files found inside the folder are opened, so a manifest that lists "../x" or "/x" reaches nothing.

    Raises:
        DamagedError: names the first file that is absent, extra, a link, not what was written, or not finite.
        ValueError: for a whole checkpoint of a format that this version does not know.
    """
    files = _files(folder)
    found = set(files) - {_NAME, _HASH_NAME}
    manifest = read_manifest(folder)
    has_hash = _HASH_NAME in files
    if has_hash and files[_HASH_NAME].read_bytes() != _hash_line(folder).encode():
        raise DamagedError(f"{_NAME} does not have the hash in {_HASH_NAME}")
    number, listed = manifest.get("format"), manifest.get("files")
    if has_hash and number not in _READABLE:
        raise ValueError(
            f"the checkpoint's format must be one of {_READABLE}, got {number!r} in {folder / _NAME}; "
            "use the version of textenvs that wrote it, or move it away to go on from the one before it"
        )
    if type(number) is not int or has_hash != (number != 1):
        raise DamagedError(f"{_NAME} must have format {FORMAT} and {_HASH_NAME}, got format {number!r}")
    if not isinstance(listed, dict) or not set(_REQUIRED) <= listed.keys() or not any(map(_is_policy, listed)):
        raise DamagedError(f"{_NAME} must list {', '.join(_REQUIRED)} and a policy/*.safetensors")
    for name in sorted(found ^ listed.keys()):
        raise DamagedError(f"{name!r} is not in {_NAME}" if name in found else f"{name!r} is missing")
    for name, entry in listed.items():
        expected = {"sha256": entry} if number == 1 else entry
        actual = {"bytes": files[name].stat().st_size, "sha256": sha256(files[name])}
        if not isinstance(expected, dict) or "sha256" not in expected or not expected.items() <= actual.items():
            raise DamagedError(f"{name} is not what {_NAME} says, {entry}")
    for name in filter(_is_policy, files):
        _require_finite(name, files[name])


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> dict[str, Path]:
    """Return the regular files below a folder by their relative names; links are never followed."""
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise DamagedError(f"{path.name!r} must be a file or directory, got a link or a device")
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _is_policy(name: str) -> bool:
    return name.startswith("policy/") and name.endswith(".safetensors")


def _require_finite(name: str, path: Path) -> None:
    """Refuse weights that no run can go on from, whole or not: an update that diverged may have written them."""
    try:
        with safe_open(path, framework="pt") as tensors:
            # One tensor at a time, so that a large model is not in memory twice.
            for key in tensors.keys():  # noqa: SIM118
                if not torch.isfinite(tensors.get_tensor(key)).all():
                    raise DamagedError(f"{name} must be finite, got NaN or infinity in {key!r}")
    except SafetensorError as error:
        raise DamagedError(f"{name} must be a safetensors file, got {error}") from None


def _hash_line(folder: Path) -> str:
    return f"{sha256(folder / _NAME)}  {_NAME}\n"


@functools.cache
def _git_commit() -> str | None:
    """Return the commit of this source tree, with "-dirty" when files differ from it; None outside a checkout."""
    if not (_ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
