"""Draw names: from the catalogue, and from dictionary, transcripts and rules."""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from itertools import accumulate

from .annotate import kind_of
from .numbers import date, temperature, time
from .words import CATALOGUE, SURNAMES, dictionary, level

_PARTS_OF_NAMES = {"PERSON_NAME": "nr", "LOCATION": "ns", "ORGANIZATION": "nt"}
_PARTS_OF_SONGS = ("n", "i", "l", "v", "a", "t", "nz")
_TRADES = "科技 贸易 投资管理 房地产开发 食品 医药 机械制造 文化传播 物流 电子 装饰工程 汽车销售 进出口 环保".split()
_INSTITUTIONS = "大学 中学 第一小学 人民医院 中心医院 商业银行 图书馆 博物馆 电视台 日报社 公安局 教育局 大酒店".split()


class Weighted:
    """
    Draws frequent words more often, but less than proportionally, so that rare ones occur too.

    Args:
        frequencies: pairs of a word and how often it occurs.
    """

    def __init__(self, frequencies: Iterable[tuple[str, int]]):
        self.things, counts = zip(*frequencies, strict=True)
        self._weights = list(accumulate(count**0.6 for count in counts))

    def draw(self, rng: random.Random, k: int = 1) -> list[str]:
        """Draw k words, with replacement."""
        return rng.choices(self.things, cum_weights=self._weights, k=k)


class Names:
    """
    Draws names, dates, times and temperatures.

    Args:
        rng: random number generator.
        catalogue: fraction of the names that come from the catalogue.
        found: type -> names found in transcripts.
    """

    def __init__(self, rng: random.Random, catalogue: float, found: dict[str, Counter[str]] | None = None):
        self._rng, self._catalogue = rng, catalogue
        self._used: Counter[str] = Counter()
        pools = {kind: known + Counter((found or {}).get(kind)) for kind, known in _known_names().items()}
        self._pools = {kind: Weighted(sorted(pool.items())) for kind, pool in pools.items()}
        self._given = Weighted(Counter(name[1:] for name in self._pools["PERSON_NAME"].things).items())
        self._forms: dict[str, Callable[[random.Random], str]] = {
            "DATE": date,
            "TIME": time,
            "TEMPERATURE": temperature,
        }

    def draw(self, kind: str) -> str:
        """
        Draw a name.

        Args:
            kind: type of entity, as in markers: `PERSON_NAME`, `LOCATION`, `DATE` and others.
        """
        if kind in self._forms:
            return self._forms[kind](self._rng)
        if self._rng.random() < self._catalogue:
            return self._rarest(self._rng.choices(CATALOGUE[kind], k=2))
        chance = self._rng.random()
        if kind == "PERSON_NAME" and chance < 0.4:
            return self._rng.choice(SURNAMES) + self._rarest(self._given.draw(self._rng, 2))
        if kind == "ORGANIZATION" and chance < 0.5:
            return self._organisation()
        return self._rarest(self._pools[kind].draw(self._rng, 2))

    def _organisation(self) -> str:
        """Make up a company or an institution."""
        place = self._pools["LOCATION"].draw(self._rng)[0]
        if self._rng.random() < 0.4:
            return place + self._rng.choice(_INSTITUTIONS)
        brand = self._rarest([name for name in self._given.draw(self._rng, 8) if len(name) == 2] or ["华兴"])
        return place[:2] * (self._rng.random() < 0.6) + brand + self._rng.choice(_TRADES) + "有限公司"

    def _rarest(self, drawn: list[str]) -> str:
        """Choose the name whose least used character was used least."""
        name = min(drawn, key=lambda name: min(self._used[character] for character in name))
        self._used.update(name)
        return name


@cache
def _known_names() -> dict[str, Counter[str]]:
    """Type -> names in the dictionary, or words that may be a song's title, and their frequencies."""
    names = {
        kind: Counter({word: min(n, 500) for word, n in dictionary()[part] if n >= 5 and kind_of(word, part) == kind})
        for kind, part in _PARTS_OF_NAMES.items()
    }
    return names | {"SONG_NAME": Counter(dict(pair for part in _PARTS_OF_SONGS for pair in dictionary()[part]))}


@cache
def vocabulary() -> Weighted:
    """Words of frequent characters that are not names."""
    parts = ("n", "v", "a", "vn", "i", "d", "b", "t")
    return Weighted((word, count) for part in parts for word, count in dictionary()[part] if level(word) == 1)
