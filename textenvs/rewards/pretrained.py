"""Rewards by frozen Hugging Face models: the likelihood of a text, and what a classifier says of it.

Models are loaded at the first score, which is when torch and transformers are imported: in float32, from safetensors
alone, without remote code. A response scores the same in any batch within 1e-5, which is a forward's rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from textenvs.rewards.base import ProblemLike, Responses, Reward, RewardValueError, Scores
from textenvs.rewards.libraries import library
from textenvs.vocab import TokenizerVocab, Vocab, as_vocab, near_miss

#: Tokens of prompt and response that a language model reads at most, fewer where its context is shorter.
MAX_CONTEXT_TOKENS = 1024
#: Logits of one forward of a language model: 64 MB.
_MAX_LOGITS = 1 << 24
#: Tokens of one forward of a classifier.
_MAX_TOKENS = 1 << 13

_TINY_TOKENIZER = Path(__file__).parent.parent / "assets" / "tokenizer.json"


class LogProb(Reward):
    """Mean log-probability of the response's tokens, given the prompt, under a frozen language model. Range (-inf, 0].

    In nats a token: log p(response, end | prompt) / tokens. The end token counts when the response ended with it, or
    has no other. Texts are split by the model's own tokenizer. A prompt keeps its last half context, and of a response
    as much is read as the rest of the context holds (`MAX_CONTEXT_TOKENS` at most in all).

    Args:
        model: a directory or a hub id of a causal LM with safetensors weights; "tiny" is the shipped one.
        vocab: its tokenizer file or a Vocab; None takes tokenizer.json from beside the model.

    Withstands: the empty response where the prompt is no finished text, so that the end token is unlikely (-15 nats
    after "The movie"); rubbish, control characters. Does not withstand: the empty response after a finished sentence
    (-3.5 after "I love it!", where " was really good." has -4.9); repetition and stock phrases, which language models
    find likely (Holtzman et al. 2020, "The curious case of neural text degeneration", arXiv:1904.09751): add a weighted
    `RepetitionN`.
    """

    name = "log_prob"
    value_range = (-math.inf, 0.0)

    def __init__(self, model: str | Path = "tiny", *, vocab: str | Path | Vocab | None = None) -> None:
        self.model = str(model)
        self.vocab = None if vocab is None else as_vocab(vocab)

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`; agrees with a call for each response alone within 1e-5.

        Raises:
            RewardValueError: the model or its tokenizer cannot be loaded, or do not fit each other.
            ImportError: torch or transformers is not installed.
        """
        rows = [
            self._row(problem.prompt, text, ended=reason == "eos")
            for problem, text, reason in zip(problems, responses.texts, responses.finish_reasons, strict=True)
        ]
        values = np.empty(len(rows))
        for chunk in _chunks([len(ids) for ids, _ in rows], self._tokenizer.num_tokens):
            values[chunk] = self._mean_log_probs([rows[i] for i in chunk])
        return Scores(values, {self.name: values})

    def _row(self, prompt: str, text: str, *, ended: bool) -> tuple[list[int], int]:
        """Ids of what the model reads, and how many of them, from the first on, are only context."""
        vocab, context = self._tokenizer, self._context
        before = vocab.encode(_without_surrogates(prompt)).tolist()[-(context // 2) :]
        ids = vocab.encode(_without_surrogates(text)).tolist()
        if ended or not ids:
            ids.append(vocab.eos_id)
        if vocab.bos_id is not None or not before:
            before = [vocab.eos_id if vocab.bos_id is None else vocab.bos_id, *before]
        return (before + ids)[:context], len(before)

    def _mean_log_probs(self, rows: Sequence[tuple[list[int], int]]) -> list[float]:
        """Of R rows, in one forward."""
        torch = library("torch", self.name, "agents")
        width = max(len(ids) for ids, _ in rows)
        # What stands to the right of a token is never attended to, so that any id can fill the row.
        batch = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows])  # (R, L)
        with torch.inference_mode():
            logits = self._model(input_ids=batch, use_cache=False).logits[:, :-1]  # (R, L - 1, V)
            log_probs = logits.log_softmax(-1).gather(2, batch[:, 1:, None])[..., 0].double()  # (R, L - 1)
        return [
            float(row[start - 1 : len(ids) - 1].mean().clamp(max=0.0))
            for row, (ids, start) in zip(log_probs, rows, strict=True)
        ]

    @cached_property
    def _model(self) -> Any:
        model = _load_model("AutoModelForCausalLM", _tiny() if self.model == "tiny" else self.model, self.name)
        if model.config.vocab_size < self._tokenizer.num_tokens:
            raise RewardValueError(
                f"vocab must be the model's, got {self._tokenizer.num_tokens} tokens for {self.model!r}, which has "
                f"{model.config.vocab_size}; name the model's own tokenizer file"
            )
        return model

    @cached_property
    def _context(self) -> int:
        return min(MAX_CONTEXT_TOKENS, getattr(self._model.config, "max_position_embeddings", MAX_CONTEXT_TOKENS))

    @cached_property
    def _tokenizer(self) -> Vocab:
        if self.vocab is not None:
            return self.vocab
        if self.model == "tiny":
            return TokenizerVocab(_TINY_TOKENIZER)
        try:
            cached_file = library("transformers.utils", self.name, "agents").cached_file
            return TokenizerVocab(cached_file(self.model, "tokenizer.json"))
        except (OSError, ValueError) as error:
            raise RewardValueError(
                f"vocab must be given when {self.model!r} has no tokenizer.json that can be used "
                f"({str(error).splitlines()[0]}); pass LogProb(model, vocab=path)"
            ) from error


