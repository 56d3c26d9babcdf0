"""The shipped assets: what was chosen, that they rebuild, what scores withstand, what the language model is worth."""

import hashlib
import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from agents.assets import build as lm_build
from agents.assets import pretrain
from agents.assets.measure import copied_share, log_probs, perplexity, sample
from agents.assets.pretrain import Settings, make_model, swap_subject
from agents.assets.trigram import Trigram
from textenvs.assets import build, clean, sentiment
from textenvs.assets.clean import Review
from textenvs.rewards import classifiers
from textenvs.rewards.base import Responses
from textenvs.rewards.classifiers import MAX_CHARS, SentimentReward, VaderReward, ngrams
from textenvs.vocab import TokenizerVocab

ASSETS = build.HERE
NATURAL = (
    "The movie was amazing and I loved it. I would recommend it to anyone.",
    "The staff at this cafe were friendly and welcoming, and the cake was delicious.",
    "I am so grateful for this holiday. The beach was beautiful and we had great fun.",
)


@pytest.fixture(scope="module")
def rows() -> dict[str, list[Review]]:
    chosen = json.loads((ASSETS / "rows.json").read_text(encoding="utf-8"))
    reviews = build.read_reviews()
    return {split: [reviews[i] for i in chosen[split]] for split in ("train", "heldout")}


def prompts(split: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (ASSETS / f"prompts_{split}.jsonl").read_text(encoding="utf-8").splitlines()]


# --- what was chosen -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "subject", "opening", "rest"),
    [
        (clean.off_topic, "bike", "The food", " was cold and the waiter was rude."),
        (clean.off_topic, "phone", "We went to the phone and", " it was a nice day for all of us."),
        (clean.about_writing, "movie", "I never", " liked the movie. The writer feels angry."),
        (clean.about_writing, "movie", "The movie was", " dull. This is a very short review of it."),
        (clean.malformed, "album", "If you like a album,", " you will like this one very much."),
        (clean.malformed, "movie", "The movie was", " very very very good and long."),
        (clean.malformed, "movie", "The movie was", " good, said [name] to all of us."),
        (clean.malformed, "movie", "The movie was", " not good."),
        (clean.malformed, "movie", "The screen", "writer of the movie did a good thing."),
    ],
)
def test_each_filter_drops_its_kind_and_keeps_a_plain_review(rule, subject, opening, rest):
    assert rule(Review(0, subject, "happy", opening, opening + rest))
    assert not rule(Review(0, "movie", "happy", "The movie was", "The movie was long, but we liked the end of it."))


def test_near_duplicates_keep_the_first():
    texts = ["The movie was good and we all liked it.", "The movie was good and we all liked it a lot.", "A new one."]
    reviews = [Review(i, "movie", "happy", "The movie was", text) for i, text in enumerate(texts)]
    assert [review.row for review in clean.drop_duplicates(reviews)] == [0, 2]


def test_the_split_is_by_subject_and_opening(rows):
    subjects, openings = set(clean.HELDOUT_SUBJECTS), set(clean.HELDOUT_OPENINGS)
    assert all(r.subject not in subjects and r.template not in openings for r in rows["train"])
    assert all(r.subject in subjects or r.template in openings for r in rows["heldout"])
    assert {r.subject for r in rows["heldout"]} >= subjects
    assert {r.template for r in rows["heldout"]} >= openings
    num_rows = sum(map(len, rows.values()))
    assert len(rows["train"]) >= 0.75 * num_rows
    assert num_rows == len({r.text for split in rows.values() for r in split})


def test_prompt_packs_are_disjoint_and_fit_the_stated_limit(rows):
    vocab = TokenizerVocab(ASSETS / "tokenizer.json")
    train, heldout = ([line["prompt"] for line in prompts(split)] for split in ("train", "heldout"))
    assert len(set(train + heldout)) == len(train + heldout)
    assert set(train) == {r.opening for r in rows["train"]}
    assert set(heldout) <= {r.opening for r in rows["heldout"]}
    longest = max(len(vocab.encode(prompt)) for prompt in train + heldout)
    assert longest == json.loads((ASSETS / "manifest.json").read_text())["counts"]["max_prompt_tokens"] <= 16


# --- that they rebuild -----------------------------------------------------------------------------------------------


