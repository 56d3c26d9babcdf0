"""TRL's own GRPOTrainer, one optimizer step at a request; run by `grpo_trl.py` in a venv that has no textenvs.

A callback waits for a line on standard input before each step and answers after it, so that the trainer's loop is what
TRL ships. Answers are JSON lines on standard output; what libraries print goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from importlib.metadata import version
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def configuration(settings: dict[str, Any]) -> GRPOConfig:
    """What is asked of TRL: GRPO without KL, one optimizer step an iteration, nothing logged or saved."""
    return GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=settings["episodes"],
        gradient_accumulation_steps=1,
        num_generations=settings["group_size"],
        num_iterations=1,
        max_completion_length=settings["new_tokens"],
        generation_kwargs={"min_new_tokens": settings["new_tokens"], "use_cache": True},
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        beta=0.0,
        loss_type="grpo",
        learning_rate=settings["learning_rate"],
        max_steps=10**6,
        bf16=settings["autocast"] is not None,
        use_cpu=True,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        model_init_kwargs={"dtype": settings["dtype"]},
    )


def main() -> None:
    """Train until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", help="JSON, as grpo_trl.py makes it")
    settings = json.loads(parser.parse_args().settings)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(settings["threads"])

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    class Turns(TrainerCallback):  # type: ignore[misc]
        """Takes a step when asked."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if not sys.stdin.readline():
                os._exit(0)
            trainer.seconds_sampling, trainer.fed_tokens = 0.0, 0
            self.started, self.cpu = time.perf_counter(), time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            answer(
                seconds=time.perf_counter() - self.started,
                cpu=time.process_time() - self.cpu,
                sampling=trainer.seconds_sampling,
                prompt_tokens=trainer.prompt_tokens,
                tokens=trainer.tokens,
                fed_tokens=trainer.fed_tokens,
            )

    class Watched(GRPOTrainer):  # type: ignore[misc]
        """Notes how long sampling took and how much was sampled."""

        seconds_sampling, prompt_tokens, tokens, fed_tokens = 0.0, 0, 0, 0

        def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
            def count(module: Any, inputs: tuple[torch.Tensor]) -> None:
                self.fed_tokens += inputs[0].numel()

            # What the embedding sees while sampling tells whether the KV cache is on.
            watch = self.model.get_input_embeddings().register_forward_pre_hook(count)
            started = time.perf_counter()
            found = super()._generate_single_turn(*args, **kwargs)
            watch.remove()
            self.seconds_sampling += time.perf_counter() - started
            self.tokens = sum(map(len, found[0]))
            return found

        def _compute_loss(self, model: Any, inputs: Any) -> Any:
            self.prompt_tokens = int(inputs["prompt_mask"].sum())
            return super()._compute_loss(model, inputs)

    lora = settings["lora"]
    tokenizer = AutoTokenizer.from_pretrained(settings["model"], padding_side="left")
    trainer = Watched(
        model=settings["model"],
        reward_funcs=lambda completions, **_: [text.count("e") / (1 + len(text)) for text in completions],
        args=configuration(settings),
        train_dataset=Dataset.from_dict({"prompt": settings["prompts"]}),
        processing_class=tokenizer,
        callbacks=[Turns()],
        peft_config=None if lora is None else LoraConfig(lora_dropout=0.0, task_type="CAUSAL_LM", **lora),
    )
    answer(
        versions={name: version(name) for name in ("trl", "torch", "transformers", "peft", "accelerate", "datasets")},
        trained=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
    )
    trainer.train()


if __name__ == "__main__":
    main()
