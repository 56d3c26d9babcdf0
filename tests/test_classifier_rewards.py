"""Classifiers of one's own: scikit-learn pipelines in memory, Hugging Face models from a directory.

The shipped classifier and VADER: tests/test_assets.py.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reward_batches import responses_of, score
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
)

from textenvs import Problem
from textenvs.rewards.base import RewardValueError
from textenvs.rewards.classifiers import SklearnReward
from textenvs.rewards.pretrained import PretrainedClassifier

TEXTS = ["good good day", "a good film", "bad bad day", "a bad film", "a film", "the day"]
HOSTILE = ["", "a" * 100_000, "good " * 20_000, "\x00\x1b[2J\u202e", "\ud800 good", "猫在" * 9]


def pipeline(classifier: Any, labels: list[str]) -> Any:
    return make_pipeline(CountVectorizer(), classifier).fit(TEXTS, labels)


@pytest.fixture(scope="module")
def two() -> Any:
    return pipeline(LogisticRegression(), ["pos", "pos", "neg", "neg", "neg", "pos"])


@pytest.fixture(scope="module")
def three() -> Any:
    return pipeline(LogisticRegression(), ["pos", "pos", "neg", "neg", "none", "none"])


def test_a_logistic_regression_by_hand(two: Any) -> None:
    """With z = intercept + the weights of the words; P(pos) = 1 / (1 + exp(-z)), P(neg) = 1 - P(pos)."""
    vectorizer, regression = two[0], two[1]
    weight = dict(zip(vectorizer.get_feature_names_out(), regression.coef_[0], strict=True))
    z = regression.intercept_[0] + 2 * weight["good"] + weight["film"]
    assert score(SklearnReward(two, label="pos"), ["good good film"], prompt="") == pytest.approx(
        [1 / (1 + np.exp(-z))]
    )
    assert score(SklearnReward(two, label="neg"), ["good good film"], prompt="") == pytest.approx([1 / (1 + np.exp(z))])
    assert score(SklearnReward(two, label="pos", output="decision"), ["film good good"], prompt="") == pytest.approx(
        [z]
    )
    assert score(SklearnReward(two, label="neg", output="decision"), ["film good good"], prompt="") == pytest.approx(
        [-z]
    )


def test_the_prompt_is_read_unless_told_otherwise(two: Any) -> None:
    whole, alone = SklearnReward(two, label="pos"), SklearnReward(two, label="pos", with_prompt=False)
    assert score(whole, ["good"], prompt="bad ") == score(alone, ["bad good"], prompt="x ")
    assert score(alone, ["good"], prompt="bad ") == score(alone, ["good"], prompt="x ")


def test_several_labels_and_a_part_named_after_the_label(three: Any) -> None:
    rewards = [SklearnReward(three, label=label) for label in ("pos", "neg", "none")]
    values = [score(reward, ["good film", "bad"], prompt="") for reward in rewards]
    assert np.sum(values, axis=0) == pytest.approx([1, 1])
    assert values[0][0] == max(values[0] + values[1] + values[2][:1])
    decisions = [score(SklearnReward(three, label=r.label, output="decision"), ["good"], prompt="") for r in rewards]
    assert decisions[0] == max(decisions)
    assert list(rewards[0]([Problem("")], responses_of(["good"])).parts) == ["pos"]
    numbers = pipeline(LogisticRegression(), [0, 0, 1, 1, 2, 2])  # type: ignore[list-item]
    assert SklearnReward(numbers, label=1).name == "1"


def test_a_support_vector_machine_has_decisions_only() -> None:
    machine = pipeline(LinearSVC(), ["pos", "pos", "neg", "neg", "neg", "pos"])
    assert score(SklearnReward(machine, label="pos", output="decision"), ["good"], prompt="")[0] > 0
    with pytest.raises(ValueError, match=r"got 'probability', which needs predict_proba; pass output='decision'"):
        SklearnReward(machine, label="pos")
    duels = pipeline(SVC(decision_function_shape="ovo"), list("aabbcd"))
    with pytest.raises(RewardValueError, match=r"got 6 for 4 labels; make the classifier with .*'ovr'"):
        score(SklearnReward(duels, label="a", output="decision"), ["good"])


def test_rows_and_hostile_texts(two: Any) -> None:
    for output in ("probability", "decision"):
        reward = SklearnReward(two, label="pos", output=output)
        together = score(reward, HOSTILE, prompt="")
        assert together == [score(reward, [text], prompt="")[0] for text in HOSTILE]
        low, high = reward.value_range
        assert all(low <= value <= high and np.isfinite(value) for value in together)


def test_pipelines_that_cannot_work_are_refused(two: Any) -> None:
    with pytest.raises(ValueError, match=r"label must be one of the classifier's, got 'happy'; known: 'neg', 'pos'"):
        SklearnReward(two, label="happy")
    with pytest.raises(ValueError, match="must be fitted and have classes_, got Pipeline; fit it"):
        SklearnReward(make_pipeline(CountVectorizer(), LogisticRegression()), label="pos")
    with pytest.raises(ValueError, match="output must be 'probability' or 'decision', got 'logit'"):
        SklearnReward(two, label="pos", output="logit")


# --- Hugging Face ----------------------------------------------------------------------------------------------------

LABELS = ("sad", "happy", "calm")
SIZES: dict[str, Any] = {
    "vocab_size": 13,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 24,
    "initializer_range": 1.0,
}


def bert_config(labels: tuple[str, ...] = LABELS, **settings: Any) -> BertConfig:
    names = dict(enumerate(labels))
    return BertConfig(**SIZES, id2label=names, label2id={name: i for i, name in names.items()}, **settings)


def save_tokenizer(folder: Path, *, special: bool = True) -> None:
    """One character a token; with special ones, [CLS] text [SEP]."""
    symbols = ["[PAD]", "[CLS]", "[SEP]", "?", *"abcdefgh "]
    tokenizer = Tokenizer(models.WordLevel({symbol: i for i, symbol in enumerate(symbols)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if special:
        tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", eos_token="[SEP]", model_max_length=24
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    model = BertForSequenceClassification(bert_config())
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def logits_of(folder: Path, ids: list[int]) -> Any:
    return BertForSequenceClassification.from_pretrained(folder).eval()(torch.tensor([ids])).logits[0].detach().double()


def test_a_model_by_hand(bert: Path) -> None:
    """[CLS] prompt response [SEP], softmax over the labels; the logit as it is."""
    logits = logits_of(bert, [1, 7, 12, 4, 5, 2])  # "d " + "ab"
    for column, label in enumerate(LABELS):
        expected = float(logits.softmax(0)[column])
        assert score(PretrainedClassifier(bert, label=label), ["ab"], prompt="d ") == pytest.approx(
            [expected], abs=1e-6
        )
    happy = PretrainedClassifier(bert, label="happy", output="logit")
    assert score(happy, ["ab"], prompt="d ") == pytest.approx([float(logits[1])], abs=1e-6)
    alone = PretrainedClassifier(bert, label="happy", output="logit", with_prompt=False)
    assert score(alone, ["ab"], prompt="d ") == pytest.approx([float(logits_of(bert, [1, 4, 5, 2])[1])], abs=1e-6)


def test_a_row_scores_the_same_in_any_batch(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = PretrainedClassifier(bert, label="happy")
    texts = ["abcdefgh"[i % 5 : i % 5 + 1 + i % 4] for i in range(60)]
    together = score(reward, texts)
    assert len(set(np.round(together, 4))) > 10
    assert together == pytest.approx([score(reward, [text])[0] for text in texts], abs=1e-5)
    monkeypatch.setattr("textenvs.rewards.pretrained._MAX_TOKENS", 16)
    assert together == pytest.approx(score(reward, texts), abs=1e-5)


def test_hostile_texts_and_limits(bert: Path) -> None:
    reward = PretrainedClassifier(bert, label="happy")
    score(reward, ["warm"])
    started = time.process_time()
    values = score(reward, HOSTILE)
    assert time.process_time() - started < 3  # six texts
    assert all(0 <= value <= 1 for value in values)
    # 24 positions: [CLS], 22 characters, [SEP].
    assert score(reward, ["a" * 22 + "bcd"], prompt="") == score(reward, ["a" * 22], prompt="")
    assert score(reward, ["a" * 21 + "b"], prompt="") != score(reward, ["a" * 22], prompt="")
    short = PretrainedClassifier(bert, label="happy", max_tokens=4)
    assert score(short, ["abc"], prompt="") == score(reward, ["ab"], prompt="")
    assert score(reward, ["\ud800"], prompt="") == score(reward, ["?"], prompt="")


def test_labels_that_do_not_exclude_each_other_get_a_sigmoid_each(tmp_path: Path) -> None:
    model = BertForSequenceClassification(bert_config(problem_type="multi_label_classification"))
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    expected = float(logits_of(tmp_path, [1, 4, 2]).sigmoid()[2])
    assert score(PretrainedClassifier(tmp_path, label="calm"), ["a"], prompt="") == pytest.approx([expected], abs=1e-6)


def test_a_reward_model_of_one_label_and_no_padding_id(tmp_path: Path) -> None:
    """A decoder, as most reward models are: its logit is read at the last token, one row at a time."""
    sizes: dict[str, Any] = {"vocab_size": 13, "n_positions": 24, "n_embd": 8, "n_layer": 1, "n_head": 2}
    config = GPT2Config(**sizes, num_labels=1, bos_token_id=2, eos_token_id=2, initializer_range=1.0)
    model = GPT2ForSequenceClassification(config)
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path, special=False)
    reward = PretrainedClassifier(tmp_path, label="LABEL_0", output="logit")
    model.eval()
    expected = [float(model(torch.tensor([ids])).logits[0, 0].detach()) for ids in ([4, 5], [5, 4], [4], [2])]
    assert score(reward, ["ab", "ba", "a", ""], prompt="") == pytest.approx(expected, abs=1e-5)
    with pytest.raises(RewardValueError, match="output must be 'logit' for a model with a single label"):
        score(PretrainedClassifier(tmp_path, label="LABEL_0"), ["a"])


def test_models_that_cannot_work_end_the_run(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(model: str | Path, message: str, label: str = "happy") -> None:
        with pytest.raises(RewardValueError, match=message):
            score(PretrainedClassifier(model, label=label), ["a"])

    refused(bert, r"label must be one of .*, got 'hapy'; did you mean 'happy'\? known: calm, happy, sad", "hapy")
    refused("./no/such", "got './no/such', which does not exist")
    refused("nobody/nothing", "with safetensors weights, got 'nobody/nothing'")
    BertModel(bert_config()).save_pretrained(tmp_path)
    refused(tmp_path, "without classifier.bias, classifier.weight; name a model that was trained for this")
    bare = tmp_path / "bare"
    BertForSequenceClassification(bert_config()).save_pretrained(bare)
    refused(bare, "model must come with its tokenizer, got .*bare")
    for settings, message in (({"output": "decision"}, "output must be"), ({"max_tokens": 0}, "max_tokens must be")):
        with pytest.raises(ValueError, match=message):
            PretrainedClassifier(bert, label="happy", **settings)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r'pip install "textenvs\[agents\]"'):
        score(PretrainedClassifier(bert, label="happy"), ["a"])