def test_the_manifest_lists_every_data_file_with_its_hash_and_licence():
    listed = json.loads((ASSETS / "manifest.json").read_text(encoding="utf-8"))["files"]
    data = {p.name for p in ASSETS.iterdir() if p.is_file() and p.suffix not in (".py", ".md")} - {"manifest.json"}
    assert set(listed) == data
    card = (ASSETS / "README.md").read_text(encoding="utf-8")
    for name, entry in listed.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == entry["sha256"], name
        assert entry["licence"] == "Apache-2.0"
        assert name in card


def test_the_text_assets_rebuild(tmp_path):
    assert build.differences(tmp_path, build.build(tmp_path)) == []


def test_the_source_file_packs_to_the_same_bytes():
    header = build.SOURCE.read_bytes()[:8]
    assert header[:2] == b"\x1f\x8b"
    assert header[3:8] == bytes(5), "a time or a name in the gzip header would differ from machine to machine"


@pytest.mark.parametrize("text", ["", "Ünï—çødé 🎬\r\n\t", "a" * 500, "\x00\x1b[31m", "العربية"])
def test_the_tokenizer_loses_nothing(text):
    vocab = TokenizerVocab(ASSETS / "tokenizer.json")
    assert vocab.num_tokens == build.NUM_TOKENS
    assert vocab.tokens[vocab.eos_id] == build.END_TOKEN
    assert vocab.decode(vocab.encode(text)) == text


# --- the classifier --------------------------------------------------------------------------------------------------


def test_ngrams_are_distinct_words_and_pairs_scaled_by_length():
    grams, value = ngrams("Not good, NOT good! It’s 5")
    assert grams == ["not", "good", "it's", "not good", "good not", "good it's"]
    assert value == 1 / 4  # shorter than 16 words counts as 16
    assert ngrams("x " * 100)[1] == 1 / 10


def test_held_out_accuracy_beats_the_majority_by_15_points(rows):
    reviews = sentiment.labelled(rows["heldout"])
    texts = [review.text for review in reviews]
    compounds = VaderReward().score_texts(texts) * 2 - 1
    measured = sentiment.measure(reviews, SentimentReward().score_texts(texts), compounds)
    assert measured == json.loads((ASSETS / "manifest.json").read_text(encoding="utf-8"))["sentiment"]
    assert measured["accuracy"] >= measured["majority"] + 0.15


def test_a_text_scores_the_same_bits_alone_and_in_any_batch(rows):
    reward, texts = SentimentReward(), [review.text for review in rows["heldout"][:50]]
    together = reward.score_texts(texts)
    assert together.dtype == np.float64
    assert together.tobytes() == b"".join(reward.score_texts([text]).tobytes() for text in texts)
    assert together[::-1].tobytes() == reward.score_texts(texts[::-1]).tobytes()


@pytest.mark.parametrize("word", ["great", "amazing", "happy", "grateful", "I love it.", "absolutely beautiful"])
@pytest.mark.parametrize("times", [1, 4, 24, 200])
def test_repeated_praise_does_not_pay(word, times):
    natural, *attacks = SentimentReward().score_texts(
        [min(NATURAL, key=len), f"{word} " * times, f"The movie was {word}" + f" {word}" * times]
    )
    assert max(attacks) < natural


def test_a_salad_of_praise_beats_good_reviews_by_little(rows):
    _, weights = classifiers._load_weights(str(classifiers.WEIGHTS_FILE))
    best = sorted((gram for gram in weights if " " not in gram), key=weights.__getitem__)[-24:]
    happy = [r.text for r in rows["heldout"] if r.tone in clean.POSITIVE_TONES]
    salad = SentimentReward().score_texts([" ".join(best)])[0]
    assert salad < 0.953
    assert salad - np.quantile(SentimentReward().score_texts(happy), 0.95) < 0.05


HOSTILE = (
    "",
    "\x00\x1b[2J\u202e",
    "<script>alert(1)</script>",
    "'" * 5000,
    "a'" * 5000,
    "İ" * 5000,
    "é🎬" * 5000,
    "{0}%s",
)


@pytest.mark.parametrize("reward", [SentimentReward(), VaderReward()], ids=["sentiment", "vader"])
def test_hostile_text_gets_a_score_in_range(reward):
    scores = reward.score_texts(HOSTILE)
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()


