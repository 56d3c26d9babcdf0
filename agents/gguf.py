"""GGUF files, converted once to a Hugging Face directory: the weights in float32 and the tokenizer.

Reading 135M quantised weights takes half a minute, their safetensors a second; they train in float32 either way.
"""

import hashlib
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from agents.checkpoint import write_directory


def cache_directory() -> Path:
    """Return where converted models are kept: $TEXTENVS_CACHE, else ~/.cache/textenvs."""
    chosen = os.environ.get("TEXTENVS_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "textenvs"


def convert_gguf(path: Path) -> Path:
    """Return the Hugging Face directory of a GGUF file, making it unless the same bytes were converted before.

    Args:
        path: the .gguf file, of an architecture that transformers can read.

    Returns:
        A directory with config.json, model.safetensors (float32) and tokenizer.json, named by the file's hash.

    Raises:
        ValueError: for a file that is absent, damaged, or holds other weights than its architecture has.
        ModuleNotFoundError: without gguf.
    """
    if not path.is_file():
        raise ValueError(f"model must be a GGUF file, got {path}, which does not exist; check the path")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    directory = cache_directory() / f"{path.stem}-{digest[:16]}"
    if directory.is_dir():
        return directory
    num_weights = _count_weights(path)
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Whoever converts the same file meanwhile writes elsewhere; the first to finish gives the directory its name.
    with TemporaryDirectory(dir=directory.parent, prefix="converting-") as own:
        made = Path(own) / directory.name
        write_directory(made, lambda folder: _write_model(path, folder, num_weights))
        try:
            made.rename(directory)
        except OSError:
            if not directory.is_dir():
                raise
    return directory


def _count_weights(path: Path) -> int:
    """Count the weights in a GGUF file after checking that every byte it speaks of is there."""
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'GGUF files need {error.name}; pip install "textenvs[gguf]"') from None

    class WholeReader(GGUFReader):  # type: ignore[misc]
        """The reader alone takes what is left of a cut file, and loops for ever over a length that no file has."""

        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> NDArray[Any]:
            if int(offset) + int(count) * np.dtype(dtype).itemsize > len(self.data):
                raise ValueError("it ends too early")
            found: NDArray[Any] = super()._get(offset, dtype, count, override_order)
            return found

    try:
        return sum(int(tensor.n_elements) for tensor in WholeReader(path).tensors)
    except Exception as error:  # the reader raises whatever the bytes lead it to
        raise _damaged(path, error) from None


def _write_model(path: Path, folder: Path, num_weights: int) -> None:
    """Write the model and the tokenizer of a GGUF file as safetensors and JSON."""
    disable_progress_bar()
    set_verbosity_error()
    where: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **where)
        model, info = AutoModelForCausalLM.from_pretrained(
            path.parent, dtype=torch.float32, output_loading_info=True, **where
        )
    except Exception as error:  # as above
        raise _damaged(path, error) from None
    found = sum(parameter.numel() for parameter in model.parameters())
    # Transformers drops tensors that its architecture lacks, such as frequencies of a scaled rotation, without a word.
    if info["missing_keys"] or info["mismatched_keys"] or found != num_weights:
        raise ValueError(
            f"GGUF file must hold exactly the {found} weights of {type(model).__name__}, got {num_weights} in {path}; "
            "convert it with its own tools"
        )
    # It can only save what it does not take for quantised.
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return ValueError(f"GGUF file must be whole and of a known architecture, got {path}: {reason}; download it again")
