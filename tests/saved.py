"""A small trained model and its checkpoints, which the tests of checkpoints share."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from agents.checkpoint import note_metric, save_checkpoint


def linear_and_adam() -> tuple[torch.nn.Linear, torch.optim.Adam]:
    """A model and an optimizer that has state."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.ones(3)).sum().backward()
        optimizer.step()
    return model, optimizer


def save(folder: Path, step: int, trained: Any, value: float | None = None, **state: Any) -> Path:
    """A checkpoint of them; and, as the next update does, what it is worth."""
    model, optimizer = trained

    def write_policy(path: Path) -> None:
        path.mkdir()
        save_file(model.state_dict(), path / "model.safetensors")
        save_file({"weight": torch.ones(1)}, path / "value_head.safetensors")

    path = save_checkpoint(folder, step, write_policy=write_policy, optimizer=optimizer, state={"note": step, **state})
    if value is not None:
        note_metric(folder, step, value)
    return path
