"""
Mandarin sentences to be spoken: commands and questions with entities, and variations of given transcripts.

Names come from a catalogue (names.py) or, like all other words, from jieba's dictionary (MIT). Every sentence is drawn
from a `random.Random`, so a seed gives a corpus.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import jieba
import jieba.posseg

from names import CATALOGUE

HAN = re.compile("[\u4e00-\u9fff]+")
# Parts of speech whose words stand in for one another without breaking a sentence: nouns, verbs, adjectives, names.
EXCHANGEABLE = {"n", "v", "a", "vn", "nz", "ns", "nr", "nt", "i", "l", "z", "b", "t"}
_DIGITS = "零一二三四五六七八九"
SURNAMES = set(
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖贾夏韦"
    "付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严武戴莫孔向汤"
)

# What is said to an assistant, asked, or read in the news. {SLOT} becomes ENTITY_<SLOT> ... END.
TEMPLATES = """
播放{SONG_NAME}
来一首{SONG_NAME}
我想听{SONG_NAME}
请给我放一首{SONG_NAME}
帮我找一下{SONG_NAME}这首歌
音乐搜索{SONG_NAME}
下一首换成{SONG_NAME}吧
单曲循环{SONG_NAME}
我要听{PERSON_NAME}的{SONG_NAME}
放一首{PERSON_NAME}唱的{SONG_NAME}
{SONG_NAME}是谁唱的
{PERSON_NAME}唱过{SONG_NAME}吗
{PERSON_NAME}有什么好听的歌
{PERSON_NAME}出演的电影有什么
{PERSON_NAME}和{PERSON_NAME}主演的电视剧有什么
{PERSON_NAME}导演的作品有哪些
{PERSON_NAME}是什么时候出生的
打电话给{PERSON_NAME}
给{PERSON_NAME}发一条短信
提醒我{TIME}给{PERSON_NAME}回电话
{PERSON_NAME}今年多大了
{PERSON_NAME}对记者说
记者从{ORGANIZATION}了解到
{ORGANIZATION}的总部在哪里
{ORGANIZATION}在{DATE}发布公告
{ORGANIZATION}负责人{PERSON_NAME}表示
{PERSON_NAME}加入了{ORGANIZATION}
{ORGANIZATION}位于{LOCATION}
{PERSON_NAME}{DATE}抵达{LOCATION}
据{ORGANIZATION}介绍
{ORGANIZATION}的股价今天上涨了
查一下{ORGANIZATION}的电话
导航到{LOCATION}
我要去{LOCATION}怎么走
从{LOCATION}到{LOCATION}要多久
附近有没有去{LOCATION}的公交车
{LOCATION}有什么好吃的
{LOCATION}的景点有什么
{LOCATION}今天天气怎么样
{LOCATION}{DATE}会下雨吗
{LOCATION}明天最高气温{TEMPERATURE}
{LOCATION}现在的温度是{TEMPERATURE}
帮我订一张{DATE}去{LOCATION}的机票
{DATE}从{LOCATION}出发的火车票还有吗
我{DATE}要去{LOCATION}出差
{LOCATION}的房价是多少
他出生在{LOCATION}
{LOCATION}和{LOCATION}哪个更大
把空调调到{TEMPERATURE}
请帮我把温度设定为{TEMPERATURE}
室内温度是{TEMPERATURE}
水温不要超过{TEMPERATURE}
今天夜里最低{TEMPERATURE}
烤箱预热到{TEMPERATURE}
孩子发烧到{TEMPERATURE}了
{TIME}叫我起床
定一个{TIME}的闹钟
{TIME}提醒我开会
会议改到{DATE}{TIME}
{DATE}{TIME}有一场比赛
电影{TIME}开始
请在{TIME}之前到达{LOCATION}
火车{TIME}到站
{DATE}是星期几
{DATE}是什么节日
{DATE}的会议取消了
{DATE}我们一起去{LOCATION}吧
这件事发生在{DATE}
他的生日是{DATE}
合同从{DATE}起生效
{PERSON_NAME}将于{DATE}在{LOCATION}举办演唱会
{DATE}的气温达到{TEMPERATURE}
{ORGANIZATION}计划在{LOCATION}开设分店
{LOCATION}的{ORGANIZATION}几点关门
""".split()


@dataclass(frozen=True)
class Sentence:
    """
    One sentence.

    Args:
        text: what is written, with `ENTITY_<TYPE>` and `END` glued to the characters they enclose.
        kind: `read` (a given transcript), `varied` (one with words exchanged) or `template`.
    """

    text: str
    kind: str

    @property
    def spoken(self) -> str:
        """What is said: the text without markers."""
        return re.sub("ENTITY_[A-Z_]+|END", "", self.text)


@cache
def dictionary() -> dict[str, tuple[list[str], list[int]]]:
    """Part of speech -> words of 2 to 5 frequent characters (level 1 of GB 2312), and their frequencies."""
    words: dict[str, tuple[list[str], list[int]]] = defaultdict(lambda: ([], []))
    for line in (Path(jieba.__file__).parent / "dict.txt").read_text(encoding="utf-8").splitlines():
        word, frequency, part = line.split()
        if 2 <= len(word) <= 5 and HAN.fullmatch(word) and int(frequency) >= 3 and all(map(_is_frequent, word)):
            words[part][0].append(word)
            words[part][1].append(int(frequency))
    return dict(words)


def _is_frequent(character: str) -> bool:
    try:
        return 0xB0 <= character.encode("gb2312")[0] <= 0xD7
    except UnicodeEncodeError:
        return False


@dataclass
class SentenceMaker:
    """
    Draws sentences; of a few candidates it prefers the word whose rarest character it has used least.

    Args:
        rng: where all chance comes from.
        transcripts: sentences to vary.
        catalogue: share of the names that come from the catalogue; the others are any of the dictionary's.
    """

    rng: random.Random
    transcripts: list[str]
    catalogue: float = 0.6
    _used: Counter = field(default_factory=Counter)
    _pools: dict = field(default_factory=dict)

    def template(self) -> Sentence:
        """A command, question or statement with entities."""
        text = re.sub(r"\{(\w+)\}", self._fill, self.rng.choice(TEMPLATES))
        return Sentence(text, "template")

    def varied(self) -> Sentence:
        """A transcript in which about half of the words have given way to others of their kind and length."""
        words = jieba.posseg.lcut(self.rng.choice(self.transcripts), HMM=False)
        return Sentence("".join(self._exchanged(word.word, word.flag) for word in words), "varied")

    def _exchanged(self, word: str, part: str) -> str:
        if part not in EXCHANGEABLE or len(word) < 2 or self.rng.random() < 0.4:
            return word
        return self._word(part, len(word)) or word

    def _fill(self, match: re.Match) -> str:
        if match[1] in CATALOGUE and self.rng.random() < self.catalogue:
            return f"ENTITY_{match[1]}{self._rarest(self.rng.choices(CATALOGUE[match[1]], k=2))}END"
        slots: dict[str, Callable[[], str]] = {
            "SONG_NAME": self._song,
            "PERSON_NAME": self._person,
            "LOCATION": lambda: self._word("ns"),
            "ORGANIZATION": lambda: self._word("nt"),
            "DATE": self._date,
            "TIME": self._time,
            "TEMPERATURE": self._temperature,
        }
        return f"ENTITY_{match[1]}{slots[match[1]]()}END"

    def _word(self, part: str, length: int | None = None, candidates: int = 2) -> str:
        if (part, length) not in self._pools:
            words, frequencies = dictionary().get(part, ([], []))
            fitting = [i for i, word in enumerate(words) if length in (None, len(word))]
            # Less than proportional to frequency, so that rarer words are heard too.
            self._pools[part, length] = [words[i] for i in fitting], [frequencies[i] ** 0.75 for i in fitting]
        words, weights = self._pools[part, length]
        if not words:
            return ""
        return self._rarest(self.rng.choices(words, weights, k=candidates))

    def _rarest(self, drawn: list[str]) -> str:
        word = min(drawn, key=lambda word: min(self._used[character] for character in word))
        self._used.update(word)
        return word

    def _song(self) -> str:
        return self._word(self.rng.choice(["n", "i", "l", "v", "a", "t", "nz"]))

    def _person(self) -> str:
        name = self._word("nr", self.rng.choice([2, 3, 3, 3]))
        if name[0] in SURNAMES:
            return name
        return self.rng.choice(sorted(SURNAMES)) + name[-2 if self.rng.random() < 0.7 else -1 :]

    def _date(self) -> str:
        month, day = number(self.rng.randint(1, 12)), number(self.rng.randint(1, 31))
        year = "".join(_DIGITS[int(digit)] for digit in str(self.rng.randint(1949, 2035)))
        relative = ["今天", "明天", "后天", "昨天", "下周", "这个周末", "国庆节", "春节", "中秋节", "月底", "元旦"]
        weekday = self.rng.choice(["周", "星期", "下周", "这周"]) + self.rng.choice("一二三四五六日")
        suffix = self.rng.choice("日号")
        forms = [f"{month}月{day}{suffix}", f"{year}年{month}月{day}日", f"{year}年{month}月", f"{year}年"]
        return self.rng.choice([*forms, forms[0], forms[0], weekday, self.rng.choice(relative)])

    def _time(self) -> str:
        hour = self.rng.randint(1, 12)
        spoken = "两" if hour == 2 else number(hour)
        minute = self.rng.choice([5, 10, 15, 20, 25, 35, 40, 45, 50, 55])
        minutes = ["整", "半", "一刻", "零五分" if minute == 5 else f"{number(minute)}分", "", ""]
        part = self.rng.choice(["", "早上", "上午", "中午", "下午", "晚上", "凌晨", "傍晚"])
        return f"{part}{spoken}点{self.rng.choice(minutes)}"

    def _temperature(self) -> str:
        degrees = number(self.rng.choice([*range(0, 45), *range(16, 31), *range(50, 250, 10)]))
        below = self.rng.choice(["", "", "", "零下", "摄氏"])
        half = f"点{self.rng.choice(_DIGITS[1:])}" if self.rng.random() < 0.2 else ""
        return f"{below}{degrees}{half}度"


def number(value: int) -> str:
    """A whole number below 1000 as it is spoken."""
    if value < 10:
        return _DIGITS[value]
    if value < 100:
        tens, ones = divmod(value, 10)
        return ("" if tens == 1 else _DIGITS[tens]) + "十" + (_DIGITS[ones] if ones else "")
    hundreds, rest = divmod(value, 100)
    between = "" if rest == 0 else "零" if rest < 10 else "一" if rest < 20 else ""
    return f"{_DIGITS[hundreds]}百{between}{number(rest) if rest else ''}"
