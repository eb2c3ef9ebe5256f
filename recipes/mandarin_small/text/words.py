"""Words: jieba's dictionary (MIT), with the names of the catalogue added."""

import logging
from collections import defaultdict
from configparser import ConfigParser
from functools import cache
from pathlib import Path

import jieba
import jieba.posseg

_LISTS = ConfigParser(interpolation=None)
_LISTS.optionxform = str  # type: ignore[assignment, method-assign] # keys as they are written
_LISTS.read_string(Path(__file__).with_name("names.ini").read_text(encoding="utf-8"))
CATALOGUE = {kind: names.split() for kind, names in _LISTS["catalogue"].items()}
_PLAIN = {kind: frozenset(words.split()) for kind, words in _LISTS["plain sentences"].items()}
AMBIGUOUS, NO_NAMES = _PLAIN["ambiguous"], _PLAIN["no names"]
SURNAME_READINGS = dict(_LISTS["surnames"])
SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖贾夏韦"
    "付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严武戴莫孔向汤"
)
# Names that are recognised in any context -> entity type.
KNOWN: dict[str, str] = {
    **dict.fromkeys(sorted(_PLAIN["places"]), "LOCATION"),
    **dict.fromkeys(sorted(_PLAIN["organisations"]), "ORGANIZATION"),
    **dict.fromkeys(sorted(_PLAIN["first names"]), "PERSON_NAME"),
    **{
        name: kind
        for kind in ("PERSON_NAME", "LOCATION", "ORGANIZATION")
        for name in CATALOGUE[kind]
        if name not in AMBIGUOUS
    },
}


@cache
def _tokenizer() -> jieba.Tokenizer:
    jieba.setLogLevel(logging.WARNING)  # it prints how long it took to load
    tokenizer = jieba.Tokenizer()
    for name in KNOWN:
        tokenizer.add_word(name)
    return tokenizer


@cache
def _tagger() -> jieba.posseg.POSTokenizer:
    return jieba.posseg.POSTokenizer(_tokenizer())


def split(text: str) -> list[str]:
    """Split a text without markers into words."""
    return list(_tokenizer().cut(text))


def tag(text: str) -> list[tuple[str, str]]:
    """Split a text without markers into words of the dictionary, with jieba's parts of speech."""
    return [(word.word, word.flag) for word in _tagger().lcut(text, HMM=False)]


@cache
def dictionary() -> dict[str, list[tuple[str, int]]]:
    """Part of speech -> words of 2 to 5 characters of GB 2312 and their frequencies, at least 3."""
    words: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for line in (Path(jieba.__file__).parent / "dict.txt").read_text(encoding="utf-8").splitlines():
        word, frequency, part = line.split()
        if 2 <= len(word) <= 5 and int(frequency) >= 3 and level(word):
            words[part].append((word, int(frequency)))
    return dict(words)


def level(text: str) -> int:
    """Lowest level of GB 2312 with all characters of a text: 1 (3,755 frequent ones), 2 (3,008 more), 0 for none."""
    try:
        first = [character.encode("gb2312")[0] for character in text]
    except UnicodeEncodeError:
        return 0
    if not all(0xB0 <= byte <= 0xF7 for byte in first):
        return 0
    return 1 if all(byte <= 0xD7 for byte in first) else 2


@cache
def characters() -> tuple[str, ...]:
    """The characters of GB 2312, those of level 1 first."""
    codes = (bytes([high, low]).decode("gb2312", "ignore") for high in range(0xB0, 0xF8) for low in range(0xA1, 0xFF))
    return tuple(filter(None, codes))