class PretrainedClassifier(Reward):
    """What a sequence classifier says of prompt and response: P(label), range [0, 1], or its logit, (-inf, inf).

    Args:
        model: a directory or a hub id of a sequence-classification model with safetensors weights and its tokenizer.
        label: one of the model's labels, by its name in `id2label`.
        output: "probability" (softmax over the labels, or a sigmoid where the model's labels do not exclude each other)
            or "logit", which is what reward models with a single label have.
        with_prompt: whether the text is prompt + response, as a reader would see it, or the response alone.
        max_tokens: tokens of a text that are read, from its beginning; fewer where the model's own limit is lower.

    Withstands: what the model does. Texts of any length and any characters are read. Does not withstand: whatever the
    model was not trained on; hold it against a judge that nobody trained on (`textenvs evaluate --judge`).
    """

    def __init__(
        self,
        model: str | Path,
        *,
        label: str,
        output: str = "probability",
        with_prompt: bool = True,
        max_tokens: int = 512,
    ) -> None:
        if output not in ("probability", "logit"):
            raise ValueError(f"output must be 'probability' or 'logit', got {output!r}")
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
            raise ValueError(f"max_tokens must be an int of at least 1, got {max_tokens!r}")
        self.model, self.label, self.output = str(model), label, output
        self.with_prompt, self.max_tokens = with_prompt, max_tokens
        self.name = label
        self.value_range = (0.0, 1.0) if output == "probability" else (-math.inf, math.inf)

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`; agrees with a call for each response alone within 1e-5.

        Raises:
            RewardValueError: the model cannot be loaded, or has no such label.
            ImportError: torch or transformers is not installed.
        """
        torch = library("torch", self.name, "agents")
        pairs = zip(problems, responses.texts, strict=True)
        rows = [self._ids(problem.prompt + text if self.with_prompt else text) for problem, text in pairs]
        values = np.empty(len(rows))
        for chunk in self._chunks(rows):
            batch = torch.tensor([rows[i] for i in chunk])  # (R, L)
            with torch.inference_mode():
                logits = self._model(input_ids=batch, attention_mask=torch.ones_like(batch)).logits.double()
            values[chunk] = self._output(logits).numpy()  # (R,)
        return Scores(values, {self.name: values})

    def _ids(self, text: str) -> list[int]:
        config = self._model.config
        context = getattr(config, "max_position_embeddings", self.max_tokens)
        limit = min(self.max_tokens, self._tokenizer.model_max_length, context)
        ids: list[int] = self._tokenizer(_without_surrogates(text), truncation=True, max_length=limit)["input_ids"]
        # A tokenizer without special tokens makes nothing of "", which no model can read.
        return ids or [self._tokenizer.eos_token_id or 0]

    def _chunks(self, rows: Sequence[Sequence[int]]) -> list[list[int]]:
        """Rows of equal length together: models do not agree on the side, the id and the mask of padding."""
        by_length: dict[int, list[int]] = {}
        for i, ids in enumerate(rows):
            by_length.setdefault(len(ids), []).append(i)
        # A decoder without a padding id looks for the last token of a single row only.
        at_once = {n: max(1, _MAX_TOKENS // n) if self._model.config.pad_token_id is not None else 1 for n in by_length}
        return [same[i : i + at_once[n]] for n, same in by_length.items() for i in range(0, len(same), at_once[n])]

    def _output(self, logits: Any) -> Any:
        """The label's column (R,) of logits (R, labels), or its probability."""
        if self.output == "logit":
            return logits[:, self._column]
        if self._model.config.problem_type == "multi_label_classification":
            return logits.sigmoid()[:, self._column]
        return logits.softmax(-1)[:, self._column]

    @cached_property
    def _model(self) -> Any:
        return _load_model("AutoModelForSequenceClassification", self.model, self.name)

    @cached_property
    def _tokenizer(self) -> Any:
        try:
            tokenizer = library("transformers", self.name, "agents").AutoTokenizer
            found = tokenizer.from_pretrained(self.model, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise RewardValueError(
                f"model must come with its tokenizer, got {self.model!r}: {str(error).splitlines()[0]}; save it there"
            ) from error
        # Without its files, transformers makes up a tokenizer that has the special tokens only.
        if not len(found.all_special_tokens) < len(found) <= self._model.config.vocab_size:
            raise RewardValueError(
                f"model must come with its tokenizer, got {self.model!r} with {len(found)} tokens for a vocabulary of "
                f"{self._model.config.vocab_size}; save it there"
            )
        return found

    @cached_property
    def _column(self) -> int:
        labels = {name: int(column) for column, name in self._model.config.id2label.items()}
        if self.label not in labels:
            raise RewardValueError(
                f"label must be one of {self.model!r}, got {self.label!r}; {near_miss(self.label, list(labels))}"
            )
        if len(labels) == 1 and self.output == "probability":
            raise RewardValueError(
                f"output must be 'logit' for a model with a single label, got 'probability' for {self.model!r}: it "
                "would be 1 for any text"
            )
        return labels[self.label]


def _load_model(kind: str, name: str, reward: str) -> Any:
    """A model ready for inference; each is loaded once.

    Args:
        kind: the class of transformers that loads it, such as "AutoModelForCausalLM".
        name: a directory, or a hub id, which is looked up in the cache alone where HF_HUB_OFFLINE is set.
        reward: the name of the reward that needs it, for errors.

    Raises:
        RewardValueError: there is no such model, it has no safetensors weights, or they are not all there: a head that
            was never trained would score at random.
        ImportError: torch or transformers is not installed.
    """
    for module in ("torch", "transformers"):
        library(module, reward, "agents")
    return _loaded(kind, name)


@cache
def _loaded(kind: str, name: str) -> Any:
    torch, transformers = library("torch", kind, "agents"), library("transformers", kind, "agents")
    _check_name(name)
    with _silence(transformers):
        try:
            model, info = getattr(transformers, kind).from_pretrained(
                name,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are in `info`, and refused
            )
        except (OSError, ValueError) as error:
            raise RewardValueError(
                f"model must be a directory or a hub id with safetensors weights, got {name!r}: "
                f"{str(error).splitlines()[0]}; check the name and the network"
            ) from error
    absent = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if absent:
        raise RewardValueError(
            f"model must have all weights that {kind} needs, got {name!r} without {', '.join(absent[:3])}; "
            "name a model that was trained for this"
        )
    return model.eval().requires_grad_(False)


def _check_name(name: str) -> None:
    """Refuse a path that does not exist, which the hub would be asked for otherwise."""
    if (Path(name).is_absolute() or name.startswith(".")) and not Path(name).is_dir():
        raise RewardValueError(
            f"model must be a directory or a hub id, got {name!r}, which does not exist; check the path"
        )


def _without_surrogates(text: str) -> str:
    """`text` with lone surrogates replaced by question marks: tokenizers refuse them."""
    return text.encode("utf-8", "replace").decode("utf-8")


@contextmanager
def _silence(transformers: Any) -> Iterator[None]:
    """No bars, and no report of what did not fit, which is refused in one sentence."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _chunks(lengths: Sequence[int], num_tokens: int) -> list[list[int]]:
    """Rows by length, in chunks whose logits stay below `_MAX_LOGITS`; at least one row each."""
    chunks: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if chunks and (len(chunks[-1]) + 1) * lengths[i] * num_tokens <= _MAX_LOGITS:
            chunks[-1].append(i)
        else:
            chunks.append([i])
    return chunks


def _tiny() -> str:
    """The directory of the shipped model, which comes with the agents."""
    spec = find_spec("agents")
    folder = Path(spec.origin).parent / "assets" / "tiny" if spec is not None and spec.origin else None
    if folder is None or not folder.is_dir():
        raise RewardValueError(
            "model must be a directory or a hub id, got 'tiny', which is not installed; name a model"
        )
    return str(folder)
