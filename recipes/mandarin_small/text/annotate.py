"""
Mark the names, dates, times and temperatures in plain sentences, by rules and jieba's parts of speech.

The marks are guesses: good enough for training together with sentences that were generated with marks, but not for
evaluation.
"""

import re

from .numbers import DAY_PARTS, HOLIDAYS
from .words import AMBIGUOUS, KNOWN, NO_NAMES, SURNAMES, tag

_DIGIT, _NUMBER = "[零一二三四五六七八九]", "[零一二两三四五六七八九十百]+"
_IN_MONTH = f"(?:{_NUMBER}[日号]|份|初|底|中旬)"
_PATTERNS = {
    "TEMPERATURE": (
        f"(?:零下|摄氏){_NUMBER}(?:点{_NUMBER})?(?:摄氏)?度|"
        f"(?<![第再又零百千])(?!百|一度){_NUMBER}(?:点{_NUMBER})?(?:摄氏度|度(?![假过的]))"
    ),
    "DATE": (
        f"{_DIGIT}{{4}}年(?:{_NUMBER}月{_IN_MONTH}?)?|(?<![十百千]){_DIGIT}{{2}}年{_NUMBER}月{_IN_MONTH}?|"
        f"(?:今年|去年|明年)?(?:十[一二]?|(?<![十百])[一二三四五六七八九])月{_IN_MONTH}?|本月{_NUMBER}[日号]|"
        "(?<![一二三四五六七八九十两几每])(?:[上下这]个?|本)?(?:周|星期|礼拜)[一二三四五六日天](?![次个名期年岁])|"
        + "|".join(HOLIDAYS)
    ),
    "TIME": (
        f"(?:{'|'.join(DAY_PARTS)}){_NUMBER}点(?:整|钟|半|[一三]刻|{_NUMBER}分(?!之))?|"
        f"{_NUMBER}点(?:整|钟|半|[一三]刻|{_NUMBER}分(?!之))"
    ),
}
_RULES = {kind: re.compile(pattern) for kind, pattern in _PATTERNS.items()}
# Requests to a music player, and questions to an encyclopaedia.
_PLAY = re.compile(
    "^(?:请你?|给我|帮我|随便)*(?:音乐搜索|下载|播放(?:一首|首)?|我?[想要]听(?:一首|首)?|[来放点听](?:一[首曲个]|首))(?:歌曲|歌儿|歌来听|音乐|歌)?"
    "(?:(?P<singer>.{2,4}?)唱?的)?(?P<song>[^，]+?)(?:这首歌|吧)?$"
)
_ANY_SONG = {"歌", "歌曲", "音乐", "专辑", "新歌", "老歌", "广播", "新闻"}
_FILMS = re.compile("^(.{2,3}?)(?:的|出演的)?(?:歌曲|电影|电视剧)有什么$")
_OF_A_PLACE = re.compile("^(.{2,9}?)的?(?:景点|街道|行政村|学校|企业|特产)有什么$")
_COMPANY = re.compile("[^的，]{4,12}有限公司")
_ORGANISATION = re.compile(
    "(?:队|院|社|部|所|局|会|大学|中学|小学|公司|集团|政府|银行|协|委|台|报|协会|电信|移动|联通|石油|石化|中心|国|联|行|航空|证监会|保监会|厅|署)$"
)

# Endings of places of three characters or more, and characters of foreign places; other such words are idioms.
_PLACE = re.compile(
    "[省市县区镇乡村州山河湖海岛路街寺庙江湾港桥站园城国峡口旗郡洲门岭关堡]$|[斯尔利亚巴拉阿尼罗伊特德克兰维里加瓦沙洛莫纳坦]"
)


def annotate(text: str) -> str:
    """
    Mark the entities in a plain text with `ENTITY_<TYPE>` and `END`, directly around their characters.

    Args:
        text: Han characters, with `，` for pauses.
    """
    spans = _asked_for(text)
    spans += [(*match.span(), kind) for kind, rule in _RULES.items() for match in rule.finditer(text)]
    spans += _names(text)
    marked, position = "", 0
    for start, end, kind in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= position:
            marked += f"{text[position:start]}ENTITY_{kind}{text[start:end]}END"
            position = end
    return marked + text[position:]


def _asked_for(text: str) -> list[tuple[int, int, str]]:
    """Find the entities in sentences of known patterns; the only way that songs are found."""
    if play := _PLAY.match(text):
        start, end = play.span("song")
        if play["singer"] and _may_be_person(play["singer"]):
            song = [] if play["song"] in _ANY_SONG else [(start, end, "SONG_NAME")]
            return [(*play.span("singer"), "PERSON_NAME"), *song]
        start = play.start("singer") if play["singer"] else start
        return [] if text[start:end].endswith(tuple(_ANY_SONG)) else [(start, end, "SONG_NAME")]
    if (films := _FILMS.match(text)) and _may_be_person(films[1]):
        return [(*films.span(1), "PERSON_NAME")]
    if (place := _OF_A_PLACE.match(text)) and (tag(place[1])[0][1] == "nz" or kind_of(*tag(place[1])[0]) == "LOCATION"):
        return [(*place.span(1), "LOCATION")]
    return [(*company.span(), "ORGANIZATION") for company in _COMPANY.finditer(text)]


def _may_be_person(text: str) -> bool:
    return KNOWN.get(text) == "PERSON_NAME" or (len(text) <= 3 and text[0] in SURNAMES and text not in NO_NAMES)


def _names(text: str) -> list[tuple[int, int, str]]:
    spans, position = [], 0
    for word, part in tag(text):
        if kind := kind_of(word, part):
            spans.append((position, position + len(word), kind))
        position += len(word)
    return spans


def kind_of(word: str, part: str) -> str | None:
    """
    Entity type of a word of the dictionary: `PERSON_NAME`, `LOCATION`, `ORGANIZATION` or `None`.

    Args:
        word: the word.
        part: its part of speech in the dictionary: nr is a person, ns a place, nt an organisation.
    """
    if word in KNOWN:
        return KNOWN[word]
    if word in NO_NAMES or word in AMBIGUOUS or len(word) < 2:
        return None
    if part == "nr" and word[-1] in "省市区县镇乡村":
        return "LOCATION"
    if part in {"nr", "nrfg"} and 2 <= len(word) <= 3 and word[0] in SURNAMES and word[-1] not in "家子的姓":
        return "PERSON_NAME"
    if part == "nt" and _ORGANISATION.search(word):
        return "ORGANIZATION"
    return "LOCATION" if part == "ns" and (len(word) == 2 or _PLACE.search(word)) else None
