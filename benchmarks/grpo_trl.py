"""One GRPO iteration with SmolLM2-135M, 16 episodes of 24 tokens: the loop of `agents.train` against TRL's GRPOTrainer.

    python benchmarks/grpo_trl.py                       # about 10 minutes on two idle cores, after the venv is made

Sampling, advantages and the optimizer step on both sides, without KL, in the same configuration: full float32, LoRA,
LoRA with bfloat16 autocast. Same weights, prompts (4, of 7 tokens each), group size, lengths (the end token is out of
reach on both sides), temperature, threads. TRL runs in a venv of its own, made on first use below the cache directory
(`trl_peer.py` is what runs there); each side is one process, asked for one iteration in turns. The KV cache is seen to
be on by counting the tokens fed while sampling. The first iterations of both warm up and do not count.

The machine's limit is 2N FLOP a token fed while sampling, and 6N a trained one (4N with LoRA, whose frozen weights need
no gradient), at the matmul peak measured between the turns in the dtype of the trunk; N leaves out the head where no
logits are needed. TRL with LoRA and bfloat16 runs twice: on float32 weights, and on frozen weights that are bfloat16.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from measure import RESULTS, in_turns, machine, record

CASES = ("full", "lora", "lora bfloat16")
PEER = "trl==1.16.*"
PROMPTS = (
    "The best thing about this place is",
    "My favourite part of the film was",
    "I went there last week and it",
    "She opened the door and saw the",
)
EPISODES, GROUP_SIZE, NEW_TOKENS, RANK, LEARNING_RATE = 16, 4, 24, 8, 1e-5
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WARM_UP = 2


def main() -> None:
    """Measure the cases asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--no-csv", action="store_true", help="print only")
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours:
        serve(json.loads(arguments.ours))
        return
    python = peer_python()
    print(f"{machine()}, {arguments.threads} threads", flush=True)
    for case in arguments.cases:
        compare(case, python, arguments.repeats, arguments.threads, None if arguments.no_csv else RESULTS)


def compare(case: str, python: Path, repeats: int, threads: int, out: Path | None) -> None:
    """Measure one case and print its ratio, its parts and its shares of the machine's limit."""
    settings: dict[str, Any] = {
        "model": str(model_directory()),
        "threads": threads,
        "episodes": EPISODES,
        "group_size": GROUP_SIZE,
        "new_tokens": NEW_TOKENS,
        "prompts": PROMPTS,
        "learning_rate": LEARNING_RATE,
        "lora": None if case == "full" else {"r": RANK, "lora_alpha": 2 * RANK, "target_modules": TARGETS},
        "autocast": "bfloat16" if "bfloat16" in case else None,
        "dtype": "float32",
    }
    here = Path(__file__).resolve()
    ours = [sys.executable, str(here), "--ours", json.dumps(settings)]
    for dtype in ("float32", "bfloat16") if settings["autocast"] else ("float32",):
        theirs = [str(python), str(here.with_name("trl_peer.py")), json.dumps(settings | {"dtype": dtype})]
        name = "TRL's GRPOTrainer" + (f" on {dtype} weights" if settings["autocast"] else "")
        with child(ours, threads) as us, child(theirs, threads) as them:
            if us.hello["trained"] - us.hello["value_head"] != them.hello["trained"]:
                raise RuntimeError(f"both must train the same weights, got {us.hello} and {them.hello}")
            for side in [us, them] * WARM_UP:
                side.step()
            us.steps.clear()
            them.steps.clear()
            peaks: list[float] = []

            def measured(side: Child, peaks: list[float] = peaks) -> float:
                peaks.append(matmul_peak(settings["autocast"] or "float32", threads))
                return side.step()

            pairs = in_turns(lambda us=us: measured(us), lambda them=them: measured(them), repeats)  # type: ignore[misc]
            versions = them.hello["versions"]
            record(
                "end to end",
                case if dtype == "float32" else f"{case}, peer on bfloat16 weights",
                pairs,
                unit="s",
                peer=name,
                bar=1.2,
                threads=threads,
                versions=versions,
                out=out,
            )
            report(us, them, name, max(peaks), us.hello, lora=settings["lora"] is not None)


def report(us: Child, them: Child, name: str, peak: float, sizes: dict[str, int], *, lora: bool) -> None:
    """Print both sides' parts, and the share of the limit that each reaches."""
    width = us.steps[-1]["prompt_tokens"] // EPISODES
    trunk, head = sizes["trunk"], sizes["head"]
    sampled, trained = EPISODES * NEW_TOKENS, EPISODES * (width + NEW_TOKENS - 1)
    flop = 2 * trunk * EPISODES * (width + NEW_TOKENS - 1) + 2 * head * sampled
    flop += (4 if lora else 6) * (trunk * trained + head * sampled)
    limit = flop / peak
    print(f"  limit {limit:.2f} s: {flop / 1e9:.0f} GFLOP at {peak / 1e9:.0f} GFLOP/s", flush=True)
    for who, side in (("ours", us), (name, them)):
        seconds, sampling, cpu = (median(step[key] for step in side.steps) for key in ("seconds", "sampling", "cpu"))
        rest = "" if side is them else f", largest ratio error {max(step['ratio_error'] for step in side.steps):.2g}"
        print(
            f"  {who}: {limit / seconds:.0%} of the limit; {seconds:.2f} s, {sampling:.2f} of them sampling; "
            f"CPU {cpu:.2f} s{rest}",
            flush=True,
        )
    print(f"  versions of the peer: {them.hello['versions']}", flush=True)


