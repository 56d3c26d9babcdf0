"""Symbols to ids and back, with an end-of-sequence id.

A `Vocab` is the only place where text and token ids meet. It knows nothing of prompts, tasks or padding.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

# What tokenizer files call the end and the beginning of a sequence, most specific first.
_EOS_NAMES = ("<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "<eos>", "</s>", "<|eos|>", "[EOS]")
_BOS_NAMES = ("<|begin_of_text|>", "<bos>", "<s>", "<|bos|>", "[BOS]")
# Python calls these printable, but nothing is drawn: joiners, fillers, variation selectors, the blank of Braille.
_UNSEEN = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)


class Vocab(ABC):
    """A fixed table of `num_tokens` tokens, ids 0 to num_tokens - 1; one of them, `eos_id`, ends a sequence."""

    tokens: tuple[str, ...]
    eos_id: int
    bos_id: int | None = None

    @property
    def num_tokens(self) -> int:
        """V, the number of ids, end token included."""
        return len(self.tokens)

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of the table (tokens in id order, end id): equal sizes do not mean equal vocabularies."""
        table = json.dumps([list(self.tokens), self.eos_id], ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(table.encode("utf-8", "surrogatepass")).hexdigest()

    @abstractmethod
    def encode(self, text: str) -> IntArray:
        """Ids (L,) of `text`, without begin or end tokens.

        Raises:
            ValueError: `text` holds something that no token spells.
        """

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; the end token and other special tokens spell nothing."""

    def decode_rows(self, rows: IntArray, lengths: IntArray) -> list[str]:
        """Texts of B rows (B, T), the first `lengths` (B,) ids of each."""
        return [self.decode(ids[:n]) for ids, n in zip(rows.tolist(), lengths.tolist(), strict=True)]

    def __deepcopy__(self, memo: dict[int, Any]) -> Vocab:
        """A table never changes, so Gymnasium's copies of a spec share it."""
        return self

    def token_id(self, token: int | str) -> int:
        """Id of a token given as an id or as a string that is exactly one token.

        Raises:
            ValueError: the id is out of range, or the string is not one token.
        """
        if isinstance(token, str):
            ids = [self.tokens.index(token)] if token in self.tokens else self.encode(token).tolist()
            if len(ids) != 1:
                raise ValueError(f"token must be a single token, got {token!r} which is {len(ids)}; give its ids")
            return int(ids[0])
        if isinstance(token, bool) or not isinstance(token, (int, np.integer)) or not 0 <= token < self.num_tokens:
            raise ValueError(f"token must be an id in [0, {self.num_tokens}), got {token!r}; give an id or a symbol")
        return int(token)


class CharVocab(Vocab):
    """One token a character; the id after the last one ends the sequence.

    Args:
        symbols: distinct characters, at least one; the ids follow their order.
    """

    def __init__(self, symbols: str) -> None:
        if not isinstance(symbols, str) or not symbols or len(set(symbols)) != len(symbols):
            raise ValueError(f"symbols must be distinct characters, got {symbols!r}; give each one once")
        self.tokens = (*symbols, "<eos>")
        self.eos_id = len(symbols)
        self._ids = {symbol: i for i, symbol in enumerate(symbols)}
        self._texts = (*symbols, "")
        self._codes = np.array([*map(ord, symbols), 0], dtype=np.uint32)

    def encode(self, text: str) -> IntArray:
        """See `Vocab.encode`."""
        try:
            return np.array([self._ids[symbol] for symbol in text], dtype=np.int64)
        except KeyError as error:
            symbols = "".join(self._ids)
            raise ValueError(
                f"text must be spelt with the symbols {symbols!r}, got {error.args[0]!r} in {text[:80]!r}; "
                "change the text or the alphabet"
            ) from None

    def decode(self, ids: Iterable[int]) -> str:
        """See `Vocab.decode`."""
        texts = self._texts
        return "".join([texts[i] for i in ids])

    def decode_rows(self, rows: IntArray, lengths: IntArray) -> list[str]:
        """See `Vocab.decode_rows`."""
        if len(rows) == 1:  # faster than by arrays
            return [self.decode(rows[0, : lengths[0]].tolist())]
        if not self._codes[:-1].all():  # NumPy ends a text at character 0
            return super().decode_rows(rows, lengths)
        used = np.arange(rows.shape[1]) < lengths[:, None]
        codes = self._codes[np.where(used, rows, self.eos_id)]
        texts: list[str] = codes.view(f"U{rows.shape[1]}")[:, 0].tolist()
        if (used & (codes == 0)).any():  # the end token of a turn
            texts = [text.replace("\0", "") for text in texts]
        return texts


class TokenizerVocab(Vocab):
    """A Hugging Face `tokenizers` file (tokenizer.json).

    A special token is an action and never text: what looks like one in a text, such as `<|endoftext|>`, is spelt with
    ordinary tokens.

    Args:
        path: the file, or a directory that holds tokenizer.json.
        eos: the end token as the file spells it; None looks for a usual one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a tokenizer file, ids with gaps, or no end token.
    """

    def __init__(self, path: str | Path, *, eos: str | None = None) -> None:
        from tokenizers import Tokenizer  # 10 ms that string tasks never need

        file = Path(path)
        file = file / "tokenizer.json" if file.is_dir() else file
        if not file.is_file():
            raise FileNotFoundError(f"vocab must be a tokenizer file, got {str(path)!r} which does not exist")
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises bare Exception
            raise ValueError(f"vocab must be a tokenizers JSON file, got {str(path)!r}: {error}") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        ids: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        if sorted(ids.values()) != list(range(len(ids))):
            raise ValueError(f"vocab must number its tokens 0 to {len(ids) - 1}, got gaps in {str(path)!r}; rebuild it")
        self.tokens = tuple(sorted(ids, key=ids.__getitem__))
        names = _EOS_NAMES if eos is None else (eos,)
        end = next((ids[name] for name in names if name in ids), None)
        if end is None:
            raise ValueError(
                f"vocab must have an end token, one of {', '.join(names)}, got none in {str(path)!r}; "
                'add one to the file or name it with TokenizerVocab(path, eos="...")'
            )
        self.eos_id = end
        self.bos_id = next((ids[name] for name in _BOS_NAMES if name in ids), None)
        self._tokenizer.add_special_tokens([self.tokens[i] for i in (end, self.bos_id) if i is not None])
        self._tokenizer.encode_special_tokens = True
        added = self._tokenizer.get_added_tokens_decoder()
        self._silent = frozenset(i for i, token in added.items() if token.special)

    def encode(self, text: str) -> IntArray:
        """See `Vocab.encode`."""
        try:
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError:
            raise ValueError(f"text must be valid Unicode without lone surrogates, got {text[:80]!a}") from None
        if not self._silent.isdisjoint(ids):
            token = next(self.tokens[i] for i in ids if i in self._silent)
            raise ValueError(
                f"text must be spelt without special tokens, which spell nothing, got {text[:80]!a}, for which the "
                f"tokenizer has {token!r}; change the text or take another tokenizer"
            )
        return np.array(ids, dtype=np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """See `Vocab.decode`."""
        return str(self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True))


def as_vocab(vocab: Vocab | str | Path) -> Vocab:
    """A `Vocab` as given, or the tokenizer file at a path."""
    if isinstance(vocab, Vocab):
        return vocab
    if isinstance(vocab, (str, Path)):
        return TokenizerVocab(vocab)
    raise TypeError(f"vocab must be None, a path or a Vocab, got {type(vocab).__name__}; see textenvs.CharVocab")


def printable(text: str) -> str:
    """`text` with control, format, bidirectional and unseen characters escaped: output must not drive a terminal."""
    return "".join(c if c.isprintable() and c not in _UNSEEN else c.encode("unicode_escape").decode() for c in text)


def near_miss(word: str, known: Sequence[str], *, instead: str | None = None) -> str:
    """The end of an error on an unknown name: the closest known name if one is close, then all, or `instead` of all."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    rest = "known: " + ", ".join(sorted(known)) if instead is None else instead
    return (f"did you mean {close[0]!r}? " if close else "") + rest
