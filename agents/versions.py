"""The versions of what computes numbers, looked up without loading any of it."""

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    *("textenvs", "gymnasium", "numpy", "torch", "transformers", "tokenizers"),
    *("stable-baselines3", "sb3-contrib"),
)


@functools.cache
def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of those packages that are installed; the same object each time."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