class Child:
    """A process that takes one iteration at a request."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.hello = self._read()
        self.steps: list[dict[str, float]] = []

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended early, status {self.process.wait()}; see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def step(self) -> float:
        """Ask for an iteration, check that it was the one agreed on, and return its seconds."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        step = self._read()
        if step["tokens"] != EPISODES * NEW_TOKENS:
            raise RuntimeError(f"every episode must have {NEW_TOKENS} tokens, got {step['tokens']} in all")
        cached = step["prompt_tokens"] + EPISODES * (NEW_TOKENS - 1)
        if step["fed_tokens"] > cached:
            raise RuntimeError(f"sampling must feed {cached} tokens, got {step['fed_tokens']}: the KV cache is off")
        self.steps.append(step)
        return float(step["seconds"])


@contextmanager
def child(command: list[str], threads: int) -> Iterator[Child]:
    """Run a child until the block ends."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environment) as process:
        try:
            yield Child(process)
        finally:
            process.kill()


def serve(settings: dict[str, Any]) -> None:
    """Be our side: what `agents.train` does in an update, whenever standard input has a line."""
    import torch

    import textenvs
    from agents.algorithms import ALGORITHMS
    from agents.lora import LoraSettings
    from agents.rollout import collect
    from agents.train import TrainConfig, make_envs, make_optimizer, start_policy
    from agents.update import make_batch, optimize

    torch.set_num_threads(settings["threads"])
    algorithm = replace(
        ALGORITHMS["grpo"],
        group_size=settings["group_size"],
        episodes_per_update=settings["episodes"],
        num_epochs=1,
        num_minibatches=1,
        kl_coef=0.0,
        entropy_coef=0.0,
        learning_rate=settings["learning_rate"],
    )
    lora = settings["lora"] and LoraSettings(RANK, 2.0 * RANK, settings["lora"]["target_modules"])
    # No sampled text ends: what stands for the end is a token that the model was never trained to write.
    vocab = textenvs.TokenizerVocab(settings["model"], eos="<filename>")
    prompts = list(settings["prompts"])
    kwargs = {
        "vocab": vocab,
        "prompts": prompts,
        "split": "all",
        "max_new_tokens": settings["new_tokens"],
        "reward": lambda problem, text: text.count("e") / (1 + len(text)),
    }
    config = TrainConfig(
        "TextGen-v0", kwargs, algorithm, model=settings["model"], lora=lora, autocast=settings["autocast"]
    )
    envs = make_envs(config.env_id, settings["episodes"], config.env_kwargs)
    policy: Any = start_policy(config, envs)
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(policy, algorithm)
    head = policy.model.get_output_embeddings().weight.numel()
    in_all = sum(parameter.numel() for parameter in policy.model.parameters())
    fed = [0]

    def count(module: Any, inputs: tuple[torch.Tensor]) -> None:
        fed[0] += inputs[0].numel()

    def answer(**values: Any) -> None:
        print(json.dumps(values), flush=True)

    adapter = sum(p.numel() for p in trained) - policy.value_head.weight.numel() - 1
    answer(
        trained=sum(p.numel() for p in trained),
        value_head=policy.value_head.weight.numel() + 1,
        head=head,
        trunk=in_all - head - (adapter if lora else 0),
    )
    for update, _ in enumerate(sys.stdin):
        fed[0] = 0
        watch = policy.model.get_input_embeddings().register_forward_pre_hook(count)
        started, cpu = time.perf_counter(), time.process_time()
        rollout = collect(
            envs,
            policy,
            num_episodes=settings["episodes"],
            seed=0,
            first_episode=update * settings["episodes"],
            group_size=settings["group_size"],
        )
        watch.remove()
        sampled = time.perf_counter()
        steps = optimize(policy, optimizer, make_batch(rollout, algorithm), algorithm, seed=0, update=update)
        answer(
            seconds=time.perf_counter() - started,
            cpu=time.process_time() - cpu,
            sampling=sampled - started,
            prompt_tokens=sum(len(vocab.encode(info["prompt"])) for info in rollout.infos),
            tokens=int(rollout.mask.sum()),
            fed_tokens=fed[0],
            ratio_error=steps[0]["max_abs_log_ratio"],
        )


def matmul_peak(dtype: str, threads: int) -> float:
    """Return FLOP/s of the best of a few products of 2048, by MKL and by oneDNN, now, on this machine."""
    import torch

    torch.set_num_threads(threads)
    a, b = (torch.randn(2048, 2048).to(getattr(torch, dtype)) for _ in range(2))
    best = float("inf")
    for turn in range(8):
        started = time.perf_counter()
        if turn % 2:
            torch.mm(a, b)
        else:
            torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
        best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best


def model_directory() -> Path:
    """Return the converted SmolLM2; the example makes it."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
    from smollm2_sentiment import smollm2

    return smollm2(None)


def peer_python() -> Path:
    """Return the interpreter of TRL's venv, making it unless a whole one is there."""
    from agents.gguf import cache_directory

    venv = cache_directory() / "trl-1.16"
    python, whole = venv / "bin" / "python", venv / "whole"
    if not whole.is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        # First alone, so that the release is ours whatever TRL would take.
        for packages in (["torch==2.13.0"], [PEER, "peft==0.21.*"]):
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
        whole.touch()
    return python


if __name__ == "__main__":
    main()
