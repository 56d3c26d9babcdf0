"""Low-rank adapters through peft: which modules get one, and an adapter's two files, which peft itself can read too.

Only names, shapes and numbers are read from those files: peft's own reader would import modules that they name.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

_ADAPTER = "default"  # peft's name for the only adapter of a model
_PREFIX = "base_model.model."  # of every name in peft's files


@dataclass(frozen=True)
class LoraSettings:
    """An adapter: every target's weight W becomes W + (alpha / rank) B A, where only A and B train.

    There is no dropout: the updated policy would not be the one that sampled. B starts at 0, so the start is the base.

    Attributes:
        rank: rows of A, columns of B, at least 1; for RL even 1 can do (Schulman et al. 2025, "LoRA Without Regret").
        alpha: scale of the change, above 0; 2 rank is usual.
        target_modules: last parts of the names of linear modules, as in "q_proj"; None for all but the output layer,
            which is better than the attention's alone (ibid.).

    Source: Hu et al. 2021, arXiv:2106.09685.
    """

    rank: int = 8
    alpha: float = 16.0
    target_modules: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Refuse a setting outside its range.

        Raises:
            ValueError: names the setting, its value and the range.
        """
        if not isinstance(self.rank, int) or isinstance(self.rank, bool) or self.rank < 1:
            raise ValueError(f"rank must be an integer of at least 1, got {self.rank!r}; 8 is usual")
        if not isinstance(self.alpha, (int, float)) or not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha must be positive and finite, got {self.alpha!r}; twice the rank is usual")
        names = self.target_modules
        if names is not None and (isinstance(names, str) or not names or not all(isinstance(n, str) for n in names)):
            raise ValueError(f"target_modules must be names of modules, got {names!r}; None takes all linear ones")


def inject_adapter(model: PreTrainedModel, settings: LoraSettings, *, seed: int) -> None:
    """Freeze a model and give it an adapter, in place; the first draw of A comes from the seed.

    Raises:
        ValueError: for target names that match no linear module.
        ModuleNotFoundError: without peft.
    """
    peft = _peft()
    linear = _linear_modules(model)
    wanted = sorted(linear) if settings.target_modules is None else sorted(set(settings.target_modules))
    if unknown := [name for name in wanted if name not in linear]:
        raise ValueError(
            f"target_modules must be among {', '.join(sorted(linear))}, got {', '.join(unknown)}; choose from them"
        )
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=wanted,
        lora_dropout=0.0,
        fan_in_fan_out=any(isinstance(linear[name], Conv1D) for name in wanted),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, model, _ADAPTER)


def narrow_frozen(trunk: nn.Module, dtype: torch.dtype) -> None:
    """Keep the linear modules that do not train in dtype, in place."""
    for module in trunk.modules():
        if isinstance(module, (nn.Linear, Conv1D)) and not module.weight.requires_grad:
            module.to(dtype)


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the adapter's parameters, by the names they have in peft's files."""
    return {
        _PREFIX + name.replace(f".{_ADAPTER}.", "."): parameter
        for name, parameter in model.named_parameters()
        if f".{_ADAPTER}." in name
    }


def save_adapter(model: PreTrainedModel, settings: LoraSettings, folder: Path) -> None:
    """Write adapter_model.safetensors and adapter_config.json, which names the base model."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in adapter_tensors(model).items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config[_ADAPTER]
    written = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.name_or_path or None,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "target_modules": sorted(config.target_modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": config.fan_in_fan_out,
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def read_adapter_config(path: Path) -> tuple[str, LoraSettings]:
    """Read the base model's name and the settings from an adapter_config.json.

    Raises:
        ValueError: for a file that is damaged, names no base, or asks for more than `LoraSettings` can say.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        settings = LoraSettings(found["r"], found["lora_alpha"], found["target_modules"])
        base = found["base_model_name_or_path"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} must be an adapter's configuration, got {error!r}; save the adapter again") from None
    if odd := _unsupported(found):
        raise ValueError(f"{path} must describe plain LoRA, got {', '.join(odd)}; merge the adapter into its model")
    if not isinstance(base, str):
        raise ValueError(
            f"{path} must name its base model, got {base!r}; make the base, then call its add_lora and load"
        )
    return base, settings


def _unsupported(found: Mapping[str, Any]) -> list[str]:
    """Name the settings of an adapter_config.json that change the numbers and that `LoraSettings` does not have."""
    plain = _peft().LoraConfig(peft_type="LORA").to_dict()
    ours = {"r", "lora_alpha", "target_modules", "base_model_name_or_path"}
    # These change no number of a trained adapter in evaluation mode.
    ours |= {"task_type", "inference_mode", "fan_in_fan_out", "lora_dropout", "peft_version", "auto_mapping"}
    return sorted(key for key, value in found.items() if key not in ours and value and value != plain.get(key))


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'LoRA needs {error.name}; pip install "textenvs[lora]"') from None
    return peft


def _linear_modules(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Return a linear module of each name's last part; the output layer is not one, for it may be the embedding."""
    head = model.get_output_embeddings()
    return {
        name.rpartition(".")[2]: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and module is not head
    }
