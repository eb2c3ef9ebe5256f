"""
Pronunciation of sentences: words by jieba, pinyin by pypinyin, and the phonemes that Kokoro was trained on.

Kokoro's phonemes are those of misaki 0.9.4 (Apache-2.0), based on pinyin-to-ipa (MIT). The tables are copied here:
misaki itself cannot be installed on Python 3.13, and requires six packages for one table.
"""

import re
from collections.abc import Sequence
from functools import cache

from pypinyin import Style, lazy_pinyin, pinyin
from pypinyin.contrib.tone_convert import to_finals, to_initials

from ..utterance import spoken
from .words import SURNAME_READINGS, split

PAUSE = "，"
Word = list[tuple[str, str]]  # characters and their pinyin, with the tone at the end, 5 for the neutral one

_TONES = {"1": "→", "2": "↗", "3": "↓", "4": "↘", "5": ""}
_INITIALS = dict(
    pair.split("=")
    for pair in ("b=p p=pʰ m=m f=f d=t t=tʰ n=n l=l g=k k=kʰ h=x j=ʨ q=ʨʰ x=ɕ zh=ꭧ ch=ꭧʰ sh=ʂ r=ɻ z=ʦ c=ʦʰ s=s").split()
)
# The digit 0 is the place of the tone: after the vowel, before the end of the syllable.
_FINALS = dict(
    pair.split("=")
    for pair in (
        "a=a0 ai=ai0 an=a0n ang=a0ŋ ao=au0 e=ɤ0 ei=ei0 en=ə0n eng=ə0ŋ i=i0 ia=ja0 ian=jɛ0n iang=ja0ŋ iao=jau0 ie=je0 "
        "in=i0n iou=jou0 ing=i0ŋ iong=jʊ0ŋ ong=ʊ0ŋ ou=ou0 u=u0 uei=wei0 ua=wa0 uai=wai0 uan=wa0n uen=wə0n uang=wa0ŋ "
        "ueng=wə0ŋ uo=wo0 o=wo0 ü=y0 üe=ɥe0 üan=ɥɛ0n ün=y0n"
    ).split()
)
_WHOLE = {"hm": "hm0", "hng": "hŋ0", "m": "m0", "n": "n0", "ng": "ŋ0", "io": "jɔ0", "ê": "ɛ0", "er": "ɚ0", "o": "ɔ0"}


@cache
def phonemes_of(syllable: str) -> str:
    """Kokoro's phonemes of a syllable of pinyin with its tone at the end, such as `lv4`; 5 is the neutral tone."""
    spelling, tone = syllable[:-1], _TONES[syllable[-1]]
    if spelling in _WHOLE:
        return _WHOLE[spelling].replace("0", tone)
    initial, final = to_initials(spelling, strict=True), to_finals(spelling, strict=True, v_to_u=True)
    if final == "i" and initial in {"zh", "ch", "sh", "r", "z", "c", "s"}:
        return f"{_INITIALS[initial]}ɨ{tone}"
    return (_INITIALS[initial] if initial else "") + _FINALS[final].replace("0", tone)


@cache
def southern(syllable: str, sibilants: bool, nasals: bool) -> str:
    """
    A syllable of pinyin as pronounced by many southern speakers: a simulation, not a dialect.

    Args:
        syllable: pinyin with its tone.
        sibilants: whether zh, ch and sh merge with z, c and s.
        nasals: whether ing and eng merge with in and en.
    """
    if sibilants and not syllable[:-1].endswith("uang"):
        syllable = re.sub("^([zcs])h", r"\1", syllable)
    return re.sub(r"([ie])ng(\d)$", r"\1n\2", syllable) if nasals else syllable


# Words that pypinyin reads differently from speakers.
_WORDS = {
    "调到": "tiao2 dao4", "调至": "tiao2 zhi4", "调大": "tiao2 da4", "调小": "tiao2 xiao3", "单曲": "dan1 qu3",
    "男子": "nan2 zi3", "女子": "nv3 zi3", "夺得": "duo2 de2", "使得": "shi3 de2", "设为": "she4 wei2",
    "视为": "shi4 wei2", "华为": "hua2 wei2", "为止": "wei2 zhi3", "还款": "huan2 kuan3", "东莞": "dong1 guan3",
    "哪儿": "na3 er5",
    "朝阳市": "chao2 yang2 shi4", "朝阳区": "chao2 yang2 qu1", "朝阳门": "chao2 yang2 men2",
}  # fmt: skip
# Readings of single-character words, by their context.
_ALONE = tuple(
    (re.compile(pattern), reading)
    for pattern, reading in (
        (
            "为(?=[零一二两三四五六七八九十百约])|(?<=[名成分定改作列称评变转化命选任值是价量数率设置视间文])为",
            "wei2",
        ),
        ("调(?=[到高低大小至成为整])", "tiao2"),
        ("长(?=[得的达在约过])|(?<=[很太多最更不])长", "chang2"),
        ("只(?=[猫狗鸡鸟羊手脚眼虎兔蜂])|(?<=[一两三四五六七八九十百几每这那])只", "zhi1"),
        ("(?<=[我你他她们就都还又总])得(?=[去来要让把看先等在])", "dei3"),
        ("(?<=.)得(?=.)", "de5"),
        ("(?<=..)地(?=.)", "de5"),
        ("还(?=[给钱债贷清])", "huan2"),
        ("重(?=[新回启建来])", "chong2"),
    )
)


def read(text: str, given: Sequence[str] = ()) -> list[Word]:
    """
    Split a sentence into words with their pronunciation.

    Args:
        text: Han characters, with markers and pauses (`，`).
        given: transcribed syllable of each character, used if it is a known reading of the character.

    Returns:
        Words; a pause is a word without a syllable. No word crosses a marker.
    """
    plain, words, position = spoken(text), list[Word](), 0
    for kind, part in re.findall("(?:ENTITY_([A-Z_]+))?([^A-Z_]+)(?:END)?", text):
        for index, word in enumerate(split(part)):
            syllables = list(_syllables(word))
            if len(word) == 1 and not kind:
                syllables[0] = _alone(plain, position) or syllables[0]
            if kind == "PERSON_NAME" and index == 0:
                syllables[0] = SURNAME_READINGS.get(word[0], syllables[0])
            words.append(list(zip(word, syllables, strict=True)))
            position += len(word)
    if len(given) == sum(syllable != "" for word in words for _, syllable in word):
        better = iter(given)
        words = [[(c, _better(c, old, next(better))) if old else (c, old) for c, old in word] for word in words]
    return words


@cache
def _syllables(word: str) -> tuple[str, ...]:
    if word == PAUSE:
        return ("",)
    if word in _WORDS:
        return tuple(_WORDS[word].split())
    return tuple(lazy_pinyin(word, style=Style.TONE3, neutral_tone_with_five=True))


def _alone(text: str, position: int) -> str | None:
    return next((reading for pattern, reading in _ALONE if pattern.match(text, position)), None)


@cache
def _better(character: str, syllable: str, given: str) -> str:
    known = pinyin(character, style=Style.TONE3, heteronym=True, neutral_tone_with_five=True)[0]
    return given if given in known else syllable


def phonemes(words: list[Word], accent: tuple[bool, bool] = (False, False)) -> str:
    """
    Convert words to Kokoro's input: words separated by spaces, pauses as commas.

    Args:
        words: result of [`read`].
        accent: whether sibilants and nasals merge; see [`southern`].
    """
    parts = ("".join(phonemes_of(southern(syllable, *accent)) if syllable else "," for _, syllable in w) for w in words)
    return " ".join(parts).replace(" ,", ",")
