"""Sentences from patterns and names, and other short utterances: numbers, codes, sums, words, single names."""

import random
import re
from functools import cache
from pathlib import Path

from . import numbers
from .names import Names, vocabulary

_CHOICE = re.compile(r"\[([^][]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_CARRIERS = """
请跟我读X
X是什么意思？
你知道X怎么写吗？
老师让我用X造句
请解释一下X这个词
她不认识X这个词
今天我们学习X
他在本子上写了X
黑板上写着X
这个词念X
X和Y
关于X的问题
请写出X这个词
书里提到了X
字典里有X吗？
""".split()
# N is any number, S a small one, C one before a measure word, D digits one by one.
_AMOUNTS = """
N
N
N块钱
N公里
N平方米
N个人
N万吨
N亿元
第S
第S名
C公斤
百分之S
占百分之S
下降百分之S
增长了百分之S
N加N等于几？
N减S是多少？
S乘以S等于多少？
比分是S比S
考了S分
D
D
编号D
房间号是D
验证码是D
电话号码是D
车牌尾号D
密码是D，请记好
""".split()
_LONE = ("PERSON_NAME", "LOCATION", "ORGANIZATION", "SONG_NAME", "DATE", "TIME", "TEMPERATURE")


@cache
def patterns() -> list[str]:
    """The patterns of templates.txt."""
    lines = Path(__file__).with_name("templates.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def mark(name: str, kind: str) -> str:
    """Enclose a name in its markers."""
    return f"ENTITY_{kind}{name}END"


def template(rng: random.Random, names: Names) -> str:
    """Make a command, question or statement with names."""
    pattern = rng.choice(patterns())
    while _CHOICE.search(pattern):
        pattern = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), pattern, count=1)
    plain = {"count": numbers.count, "number": numbers.small, "figures": numbers.spoken_digits}
    return _SLOT.sub(
        lambda match: plain[match[1]](rng) if match[1] in plain else mark(names.draw(match[1]), match[1]), pattern
    )


def lone_name(rng: random.Random, names: Names) -> str:
    """Make a name, date, time or temperature alone, as in an answer."""
    kind = rng.choice(_LONE)
    return mark(names.draw(kind), kind)


def amount(rng: random.Random) -> str:
    """Make a number, a code or a sum."""
    kinds = {"N": numbers.quantity, "S": numbers.small, "C": numbers.count, "D": numbers.spoken_digits}
    text = re.sub("[NSCD]", lambda match: kinds[match[0]](rng), rng.choice(_AMOUNTS))
    return re.sub("^二(?=[块公平个万亿])", "两", text)


def carrier(rng: random.Random, word: str, other: str) -> str:
    """Make a sentence that mentions a word, sometimes another too; rarely the word alone."""
    if rng.random() < 0.1:
        return word
    return rng.choice(_CARRIERS).replace("X", word).replace("Y", other)


def word(rng: random.Random) -> str:
    """Draw a word that is not a name."""
    return vocabulary().draw(rng)[0]
