"""Variety, length, reading level and likelihood: values worked out by hand, attack strings, what is refused."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reward_batches import responses_of, score
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import textenvs
from textenvs import Problem, TokenizerVocab
from textenvs.rewards import pretrained
from textenvs.rewards.base import RewardValueError
from textenvs.rewards.fluency import (
    DistinctN,
    LengthRange,
    ReadingEase,
    ReadingGrade,
    RepetitionN,
    num_syllables,
    text_counts,
)
from textenvs.rewards.pretrained import LogProb

ASSETS = Path(textenvs.__file__).parent / "assets"
TINY = Path(textenvs.__file__).parent.parent / "agents" / "assets" / "tiny"
HOSTILE = [
    "",
    "a" * 100_000,
    "ab " * 33_333,
    ". " * 50_000,
    "." * 99_999 + "a",
    "\x00\x1b[2J\u202e",
    "\ud800a",
    "猫在" * 9,
]


def test_distinct_n_by_hand() -> None:
    # "the cat the cat sat": 3 of 5 words; the cat, cat the, the cat, cat sat: 3 of 4 pairs.
    assert score(DistinctN(1), ["the cat, The CAT sat", "", "a"]) == [3 / 5, 0, 1]
    assert score(DistinctN(2), ["the cat, The CAT sat", "a", "a a a a a"]) == [3 / 4, 0, 1 / 4]
    assert DistinctN(2).name == "distinct_2"


def test_repetition_by_hand() -> None:
    assert score(RepetitionN(1), ["the cat the cat sat", "don't do not", ""]) == pytest.approx(
        [-2 / 5, 0, 0], abs=1e-15
    )
    assert score(RepetitionN(), ["a b c d a b c d", "a b c d e"]) == [-1 / 5, 0]  # "a b c d" again, of 5
    assert score(RepetitionN(), ["great " * 103])[0] == -99 / 100


def test_length_range_by_hand() -> None:
    texts = ["", "one", "one two three", "1, 2, 3, 4!", "a b c d e f g h"]
    assert score(LengthRange(2, 4), texts) == [0, 1 / 2, 1, 1, 4 / 8]
    assert score(LengthRange(4), texts) == [0, 1 / 4, 3 / 4, 1, 4 / 8]
    assert score(LengthRange(3, 6, unit="characters"), texts) == [0, 1, 6 / 13, 6 / 11, 6 / 15]
    batch = responses_of(["abc"])
    assert LengthRange(6, unit="tokens")([Problem("")], batch).values.tolist() == [3 / 6]


@pytest.mark.parametrize(
    ("word", "count"),
    [
        ("cat", 1), ("the", 1), ("make", 1), ("table", 2), ("whale", 1), ("agree", 2), ("happy", 2), ("beautiful", 3),
        ("wonderful", 3), ("syllable", 3), ("rhythm", 1), ("hmm", 1), ("be", 1), ("people", 2), ("猫", 1),
    ],
)  # fmt: skip
def test_syllables(word: str, count: int) -> None:
    assert num_syllables(word) == count


def test_reading_level_by_hand() -> None:
    text = "Reading is wonderful. Animals enjoy 7 evenings"
    # 2 + 1 + 3, 3 + 2 + 3 (the heuristic hears eve-nin-gs as e-ve-ni); "7" is no word, the second sentence has no end.
    assert text_counts(text) == (6, 2, 14)
    ease = 206.835 - 1.015 * 6 / 2 - 84.6 * 14 / 6  # 6.39
    grade = 0.39 * 6 / 2 + 11.8 * 14 / 6 - 15.59  # 13.113
    assert score(ReadingEase(), [text]) == pytest.approx([ease / 100], rel=1e-12)
    assert score(ReadingGrade(13.113333333333333), [text]) == pytest.approx([1], rel=1e-12)
    assert score(ReadingGrade(10), [text]) == pytest.approx([1 / (1 + grade - 10)], rel=1e-12)
    # 206.835 - 1.015 * 6 - 84.6 is 116; one word of 7 syllables is below 0.
    assert score(ReadingEase(), ["The cat sat on the mat.", "Incomprehensibility.", "", "3.14 !"]) == [1, 0, 0, 0]
    assert text_counts("Hi. 7! ? Yes") == (2, 2, 2)
    assert text_counts("I came at 3.30. He (Dr. No) left... Then? Yes!") == (9, 5, 9)
    assert score(ReadingGrade(8), ["", "42"]) == [0, 0]


#: By text: distinct-1 and -2, repetition-1 and -4, 3 to 9 words, 3 to 9 characters, ease, grade 8.
EDGES = {
    "": [0, 0, 0, 0, 0, 0, 0, 0],
    "!!!": [0, 0, 0, 0, 0, 1, 0, 0],
    " \n": [0, 0, 0, 0, 0, 2 / 3, 0, 0],
    "½² ①猫 Привет!": [1, 1, 0, 0, 1, 9 / 13, 0, 0],
    "word": [1, 0, 0, 0, 1 / 3, 1, 1, 1 / 12.4],
    "table": [1, 0, 0, 0, 1 / 3, 1, 0.3662, 1 / 1.4],
    "syllable": [1, 0, 0, 0, 1 / 3, 1, 0, 1 / 13.2],
    "a" * 100_000: [1, 0, 0, 0, 1 / 3, 9e-5, 1, 1 / 12.4],
    "word " * 20_000: [5e-5, 1 / 19_999, -0.99995, -19_996 / 19_997, 9 / 20_000, 9e-5, 0, 1 / 7789.21],
    "!" * 100_000: [0, 0, 0, 0, 0, 9e-5, 0, 0],
}


@pytest.mark.parametrize("text", EDGES, ids=lambda text: ascii(text[:9]))
def test_texts_with_nothing_one_word_or_no_end_score_what_the_docstrings_say(text: str) -> None:
    rewards = [DistinctN(1), DistinctN(), RepetitionN(1), RepetitionN(), LengthRange(3, 9)]
    rewards += [LengthRange(3, 9, unit="characters"), ReadingEase(), ReadingGrade(8)]
    assert [score(reward, [text])[0] for reward in rewards] == pytest.approx(EDGES[text], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    "reward",
    [DistinctN(), RepetitionN(), LengthRange(3, 9), LengthRange(9, unit="characters"), ReadingEase(), ReadingGrade(8)],
    ids=lambda reward: reward.name,
)
def test_hostile_texts_are_in_range_and_fast(reward: textenvs.Reward) -> None:
    for text in HOSTILE:
        started = time.process_time()
        [value] = score(reward, [text])
        assert time.process_time() - started < 1
        assert reward.value_range[0] <= value <= reward.value_range[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DistinctN(0), "n must be an int of at least 1, got 0"),
        (lambda: RepetitionN(True), "n must be an int of at least 1, got True"),
        (lambda: LengthRange(0), "low must be an int of at least 1, got 0"),
        (lambda: LengthRange(5, 4), "high must be at least low, got 4 below 5"),
        (lambda: LengthRange(5, unit="bytes"), "unit must be one of words, characters, tokens, got 'bytes'"),
        (lambda: ReadingGrade(math.nan), "target must be a finite number, got nan"),
        (lambda: ReadingGrade(10**400), "target must be a finite number, got inf"),
        (lambda: ReadingGrade(-(10**5000)), "target must be a finite number, got -inf"),
    ],
)
def test_settings_are_checked(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# --- likelihood ------------------------------------------------------------------------------------------------------


def one_by_one(prompt: str, text: str, *, ended: bool) -> float:
    """Mean log-probability under the shipped model, a forward a token, in float64."""
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float64)
    vocab = TokenizerVocab(ASSETS / "tokenizer.json")
    ids = vocab.encode(prompt).tolist()
    total, wanted = 0.0, vocab.encode(text).tolist() + [vocab.eos_id] * ended
    for token in wanted:
        with torch.no_grad():
            probabilities = model(torch.tensor([ids])).logits[0, -1].softmax(-1)
        total += math.log(float(probabilities[token]))
        ids.append(token)
    return total / len(wanted)


def log_probs(reward: LogProb, prompts: Sequence[str], texts: Sequence[str], finish_reason: str = "eos") -> list[float]:
    problems = [Problem(prompt) for prompt in prompts]
    scores = reward(problems, responses_of(texts, finish_reason=finish_reason))
    assert scores.parts["log_prob"].tolist() == scores.values.tolist()
    return [float(value) for value in scores.values]


def test_log_prob_agrees_with_one_token_at_a_time() -> None:
    prompts, texts = ["The movie", "I was so", "My"], [" was great, and I cried.", " happy", " day at the beach"]
    values = log_probs(LogProb(), prompts, texts)
    alone = [log_probs(LogProb(), [prompt], [text])[0] for prompt, text in zip(prompts, texts, strict=True)]
    exact = [one_by_one(prompt, text, ended=True) for prompt, text in zip(prompts, texts, strict=True)]
    assert values == pytest.approx(exact, abs=1e-5)
    assert values == pytest.approx(alone, abs=1e-5)
    assert all(value < 0 for value in values)
    [cut] = log_probs(LogProb(), ["The movie"], [" was great"], finish_reason="length")
    assert cut == pytest.approx(one_by_one("The movie", " was great", ended=False), abs=1e-5)
    [empty] = log_probs(LogProb(), ["The movie"], [""], finish_reason="running")
    assert empty == pytest.approx(one_by_one("The movie", "", ended=True), abs=1e-5)


def test_log_prob_of_one_token_punctuation_and_endless_text() -> None:
    """Means over the tokens and the end token; of an endless text as much is read as the context holds."""
    values = log_probs(LogProb(), ["The movie"] * 3, [" was", "!!!", " good" * 20_000])
    expected = [one_by_one("The movie", text, ended=True) for text in (" was", "!!!")]
    assert values[:2] == pytest.approx(expected, abs=1e-5)
    assert values[0] > values[1]
    room = LogProb()._context - len(TokenizerVocab(ASSETS / "tokenizer.json").encode("The movie"))
    assert values[2] == pytest.approx(one_by_one("The movie", " good" * room, ended=False), abs=1e-5)


def test_nothing_more_is_likely_after_a_finished_sentence() -> None:
    """What the docstring says."""
    values = log_probs(LogProb(), ["I love it!", "I love it!", "The movie"], ["", " was really good.", ""])
    assert values == pytest.approx([-3.5, -4.9, -15.0], abs=0.05)


def test_log_prob_prefers_english_and_withstands_the_empty_response() -> None:
    texts = [" was really good.", " goodreally was. xq", "", "\x00\u202e\ud800", "zqj kvw xxq"]
    natural, *others = log_probs(LogProb(), ["The movie"] * 5, texts)
    assert natural > max(others) + 1


def test_log_prob_is_in_range_and_bounded_in_time_for_hostile_text() -> None:
    reward = LogProb()
    log_probs(reward, ["a"], ["warm"])
    for text in HOSTILE:
        started = time.process_time()
        [value] = log_probs(reward, ["x" * 10_000], [text])
        assert time.process_time() - started < 1
        assert -math.inf < value <= 0
    assert log_probs(reward, ["\ud800"], ["a"]) == log_probs(reward, ["?"], ["a"])


def tiny_gpt2(num_layers: int = 1) -> GPT2LMHeadModel:
    sizes: dict[str, Any] = {"vocab_size": 11, "n_positions": 16, "n_embd": 8, "n_layer": num_layers, "n_head": 2}
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config)


def save_char_tokenizer(folder: Path, *special: str) -> None:
    ids = {symbol: i for i, symbol in enumerate([*special, *"abcdefgh? "])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens(list(special))
    tokenizer.save(str(folder / "tokenizer.json"))


def test_log_prob_of_models_from_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPT-2 without a begin token, whose empty prompt starts from the end token; a Llama with one, always first."""
    torch.manual_seed(0)
    gpt2, llama = tmp_path / "gpt2", tmp_path / "llama"
    tiny_gpt2().save_pretrained(gpt2)
    config = LlamaConfig(vocab_size=12, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    LlamaForCausalLM(config).save_pretrained(llama)
    save_char_tokenizer(gpt2, "<|endoftext|>")
    save_char_tokenizer(llama, "</s>", "<s>")
    for folder, first, a in ((gpt2, [0], 1), (llama, [1], 2)):
        model = AutoModelForCausalLM.from_pretrained(folder)
        for prompt, before in (("", first), ("d", ([1] if folder == llama else []) + [a + 3])):
            ids = [*before, a, a + 1, 0]  # "ab" and the end
            logs = model(torch.tensor([ids])).logits[0].log_softmax(-1).detach()
            expected = sum(float(logs[t - 1, ids[t]]) for t in range(len(before), len(ids))) / 3
            assert log_probs(LogProb(folder), [prompt], ["ab"]) == pytest.approx([expected], abs=1e-5)
    # 16 positions: the last 8 of the prompt, and 8 of the response.
    long = log_probs(LogProb(gpt2), ["a" * 50 + "bcdefgha"], ["h" * 50])
    assert long == log_probs(LogProb(gpt2), ["bcdefgha"], ["h" * 8], finish_reason="length")
    # Three rows of the longest a forward.
    monkeypatch.setattr(pretrained, "_MAX_LOGITS", 3 * 10 * 11)
    texts = ["abcdefg"[: 1 + i % 7] for i in range(300)]
    reward = LogProb(gpt2)
    together = log_probs(reward, ["ab"] * 300, texts)
    assert together[:7] == pytest.approx([log_probs(reward, ["ab"], [text])[0] for text in texts[:7]], abs=1e-5)
    assert together == pytest.approx([together[i % 7] for i in range(300)], abs=1e-5)


def test_models_that_cannot_work_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(reward: LogProb, message: str) -> None:
        with pytest.raises(RewardValueError, match=message):
            log_probs(reward, ["a"], ["b"])

    vocab = ASSETS / "tokenizer.json"
    refused(LogProb("./no/such", vocab=vocab), "got './no/such', which does not exist")
    refused(LogProb("nobody/nothing", vocab=vocab), "with safetensors weights, got 'nobody/nothing'")
    refused(LogProb("nobody/nothing"), r"vocab must be given when 'nobody/nothing' has no tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    refused(LogProb(tmp_path), "vocab must be given when .* has no tokenizer.json that can be used")
    with pytest.raises(FileNotFoundError, match=r"got 'no/such.json' which does not exist"):
        LogProb(vocab="no/such.json")
    small, holed, pickled = (tmp_path / name for name in ("small", "holed", "pickled"))
    tiny_gpt2().save_pretrained(small)
    refused(LogProb(small, vocab=vocab), "got 2048 tokens for .*, which has 11")
    tiny_gpt2(num_layers=1).save_pretrained(holed)
    tiny_gpt2(num_layers=2).config.save_pretrained(holed)
    refused(LogProb(holed, vocab=vocab), "without transformer.h.1.*a model that was trained for this")
    tiny_gpt2().save_pretrained(pickled)
    torch.save(tiny_gpt2().state_dict(), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    refused(LogProb(pickled, vocab=vocab), "with safetensors weights, got .*pickled")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r'"log_prob" needs torch; run: pip install "textenvs\[agents\]"'):
        log_probs(LogProb(), ["a"], ["b"])


def test_a_model_with_a_nan_is_never_the_best(tmp_path: Path) -> None:
    model = tiny_gpt2()
    torch.nn.init.constant_(model.transformer.ln_f.weight, math.nan)
    model.save_pretrained(tmp_path)
    save_char_tokenizer(tmp_path, "<|endoftext|>")
    assert np.isnan(LogProb(tmp_path)([Problem("a")], responses_of(["b"])).values[0])
