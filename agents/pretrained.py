"""Language models from disk or the hub, refused unless every weight is there and the vocabulary is the env's."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import cached_file
from transformers.utils.logging import disable_progress_bar, set_verbosity_error


def load_causal_lm(name: str | Path, metadata: Mapping[str, Any]) -> PreTrainedModel:
    """Load a causal LM in float32 without dropout.

    Args:
        name: a local directory or a hub id.
        metadata: the env's `metadata["textgen"]`.

    Raises:
        ValueError: for weights that are absent, damaged, not finite or of another architecture, or another vocabulary.
    """
    folder = Path(name)
    if folder.is_dir():
        _check_folder(folder)
    elif folder.is_absolute() or str(name).startswith("."):
        raise ValueError(
            f"model must be a directory or a hub id, got {str(name)!r}, which does not exist; check the path"
        )
    disable_progress_bar()
    set_verbosity_error()  # transformers prints a table of what did not fit, which is refused in one sentence below
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        _check_vocabulary(name, metadata, config.vocab_size)
        model, info = AutoModelForCausalLM.from_pretrained(
            name,
            config=without_dropout(config),
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in `info`, and refused
        )
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"model must be a directory or a hub id with safetensors weights, got {str(name)!r}: "
            f"{str(error).splitlines()[0]}; check the name and the network"
        ) from error
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    shapes = [f"{key} {tuple(got)} for {tuple(want)}" for key, got, want in sorted(info["mismatched_keys"])]
    wrong = {"missing": missing, "of another shape": shapes, "unexpected": unexpected}
    if any(wrong.values()):
        found = ", ".join(f"{what}: {', '.join(keys)}" for what, keys in wrong.items() if keys)
        raise ValueError(f"weights must be those that config.json describes, got {found} in {name}; save both again")
    _check_finite(dict(model.named_parameters()), name)
    return model


def load_value_head(name: str | Path, head: nn.Linear) -> None:
    """Take over the value head that `LMPolicy.save` wrote beside a model, if there is one.

    Raises:
        ValueError: for a value head that is damaged, not finite or of another shape.
    """
    path = _file(name, "value_head.safetensors")
    if path is None:
        return
    _check_safetensors(path)
    found, wanted = load_file(path), {key: tuple(tensor.shape) for key, tensor in head.state_dict().items()}
    shapes = {key: tuple(tensor.shape) for key, tensor in found.items()}
    if shapes != wanted:
        raise ValueError(f"value head must have shapes {wanted}, got {shapes} in {path}; delete it to start from 0")
    _check_finite(found, path)
    head.load_state_dict(found)


def without_dropout(config: PreTrainedConfig) -> PreTrainedConfig:
    """Set every dropout rate to 0: some models read theirs in training mode without a dropout module."""
    for name, value in config.to_dict().items():
        if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
            setattr(config, name, 0.0)
    return config


def _file(name: str | Path, filename: str) -> Path | None:
    """Find a file of a local directory or a hub id; None when it has none or, offline, when none is cached."""
    try:
        found = cached_file(str(name), filename)
    except OSError:
        return None
    return None if found is None else Path(found)


def _check_folder(folder: Path) -> None:
    """Refuse a directory without safetensors weights or with damaged ones."""
    if not any(folder.glob("*.safetensors.index.json")) and not (folder / "model.safetensors").is_file():
        raise ValueError(
            f"model directory must hold model.safetensors, got {folder}; save the model there or name another"
        )
    for path in sorted(folder.glob("model*.safetensors")):
        _check_safetensors(path)


def _check_safetensors(path: Path) -> None:
    """Refuse a file whose header or length is wrong."""
    try:
        with safe_open(path, "pt"):
            pass
    except SafetensorError as error:
        raise ValueError(f"{path} must be a whole safetensors file, got {error}; save or copy it again") from None


def _check_finite(tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Refuse weights that would make every probability NaN."""
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"weights must be finite, got NaN or infinity in {key} of {where}; use an older save")


def _check_vocabulary(name: str | Path, metadata: Mapping[str, Any], vocab_size: int) -> None:
    """Compare the model's fingerprint, else that of its tokenizer, else its vocabulary's size, with the env's."""
    wanted: str = metadata["vocab_sha256"]
    if (path := _file(name, "textenvs.json")) is not None:
        found = _read_fingerprint(path)
    elif (path := _file(name, "tokenizer.json")) is not None:
        found = _tokenizer_fingerprint(path, metadata["eos_id"])
    elif vocab_size == metadata["num_tokens"]:
        return
    else:
        raise ValueError(
            f"the model's vocabulary must have the env's {metadata['num_tokens']} tokens, got {vocab_size} and no "
            f"tokenizer.json in {name}; save the model's tokenizer.json beside it"
        )
    if found != wanted:
        raise ValueError(
            f"the model's vocab_sha256 must be the env's {wanted[:12]}, got {found[:12]} from {path}; "
            "make the env with the model's vocab"
        )


def _read_fingerprint(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["vocab_sha256"]
    except (ValueError, TypeError, KeyError, RecursionError):
        found = None
    if not isinstance(found, str):
        raise ValueError(f'{path} must be {{"vocab_sha256": "..."}}, got something else; save the model again')
    return found


def _tokenizer_fingerprint(path: Path, eos_id: int) -> str:
    """Return the fingerprint that an env of this tokenizer file and end token has."""
    try:
        ids: dict[str, int] = Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    except Exception as error:  # tokenizers raises bare Exception
        raise ValueError(f"{path} must be a tokenizers JSON file, got {error}; save it again") from None
    table = json.dumps([sorted(ids, key=ids.__getitem__), eos_id], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(table.encode("utf-8", "surrogatepass")).hexdigest()
