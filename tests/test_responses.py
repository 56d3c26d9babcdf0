"""Files of responses that a warm start imitates: three forms, and lines that no env could have played."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import textenvs
from agents.responses import read_responses
from agents.sft import SFTConfig, sft

WALK = SFTConfig("textenvs/RandomWalk-v0", num_epochs=2)


def write(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_three_ways_to_write_the_same_file(tmp_path: Path) -> None:
    rules = textenvs.Rules("random_walk")
    texts = {
        "tabs.txt": "c\teoa\n\n  \nf\ta\r\n",
        "plain.txt": "\ufeffceoa\nfa",
        "lines.jsonl": '{"id": 0, "prompt": "c", "response": "eoa"}\n{"prompt": "f", "response": "a"}\n',
    }
    for name, text in texts.items():
        one, two = read_responses(write(tmp_path / name, text), rules)
        assert one.row.tolist() == [2, 4, 14, 0, 21, *[22] * 5]
        assert (one.actions, one.positions) == ([4, 14, 0, 21], [1, 2, 3, 4])
        assert two.actions == [0, 21]
        np.testing.assert_array_equal(one.legal[1][:21], rules.task.edges[4])


def test_a_response_that_fills_the_budget_has_no_end_token(tmp_path: Path) -> None:
    rules = textenvs.Rules("copy", length=2)
    (episode,) = read_responses(write(tmp_path / "a.txt", "ab=\tabc"), rules)
    assert episode.actions == [0, 1, 2]


def test_a_stop_token_ends_a_response(tmp_path: Path) -> None:
    rules = textenvs.Rules("copy", length=4, stop=["h"])
    (episode,) = read_responses(write(tmp_path / "a.txt", "ab=\tah"), rules)
    assert episode.actions == [0, 7]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "", "a.txt must hold at least one response, got none"),
        ("a.txt", "\n \n", "a.txt must hold at least one response, got none"),
        ("a.txt", "fa\nc\teoaeoaeoaa\n", "a.txt:2: response must be at most 9 tokens, got 10 in 'c.*eoaeoaeoaa'"),
        ("a.txt", "fa\n\ncZa\n", "a.txt:3: text must be spelt with the symbols '.*', got 'Z' in 'cZa'"),
        ("a.txt", "c\tea\n", "a.txt:1: response must keep to the env's masks, got 'a' as token 2 after the prompt 'c'"),
        ("a.txt", "c\teo\n", "got '<eos>' as token 3 after the prompt 'c'"),
        ("a.txt", "ab\ta\n", "a.txt:1: prompt must be one node other than the goal, .*, got 'ab'"),
        ("a.jsonl", '{"prompt": "c"}', 'a.jsonl:1: line must be a JSON object with the texts "prompt" and "response"'),
        ("a.jsonl", '{"prompt": "c", "response": 5}', "a.jsonl:1: line must be a JSON object"),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1: line must be JSON, .* at most 128 levels"),
        ("a.jsonl", "[1]", "a.jsonl:1: line must be a JSON object"),
    ],
)
def test_lines_that_cannot_be_imitated(name: str, content: str, words: str, tmp_path: Path) -> None:
    config = replace(WALK, text_file=write(tmp_path / name, content))
    with pytest.raises(ValueError, match=words):
        sft(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_other_files_that_cannot_be_imitated(tmp_path: Path) -> None:
    rules = textenvs.Rules("copy", stop=["h"])
    with pytest.raises(ValueError, match=r"a.txt:1: response must end where .* got 3 tokens .* number 2"):
        read_responses(write(tmp_path / "a.txt", "ab=\tahb"), rules)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"latin.txt:1: line must be UTF-8, got 0xe9 as byte \d"):
        read_responses(tmp_path / "latin.txt", rules)
    with pytest.raises(FileNotFoundError):
        read_responses(tmp_path / "nowhere.txt", rules)
