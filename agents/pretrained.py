"""Weights from disk or the hub, refused unless each is there and finite; language models of the env's vocabulary."""

import hashlib
import json
from collections.abc import Iterable, Mapping
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

from agents.cache import check_cache


def load_causal_lm(name: str | Path, metadata: Mapping[str, Any]) -> PreTrainedModel:
    """Load a causal LM in float32 without dropout.

    Args:
        name: a local directory or a hub id.
        metadata: the env's `metadata["textgen"]`.

    Raises:
        ValueError: for weights that are absent, damaged, not finite or of another architecture, or another vocabulary.
    """
    folder = Path(name)
    if find_file(name, "adapter_config.json") is not None:
        raise ValueError(f"model must be a whole model, got the adapter {str(name)!r}; name the model it was made for")
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
            config=with_fused_gelu(without_dropout(config)),
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
    shapes = [f"{key} {tuple(got)} for {tuple(want)}" for key, got, want in info["mismatched_keys"]]
    _refuse_odd(name, missing=info["missing_keys"], unexpected=info["unexpected_keys"], mismatched=shapes)
    _check_finite(dict(model.named_parameters()), name)
    # Adapters are saved with the name of their base, which must not depend on the directory of today's process.
    model.name_or_path = str(folder.resolve() if folder.is_dir() else name)
    return model


def load_tensors(path: Path, wanted: Mapping[str, Tensor]) -> None:
    """Copy a safetensors file into tensors of the same names, shapes and kinds; nothing is copied unless all fit.

    Raises:
        ValueError: names the tensors that are missing, unexpected, not finite or of another shape or kind.
    """
    _check_safetensors(path)
    found = load_file(path)
    _refuse_odd(
        path,
        missing=wanted.keys() - found.keys(),
        unexpected=found.keys() - wanted.keys(),
        mismatched=[
            f"{name} {_kind(found[name])} for {_kind(wanted[name])}"
            for name in wanted.keys() & found.keys()
            if _kind(found[name]) != _kind(wanted[name])
        ],
    )
    _check_finite(found, path)
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(found[name])


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a module that `safetensors.torch.save_model` writes: shared ones once, first name."""
    tensors = module.state_dict()
    first: dict[int, str] = {}
    for name in sorted(tensors):
        first.setdefault(tensors[name].data_ptr(), name)
    return {name: tensors[name] for name in first.values()}


@torch.no_grad()
def check_fits(model: PreTrainedModel, *, num_tokens: int, max_tokens: int) -> None:
    """Refuse a model that cannot play the episodes of an env, or that computes otherwise than we do.

    Args:
        model: a causal LM.
        num_tokens: V of the env.
        max_tokens: prompt and response together.

    Raises:
        ValueError: when its vocabulary or its positions are too few, its logits are no linear map of its last hidden
            state, or a `SlotCache` changes what it computes.
    """
    config = model.config
    if config.vocab_size < num_tokens:
        raise ValueError(
            f"the model's vocabulary must hold the env's {num_tokens} tokens, got {config.vocab_size}; "
            "use the env's tokenizer or another model"
        )
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and limit < max_tokens:
        raise ValueError(
            f"max_prompt_tokens + max_new_tokens must be at most the model's {limit} positions, "
            f"got {max_tokens}; shorten the episodes"
        )
    probe = torch.zeros((1, 2), dtype=torch.long, device=model.device)
    logits = model(probe, use_cache=False).logits
    linear = model.get_output_embeddings()(model.base_model(probe, use_cache=False).last_hidden_state)
    if not torch.allclose(logits, linear, atol=1e-4, rtol=1e-4):
        raise ValueError(
            f"the model's logits must be a linear map of its last hidden state, got {type(model).__name__}, "
            "which changes them afterwards; use a GPT-2 or Llama style model"
        )
    check_cache(model, max_tokens)


def without_dropout(config: PreTrainedConfig) -> PreTrainedConfig:
    """Set every dropout rate to 0: some models read theirs in training mode without a dropout module."""
    for name, value in config.to_dict().items():
        if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
            setattr(config, name, 0.0)
    return config


def with_fused_gelu(config: PreTrainedConfig) -> PreTrainedConfig:
    """Name GPT-2's activation so that it is one operation: under its own name it is eight, a sixth of an update."""
    if getattr(config, "activation_function", None) == "gelu_new":
        config.activation_function = "gelu_pytorch_tanh"
    return config


def find_file(name: str | Path, filename: str) -> Path | None:
    """Find a file of a local directory or a hub id; None when it has none or, offline, when none is cached."""
    try:
        found = cached_file(str(name), filename)
    except OSError:
        return None
    return None if found is None else Path(found)


def _check_folder(folder: Path) -> None:
    """Refuse a directory without safetensors weights or with damaged ones."""
    if not any(folder.glob("*.safetensors.index.json")) and not (folder / "model.safetensors").is_file():
        is_run = (folder / "config.json").is_file() and (folder / "final").is_dir()
        remedy = f"it is a run, whose model is {folder / 'final'}" if is_run else "save the model there or name another"
        raise ValueError(f"model directory must hold model.safetensors, got {folder}; {remedy}")
    for path in sorted(folder.glob("model*.safetensors")):
        _check_safetensors(path)


def _check_safetensors(path: Path) -> None:
    """Refuse a file whose header or length is wrong."""
    try:
        with safe_open(path, "pt"):
            pass
    except SafetensorError as error:
        raise ValueError(f"{path} must be a whole safetensors file, got {error}; save or copy it again") from None


def _refuse_odd(
    where: str | Path, *, missing: Iterable[str], unexpected: Iterable[str], mismatched: Iterable[str]
) -> None:
    """Refuse weights whose names or shapes are not exactly the model's."""
    wrong = {"missing": sorted(missing), "of another shape": sorted(mismatched), "unexpected": sorted(unexpected)}
    if any(wrong.values()):
        found = ", ".join(f"{what}: {', '.join(names)}" for what, names in wrong.items() if names)
        raise ValueError(f"weights must be exactly the model's, got {found} in {where}; save or copy them again")


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _check_finite(tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Refuse weights that would make every probability NaN."""
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"weights must be finite, got NaN or infinity in {key} of {where}; use an older save")


def _check_vocabulary(name: str | Path, metadata: Mapping[str, Any], vocab_size: int) -> None:
    """Compare the model's fingerprint, else that of its tokenizer, else its vocabulary's size, with the env's."""
    wanted: str = metadata["vocab_sha256"]
    if (path := find_file(name, "textenvs.json")) is not None:
        found = read_fingerprint(path)
    elif (path := find_file(name, "tokenizer.json")) is not None:
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


def read_fingerprint(path: Path, key: str = "vocab_sha256") -> str:
    """Read one hash of a textenvs.json.

    Raises:
        ValueError: when it is not there.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        found = None
    if not isinstance(found, str):
        raise ValueError(f'{path} must be {{"{key}": "..."}}, got something else; save the model again')
    return found


def _tokenizer_fingerprint(path: Path, eos_id: int) -> str:
    """Return the fingerprint that an env of this tokenizer file and end token has."""
    try:
        ids: dict[str, int] = Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    except Exception as error:  # tokenizers raises bare Exception
        raise ValueError(f"{path} must be a tokenizers JSON file, got {error}; save it again") from None
    table = json.dumps([sorted(ids, key=ids.__getitem__), eos_id], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(table.encode("utf-8", "surrogatepass")).hexdigest()
