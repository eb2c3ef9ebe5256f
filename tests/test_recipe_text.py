"""The recipe's first step: sentences, their pronunciation and who speaks them."""

import gzip
from dataclasses import replace

import pytest

from mandarin_small.utterance import Utterance, read_utterances, write_utterances

UTTERANCE = Utterance(
    id=7,
    text="去ENTITY_LOCATION北京END吧",
    phonemes="ʨʰy↘ pei↓ʨi→ŋ pa.",
    voice=(("zf_xiaobei", 0.6), ("af_sky", 0.4)),
    speed=1.1,
    child=1.0,
    age="NONE",
    gender="GENDER_FEMALE",
    dialect="DIALECT_NORTH",
    source="template",
)

# The file that the steps share


def test_utterances_come_back_and_the_same_ones_make_the_same_bytes(tmp_path):
    utterances = [UTTERANCE, replace(UTTERANCE, id=8, gender=None, child=1.3, set="open")]
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_utterances(tmp_path / name, utterances)
    assert list(read_utterances(tmp_path / "a.jsonl.gz")) == utterances
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    first, second = gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()).decode().splitlines()
    assert '"set"' not in first and '"set":"open"' in second
    assert (UTTERANCE.spoken, UTTERANCE.speaker) == ("去北京吧", "zf_xiaobei*0.6+af_sky*0.4")


@pytest.mark.parametrize("line", ["{", "[]", '{"id": 1}', '"text"', "[1]"])
def test_a_line_that_is_no_utterance_is_named(tmp_path, line):
    path = tmp_path / "u.jsonl.gz"
    write_utterances(path, [UTTERANCE])
    path.write_bytes(path.read_bytes() + gzip.compress(line.encode() + b"\n"))
    with pytest.raises(ValueError, match=r"u\.jsonl\.gz, line 2: no utterance"):
        list(read_utterances(path))


def test_a_file_that_was_cut_off_says_so(tmp_path):
    path = tmp_path / "u.jsonl.gz"
    write_utterances(path, [UTTERANCE] * 500)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="make it again"):
        list(read_utterances(path))
    path.write_bytes(b"no gzip")
    with pytest.raises(OSError, match="gzip"):
        list(read_utterances(path))


def test_what_is_interrupted_leaves_the_old_file(tmp_path):
    path = tmp_path / "u.jsonl.gz"
    write_utterances(path, [UTTERANCE])

    def interrupted():
        yield UTTERANCE
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_utterances(path, interrupted())
    assert list(read_utterances(path)) == [UTTERANCE]
