"""Your own tokenizer and Hugging Face model: the env takes its vocabulary from the file, the agent its weights."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

try:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from agents.algorithms import ALGORITHMS
    from agents.lm import LMPolicy
    from agents.train import TrainConfig, make_envs, train
except ImportError:
    raise SystemExit('this example needs PyTorch and transformers; pip install "textenvs[agents]"') from None


def make_model(folder, seed):
    """What you would have already: a directory with tokenizer.json, config.json and model.safetensors."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = ["the food was good and the service great", "my phone is bad", "a happy day, a good film, a great book"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 64}
    LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True)).save_pretrained(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one update only")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder, arguments.seed)
        kwargs = {"vocab": name, "prompts": ["the food was", "my phone"], "reward": "sentiment", "max_new_tokens": 8}
        algorithm = replace(ALGORITHMS["ppo"], episodes_per_update=64, num_epochs=2)
        size = {"num_episodes": 64 if arguments.smoke else 1280, "seed": arguments.seed}
        config = TrainConfig("TextGen-v0", kwargs, algorithm, model=name, **size)
        train(config, folder / "run")
        policy = LMPolicy.from_pretrained(folder / "run/final", make_envs("TextGen-v0", 1, kwargs).metadata["textgen"])
        print(f"{policy.model.num_parameters():,} parameters, {policy.num_tokens} tokens")
        lines = (folder / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
        returns = [json.loads(line)["return"] for line in lines]
        print(f"mean return {returns[0]:.3f} in the first update, {returns[-1]:.3f} in the last of {len(returns)}")


if __name__ == "__main__":
    main()
