"""GGUF: a tiny Llama written as llama.cpp writes it comes back with the same logits, once; damage is refused."""

import struct
import sys
import time
from pathlib import Path

import gguf
import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM

import agents.gguf
import textenvs  # noqa: F401 - registers the ids
from agents.gguf import convert_gguf
from agents.lm import LMPolicy
from agents.rollout import collect

NUM_HEADS, NUM_KV_HEADS = 4, 2
TOKENS = [*sorted(ByteLevel.alphabet()), "he", "<|endoftext|>"]
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def llama(*, tied: bool = False) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=NUM_HEADS,
        num_key_value_heads=NUM_KV_HEADS,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=len(TOKENS) - 1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config)


def write(path: Path, model: LlamaForCausalLM, *, extra: bool = False, architecture: str = "llama") -> None:
    """Write a model as llama.cpp's converter does: rotary halves interleaved, ggml's names."""
    writer = gguf.GGUFWriter(path, architecture)
    config = model.config
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(1)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(NUM_HEADS)
    writer.add_head_count_kv(NUM_KV_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.NORMAL] * (len(TOKENS) - 1) + [gguf.TokenType.CONTROL])
    writer.add_token_merges(["h e"])
    writer.add_eos_token_id(len(TOKENS) - 1)
    for name, parameter in model.named_parameters():
        array = parameter.detach().numpy()
        layer, _, kind = name.removeprefix("model.layers.0.").rpartition(".")
        if layer.endswith(("q_proj", "k_proj")):
            num_heads = NUM_HEADS if layer.endswith("q_proj") else NUM_KV_HEADS
            array = array.reshape(num_heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        block = "blk.0." if name.startswith("model.layers") else ""
        writer.add_tensor(f"{block}{NAMES[layer]}.{kind}", np.ascontiguousarray(array))
    if extra:
        writer.add_tensor("rope_freqs.weight", np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTENVS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("tied", [False, True])
def test_a_gguf_file_becomes_the_model_it_was_made_from(tmp_path, cache, tied):
    model = llama(tied=tied)
    write(tmp_path / "tiny.gguf", model)
    directory = convert_gguf(tmp_path / "tiny.gguf")
    assert directory.parent == cache
    assert list(cache.iterdir()) == [directory]
    envs = gym.make_vec("TextGen-v0", num_envs=2, autoreset_mode="Disabled", vocab=directory, prompts=["hello", "a b"])
    policy = LMPolicy.from_pretrained(tmp_path / "tiny.gguf", envs.metadata["textgen"])
    tokens = torch.arange(20)[None] * 7
    with torch.no_grad():
        torch.testing.assert_close(policy.model(tokens).logits, model(tokens).logits, atol=1e-6, rtol=1e-6)
    rollout = collect(envs, policy, num_episodes=4, seed=0)
    assert rollout.mask.any()
    assert {info["prompt"] for info in rollout.infos} <= {"hello", "a b"}


def test_it_is_converted_once_and_again_when_its_bytes_change(tmp_path, cache, monkeypatch):
    path = tmp_path / "tiny.gguf"
    write(path, llama())
    directory = convert_gguf(path)
    with monkeypatch.context() as context:
        context.setattr(agents.gguf, "_write_model", None)
        assert convert_gguf(path) == directory
    write(path, llama(tied=True))
    assert convert_gguf(path) != directory
    assert len(list(cache.iterdir())) == 2


def test_a_failure_leaves_nothing_and_a_rival_may_be_first(tmp_path, cache, monkeypatch):
    path = tmp_path / "tiny.gguf"
    write(path, llama())

    def fail(path, folder, num_weights):
        save_file({"half": torch.zeros(1)}, folder / "model.safetensors")
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(agents.gguf, "_write_model", fail)
        with pytest.raises(KeyboardInterrupt):
            convert_gguf(path)
    assert not list(cache.iterdir())
    write_model = agents.gguf._write_model
    rival = []

    def overtaken(*args):
        if not rival:
            rival.append(None)
            rival.append(convert_gguf(path))
        write_model(*args)

    monkeypatch.setattr(agents.gguf, "_write_model", overtaken)
    assert convert_gguf(path) == rival[1]
    assert list(cache.iterdir()) == [rival[1]]


def test_other_weights_than_the_architectures_are_refused(tmp_path, cache):
    """Transformers would drop the frequencies of a scaled rotation and compute something else."""
    write(tmp_path / "scaled.gguf", llama(), extra=True)
    with pytest.raises(ValueError, match=r"exactly the \d+ weights of LlamaForCausalLM, got \d+"):
        convert_gguf(tmp_path / "scaled.gguf")
    write(tmp_path / "odd.gguf", llama(), architecture="wkv9")
    with pytest.raises(ValueError, match=r"known architecture, got .*wkv9"):
        convert_gguf(tmp_path / "odd.gguf")
    assert not list(cache.iterdir())


def damaged(whole: bytes) -> dict[str, bytes]:
    """Files that are cut, or lie about a length; the first array is the token list."""
    array = whole.index(b"tokenizer.ggml.tokens") + len("tokenizer.ggml.tokens") + 8
    cuts = {f"cut at {n}": whole[:n] for n in (0, 3, 10, 40, array, len(whole) // 2, len(whole) - 1)}
    huge = struct.pack("<Q", 2**60)
    return cuts | {
        "text": b"hello" * 100,
        "many fields": whole[:16] + huge + whole[24:],
        "many tensors": whole[:8] + huge + whole[16:],
        "long array": whole[:array] + huge + whole[array + 8 :],
        "endless numbers": whole[: array - 4] + struct.pack("<IQ", 6, 2**60),
    }


def test_damaged_and_hostile_files_are_refused_at_once_in_one_sentence(tmp_path, cache):
    path = tmp_path / "tiny.gguf"
    write(path, llama())
    for name, content in damaged(path.read_bytes()).items():
        path.write_bytes(content)
        started = time.process_time()
        with pytest.raises(ValueError, match="GGUF file must be whole and of a known architecture, got") as refused:
            convert_gguf(path)
        assert "\n" not in str(refused.value), name
        assert time.process_time() - started < 5, name
    with pytest.raises(ValueError, match="which does not exist"):
        convert_gguf(tmp_path / "none.gguf")
    assert not cache.exists()


def test_without_gguf_the_extra_is_named(tmp_path, monkeypatch):
    write(tmp_path / "tiny.gguf", llama())
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ModuleNotFoundError, match=r'GGUF files need gguf; pip install "textenvs\[gguf\]"'):
        convert_gguf(tmp_path / "tiny.gguf")


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("TEXTENVS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert agents.gguf.cache_directory() == tmp_path / ".cache" / "textenvs"
