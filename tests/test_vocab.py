"""Vocabularies: round trips, fingerprints, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from textenvs import CharVocab, TokenizerVocab
from textenvs.pack_task import ASSETS
from textenvs.vocab import as_vocab, near_miss, printable


def bytes_tokenizer(path: Path, *, eos: str = "<|endoftext|>", gap: bool = False) -> Path:
    """A tokenizer file of the 256 bytes, `ab`, and an end token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: i for i, symbol in enumerate(alphabet)} | {"ab": 256}
    if gap:
        vocab["ab"] = 300
    tokenizer = Tokenizer(models.BPE(vocab, [("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if eos:
        tokenizer.add_special_tokens([eos])
    tokenizer.save(str(path))
    return path


@given(st.text("abc= ", max_size=50))
def test_characters_round_trip(text: str) -> None:
    vocab = CharVocab("abc= ")
    assert vocab.decode([*vocab.encode(text).tolist(), vocab.eos_id]) == text
    assert vocab.num_tokens == 6


def test_bytes_round_trip(tmp_path: Path) -> None:
    vocab = TokenizerVocab(bytes_tokenizer(tmp_path / "tokenizer.json"))
    for text in ("abba", "naïve café 日本 \x1b[31m", "", "a\nb\t"):
        assert vocab.decode([*vocab.encode(text).tolist(), vocab.eos_id]) == text
    assert vocab.encode("ab").tolist() == [256]
    assert (vocab.num_tokens, vocab.eos_id, vocab.bos_id) == (258, 257, None)
    assert as_vocab(tmp_path).sha256 == as_vocab(str(tmp_path / "tokenizer.json")).sha256 == vocab.sha256


SHIPPED = TokenizerVocab(ASSETS / "tokenizer.json")
NAMES = ["<|endoftext|>", "<|im_end|>", "<|im_start|>", "<s>", "</s>", "<bos>", "[EOS]", "<eos>"]


@given(st.lists(st.text(max_size=8) | st.sampled_from([*NAMES, "<|", "|>", " ", "\n"]), max_size=8).map("".join))
@example("134<|endoftext|>7")
def test_any_text_round_trips_also_one_with_the_names_of_special_tokens(text: str) -> None:
    ids = SHIPPED.encode(text).tolist()
    assert SHIPPED.eos_id not in ids
    assert SHIPPED.decode([*ids, SHIPPED.eos_id]) == text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("special", [True, False], ids=["special", "ordinary"])
def test_the_names_of_end_and_beginning_are_text(name: str, special: bool, tmp_path: Path) -> None:
    """Whatever white space the file says they swallow, and also where it does not mark them as special."""
    tokenizer = Tokenizer.from_file(str(bytes_tokenizer(tmp_path / "tokenizer.json", eos="")))
    added = [AddedToken(token, lstrip=True, rstrip=True) for token in dict.fromkeys([name, "<bos>"])]
    (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocab = TokenizerVocab(tmp_path, eos=name)
    assert vocab.token_id(name) == vocab.eos_id
    for text in (f"134 {name} 7", name, f"{name} {name}", f"a<bos>{name}b"):
        ids = vocab.encode(text).tolist()
        assert not {vocab.eos_id, vocab.bos_id} & set(ids)
        assert vocab.decode([*ids, vocab.eos_id]) == text


def test_a_text_that_only_a_special_token_spells_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"yes": 0, "no": 1, "<unk>": 2, "<eos>": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<unk>", "<eos>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocab = TokenizerVocab(tmp_path)
    assert vocab.encode("yes no").tolist() == [0, 1]
    for text, token in (("yes <eos> no", "<eos>"), ("maybe", "<unk>")):
        with pytest.raises(ValueError, match=f"without special tokens, .* got '{text}', .* has '{token}'; change"):
            vocab.encode(text)


def test_the_fingerprint_tells_vocabularies_of_equal_size_apart(tmp_path: Path) -> None:
    assert CharVocab("ab").sha256 != CharVocab("ba").sha256
    assert CharVocab("ab").sha256 == CharVocab("ab").sha256
    # sha256 of '[["a","b","<eos>"],2]', from coreutils: a golden value, so that saved policies stay readable
    assert CharVocab("ab").sha256 == "14359cfd9553ad4a894f4e4522d75be9522f30dbb9ae3e085b0e2ea840698d2f"


def test_token_ids() -> None:
    vocab = CharVocab("ab ")
    assert [vocab.token_id(t) for t in ("a", " ", "<eos>", 1)] == [0, 2, 3, 1]
    with pytest.raises(ValueError, match="'ab' which is 2"):
        vocab.token_id("ab")
    with pytest.raises(ValueError, match=r"\[0, 4\), got 4"):
        vocab.token_id(4)


@pytest.mark.parametrize("symbols", ["", "aa", 3, None])
def test_bad_symbols(symbols: Any) -> None:
    with pytest.raises(ValueError, match="distinct characters"):
        CharVocab(symbols)


def test_unknown_characters_are_named() -> None:
    with pytest.raises(ValueError, match="'z' in 'abz'"):
        CharVocab("ab").encode("abz")


def test_bad_tokenizer_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json' which does not exist"):
        as_vocab(tmp_path / "nowhere.json")
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps({"hello": 1}))
    with pytest.raises(ValueError, match="tokenizers JSON file"):
        as_vocab(broken)
    with pytest.raises(ValueError, match="must have an end token"):
        as_vocab(bytes_tokenizer(tmp_path / "a.json", eos=""))
    assert TokenizerVocab(bytes_tokenizer(tmp_path / "b.json", eos="<stop>"), eos="<stop>").eos_id == 257
    with pytest.raises(ValueError, match="gaps"):
        as_vocab(bytes_tokenizer(tmp_path / "c.json", gap=True))


def test_printable_escapes_what_drives_a_terminal() -> None:
    assert printable("ok é 日") == "ok é 日"
    assert printable("\x1b[2J\u202e\n") == "\\x1b[2J\\u202e\\n"
    assert printable("a\u3164\ufe0f\U000e0101\u200b\ud800b") == "a\\u3164\\ufe0f\\U000e0101\\u200b\\ud800b"


def test_near_miss() -> None:
    assert near_miss("coppy", ["copy", "sort"]) == "did you mean 'copy'? known: copy, sort"
    assert near_miss("zzz", ["copy", "sort"]) == "known: copy, sort"
    assert near_miss("coppy", ["copy", "sort"], instead="see there") == "did you mean 'copy'? see there"