def test_time_is_bounded_for_texts_of_any_length():
    reward = SentimentReward()
    reward.score_texts([""])
    started = time.perf_counter()
    reward.score_texts(["good bad " * 10**6, "a'" * 10**6])
    assert time.perf_counter() - started < 1
    assert reward.score_texts(["x " * (MAX_CHARS // 2)])[0] == reward.score_texts(["x " * MAX_CHARS + "amazing"])[0]


@pytest.mark.parametrize("reward", [SentimentReward(), VaderReward()], ids=["sentiment", "vader"])
def test_rewards_read_prompt_and_response(reward):
    vocab = TokenizerVocab(ASSETS / "tokenizer.json")
    ids = vocab.encode(" was not good.")
    responses = Responses(ids[None], np.array([len(ids)]), ("eos",), vocab)
    problem = SimpleNamespace(prompt="The movie", references=(), metadata={})
    scores = reward([problem], responses)
    assert scores.values.tolist() == reward.score_texts(["The movie was not good."]).tolist()
    assert scores.parts[reward.name].tolist() == scores.values.tolist()


def test_vader_maps_its_compound_to_the_unit_interval():
    low, neutral, high = VaderReward().score_texts(["horrible, awful, I hate it", "a table", "wonderful, I love it"])
    assert low < 0.1 < neutral == 0.5 < 0.9 < high


def test_a_missing_vader_names_the_extra(monkeypatch):
    classifiers._vader.cache_clear()
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(ImportError, match=r'pip install "textenvs\[rewards\]"'):
        VaderReward().score_texts(["good"])


def test_scoring_needs_neither_torch_nor_scikit_learn():
    code = (
        "import sys; from textenvs.rewards.classifiers import SentimentReward; SentimentReward().score_texts(['good']);"
        "print([m for m in ('torch', 'sklearn', 'scipy', 'vaderSentiment') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the language model ----------------------------------------------------------------------------------------------


def test_the_trigram_is_a_distribution_and_its_weights_fit():
    trigram = Trigram([[1, 2, 3, 0], [1, 2, 4, 0]], [[1, 2, 3, 0]], num_tokens=5)
    total = sum(math.exp(trigram.log_probs([1, 2, token])[2]) for token in range(5))
    assert total == pytest.approx(1)
    np.testing.assert_allclose(trigram.weights.sum(axis=1), 1)
    w = trigram.weights[1]  # the history (1, 2) was seen twice: bucket floor(log2(3)) = 1
    by_hand = w[0] / 5 + w[1] * 1 / 8 + w[2] * 1 / 2 + w[3] * 1 / 2
    assert math.exp(trigram.log_probs([1, 2, 3])[2]) == pytest.approx(by_hand)


def test_copied_share_counts_runs_of_twelve_words():
    words = [f"word{i}" for i in range(13)]
    assert copied_share([" ".join(words[1:]).upper() + "!"], [" ".join(words)]) == 1
    assert copied_share([" ".join(words[2:]), "short"], [" ".join(words)]) == 0


def test_swapping_a_subject_stays_in_its_family():
    swapped = {swap_subject("cafe", "The cafe was a cafe.", np.random.default_rng(k)) for k in range(20)}
    assert "The bakery was a bakery." in swapped
    assert len(swapped) == 4
    assert swap_subject("bike", "The bike", np.random.default_rng(0)) == "The bike"


SMALL = Settings(hidden_size=16, intermediate_size=16, num_layers=1, num_heads=2, max_tokens=12, batch_size=4, seed=3)


def pretrained(num_epochs: int = 1, **settings: float) -> pretrain.Trained:
    """Trained on two batches an epoch."""
    changed = replace(SMALL, num_epochs=num_epochs, num_warmup_steps=1, **settings)
    reviews = [("movie", letter * 4) for letter in "abcdefgh"]
    return pretrain.train(changed, reviews, [[1, 2, 0]], lambda text: [*map(ord, text), 0], 128, 0)


def test_pretraining_draws_nothing_from_the_global_generator():
    weights, states = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        weights.append(pretrained().model.state_dict())
        assert torch.equal(before, torch.get_rng_state())
        states.append(before)
    assert not torch.equal(*states)
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
    other = pretrained(seed=4).model.state_dict()
    assert not torch.equal(other["lm_head.weight"], weights[0]["lm_head.weight"])


def test_dropout_leaves_a_share_out_and_scales_the_rest():
    model = make_model(SMALL, 128, 0)
    tokens = torch.arange(128)
    plain = model.model.embed_tokens(tokens)
    pretrain._add_dropout(model, 0.25, np.random.default_rng(0))
    ratio = (model.model.embed_tokens(tokens) / plain).detach().numpy()
    dropped = ratio == 0
    np.testing.assert_allclose(ratio[~dropped], 4 / 3, rtol=1e-6)
    assert dropped.mean() == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 2048))


def test_the_averaged_weights_are_kept(monkeypatch):
    after: list[torch.Tensor] = []
    update = pretrain._update

    def recorded(model, *args):
        update(model, *args)
        after.append(model.lm_head.weight.detach().clone())

    monkeypatch.setattr(pretrain, "_update", recorded)
    kept = pretrained(average_decay=0.75).model.lm_head.weight
    assert len(after) == 2
    assert not torch.equal(*after)
    torch.testing.assert_close(kept, 0.75 * after[0] + 0.25 * after[1])  # an average begins with its first value
    after.clear()
    torch.testing.assert_close(pretrained(average_decay=0.0).model.lm_head.weight, after[1])


def test_the_best_epoch_is_kept():
    trained = pretrained(num_epochs=6, average_decay=0.0, learning_rate=0.02)
    assert trained.best_epoch == 1 + int(np.argmin(trained.dev_perplexities)) < 6
    found = perplexity(log_probs(trained.model, [[1, 2, 0]]))
    assert found == pytest.approx(min(trained.dev_perplexities))
    assert trained.num_steps == 12


def test_samples_keep_their_prompt_stop_at_the_end_token_and_repeat_under_a_seed():
    settings = Settings(hidden_size=16, intermediate_size=16, num_layers=1, num_heads=1, max_tokens=12)
    model, prompts = make_model(settings, 4, 0), [[1], [2, 3, 1]]
    first, again = (sample(model, prompts, 0, 12, torch.Generator().manual_seed(k)) for k in (5, 5))
    assert first == again
    for prompt, row in zip(prompts, first, strict=True):
        assert row[: len(prompt)] == prompt
        assert 0 not in row
        assert len(row) <= 12
    assert perplexity([np.log([0.25, 0.25]), np.log([0.25])]) == pytest.approx(4)


def test_the_shipped_model_is_worth_its_card():
    facts = json.loads((lm_build.TINY / "measurements.json").read_text(encoding="utf-8"))
    model = LlamaForCausalLM.from_pretrained(lm_build.TINY, dtype=torch.float32, local_files_only=True).eval()
    measured, texts = lm_build.measure(model, lm_build.read_data())
    for name in ("model_heldout", "model_heldout_rest", "trigram_heldout", "trigram_heldout_rest"):
        assert measured[name] == pytest.approx(facts[name], rel=0.005), name
    assert measured["model_heldout"] <= 0.8 * measured["trigram_heldout"]
    assert measured["model_heldout_rest"] <= 0.8 * measured["trigram_heldout_rest"]
    assert measured["copied_share"] < 0.05
    assert len(texts) == 200
    assert 1e6 <= facts["parameters"] <= 4e6
    assert sum(path.stat().st_size for path in lm_build.TINY.iterdir()) <= 12e6


def test_the_shipped_model_belongs_to_the_shipped_tokenizer():
    stored = json.loads((lm_build.TINY / "textenvs.json").read_text(encoding="utf-8"))
    vocab = TokenizerVocab(ASSETS / "tokenizer.json")
    assert stored == {"vocab_sha256": vocab.sha256}
    config = json.loads((lm_build.TINY / "config.json").read_text(encoding="utf-8"))
    assert (config["vocab_size"], config["eos_token_id"]) == (vocab.num_tokens, vocab.eos_id)
    assert config["attention_dropout"] == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_language_model_rebuilds_within_two_thousandths(tmp_path: Path):
    lm_build.build(tmp_path, Settings())
    fresh, shipped = (json.loads((d / "measurements.json").read_text()) for d in (tmp_path, lm_build.TINY))
    assert fresh["settings"] == shipped["settings"]
    assert fresh["model_heldout"] == pytest.approx(shipped["model_heldout"], rel=0.002)  # another seed's is 1 % away
    assert fresh["model_heldout_rest"] == pytest.approx(shipped["model_heldout_rest"], rel=0.002)
