"""The recipe's first step: sentences, their pronunciation and who speaks them."""

import gzip
import os
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from citrinet.language_model import read_language_model
from mandarin_small.__main__ import main
from mandarin_small.text import numbers, run, selection, templates
from mandarin_small.text.annotate import annotate
from mandarin_small.text.names import Names
from mandarin_small.text.overlap import Overlap
from mandarin_small.text.pronunciation import phonemes, phonemes_of, read, southern
from mandarin_small.text.sources import Sentence, read_transcripts
from mandarin_small.text.speakers import draw_speaker
from mandarin_small.text.words import AMBIGUOUS, CATALOGUE, characters, level
from mandarin_small.utterance import Utterance, read_utterances, spoken, write_utterances

ROOT = Path(__file__).parents[1]

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


# Pronunciation

# What misaki 0.9.4 writes: every initial and every final
MISAKI = [
    "ba1=pa→",
    "pai2=pʰai↗",
    "man3=ma↓n",
    "fang4=fa↘ŋ",
    "dao5=tau",
    "te4=tʰɤ↘",
    "nei4=nei↘",
    "len2=lə↗n",
    "geng3=kə↓ŋ",
    "ki1=kʰi→",
    "ji1=ʨi→",
    "qia4=ʨʰja↘",
    "xian2=ɕjɛ↗n",
    "liang3=lja↓ŋ",
    "biao1=pjau→",
    "xie4=ɕje↘",
    "jin1=ʨi→n",
    "diu1=tjou→",
    "jing3=ʨi↓ŋ",
    "qiong2=ʨʰjʊ↗ŋ",
    "dong4=tʊ↘ŋ",
    "gou3=kou↓",
    "hu2=xu↗",
    "hui4=xwei↘",
    "gua1=kwa→",
    "kuai4=kʰwai↘",
    "huan2=xwa↗n",
    "zhun3=ꭧwə↓n",
    "chuang2=ꭧʰwa↗ŋ",
    "weng1=wə→ŋ",
    "shuo1=ʂwo→",
    "bo2=pwo↗",
    "nv3=ny↓",
    "lve4=lɥe↘",
    "juan1=ʨɥɛ→n",
    "xun2=ɕy↗n",
    "zhi1=ꭧɨ→",
    "chi2=ꭧʰɨ↗",
    "shi4=ʂɨ↘",
    "ri4=ɻɨ↘",
    "zi3=ʦɨ↓",
    "ci4=ʦʰɨ↘",
    "si1=sɨ→",
    "er4=ɚ↘",
    "e2=ɤ↗",
    "a1=a→",
    "o1=ɔ→",
    "ng2=ŋ↗",
    "m2=m↗",
    "yo1=wo→",
    "yi1=i→",
    "wu3=u↓",
    "yu2=y↗",
    "yue4=ɥe↘",
    "yuan2=ɥɛ↗n",
    "yun2=y↗n",
    "you3=jou↓",
    "wei4=wei↘",
    "wen2=wə↗n",
    "wang2=wa↗ŋ",
    "ye3=je↓",
    "yan2=jɛ↗n",
    "yang2=ja↗ŋ",
    "ying1=i→ŋ",
    "yong4=jʊ↘ŋ",
    "wa1=wa→",
    "wo3=wo↓",
    "zang4=ʦa↘ŋ",
    "sun1=swə→n",
    "rong2=ɻʊ↗ŋ",
    "cua1=ʦʰwa→",
    "sua1=swa→",
]


def test_phonemes_are_those_that_kokoro_was_trained_on():
    pairs = [pair.split("=") for pair in MISAKI]
    assert [phonemes_of(syllable) for syllable, _ in pairs] == [expected for _, expected in pairs]


@pytest.mark.parametrize(
    ("syllable", "both", "sibilants", "nasals"),
    [
        ("zheng4", "zen4", "zeng4", "zhen4"),
        ("shi2", "si2", "si2", "shi2"),
        ("chuang2", "chuang2", "chuang2", "chuang2"),  # there is no cuang
        ("ying1", "yin1", "ying1", "yin1"),
        ("zhong1", "zong1", "zong1", "zhong1"),
        ("lang2", "lang2", "lang2", "lang2"),
    ],
)
def test_southern_accents_merge_sounds(syllable, both, sibilants, nasals):
    assert southern(syllable, True, True) == both
    assert (southern(syllable, True, False), southern(syllable, False, True)) == (sibilants, nasals)
    assert southern(syllable, False, False) == syllable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("把空调调到ENTITY_TEMPERATURE二十度END", "ba3 kong1 tiao2 tiao2 dao4 er4 shi2 du4"),
        ("ENTITY_PERSON_NAME曾志伟END曾经来过", "zeng1 zhi4 wei3 ceng2 jing1 lai2 guo4"),
        ("ENTITY_ORGANIZATION工商银行END还行", "gong1 shang1 yin2 hang2 hai2 xing2"),
        ("人数为三百", "ren2 shu4 wei2 san1 bai3"),
        ("我得去还钱", "wo3 dei3 qu4 huan2 qian2"),
        ("他慢慢地走，跑得很快", "ta1 man4 man4 de5 zou3 pao3 de5 hen3 kuai4"),
        ("一只猫，只有一只", "yi1 zhi1 mao1 zhi3 you3 yi1 zhi1"),
        ("音乐会很快乐", "yin1 yue4 hui4 hen3 kuai4 le4"),
        ("ENTITY_LOCATION重庆END很重", "chong2 qing4 hen3 zhong4"),
    ],
)
def test_characters_are_read_by_what_is_around_them(text, expected):
    words = read(text)
    assert " ".join(syllable for word in words for _, syllable in word if syllable) == expected
    assert "".join(character for word in words for character, _ in word) == spoken(text)


def test_words_end_at_markers_and_pauses_are_commas():
    words = read("去ENTITY_LOCATION北京END吧，好")
    assert ["".join(character for character, _ in word) for word in words] == ["去", "北京", "吧", "，", "好"]
    assert phonemes(words) == "ʨʰy↘ pei↓ʨi→ŋ pa, xau↓"
    assert phonemes(read("中心"), (True, True)) == "ʦʊ→ŋɕi→n"


def test_pinyin_that_people_wrote_is_taken_where_it_is_a_reading():
    def syllables(given):
        return [syllable for word in read("长安，好", given) for _, syllable in word]

    assert syllables(("zhang3", "an1", "hao4")) == ["zhang3", "an1", "", "hao4"]
    assert syllables(("chang2", "bu4", "hao3")) == ["chang2", "an1", "", "hao3"]  # 安 is never read bu4
    assert syllables(("zhang3",)) == ["chang2", "an1", "", "hao3"]  # not one for each character


# Markers of plain sentences


@pytest.mark.parametrize(
    "marked",
    [
        "记者从ENTITY_LOCATION北京END来到ENTITY_LOCATION张家口END",
        "ENTITY_ORGANIZATION百度END和ENTITY_ORGANIZATION国务院END的人说",
        "ENTITY_PERSON_NAME周杰伦END和ENTITY_PERSON_NAME约翰END见面",
        "ENTITY_DATE二零一五年三月一日END开始",
        "从ENTITY_DATE去年八月END到ENTITY_DATE十一月底END",
        "ENTITY_DATE下周三END或者ENTITY_DATE中秋节END",
        "他ENTITY_TIME早上七点END起床ENTITY_TIME八点半END出门",
        "最低ENTITY_TEMPERATURE零下五度END最高ENTITY_TEMPERATURE三点五摄氏度END",
        "播放ENTITY_SONG_NAME海阔天空END",
        "我要听ENTITY_PERSON_NAME刘德华END的ENTITY_SONG_NAME冰雨END",
        "随便播放ENTITY_PERSON_NAME齐秦END的歌",
        "ENTITY_PERSON_NAME林宥嘉END的歌曲有什么",
        "ENTITY_LOCATION广元END的学校有什么",
        "ENTITY_ORGANIZATION厦门百轮有限公司END",
        # nothing to mark
        "这座城市的东西很美丽",
        "公司上市之后参加马拉松",
        "火车向前奔驰在黎明",
        "他一度想在三四年之后再来",
        "一周一次百度百科",
        "十年以来第三度夺冠",
        "三点五米高的树",
        "得意洋洋地走了",
        "谢谢顾客的支持",
        "明天来几个人",
    ],
)
def test_plain_sentences_get_their_markers(marked):
    if "百度百科" in marked:
        marked = marked.replace("百度", "ENTITY_ORGANIZATION百度END")
    assert annotate(spoken(marked)) == marked


def test_what_is_drawn_is_what_is_found():
    rng = random.Random(0)
    for kind, draw in (("DATE", numbers.date), ("TIME", numbers.time), ("TEMPERATURE", numbers.temperature)):
        drawn = [draw(rng) for _ in range(400)]
        # A day without its month, and an hour without anything, may be other things in a plain sentence.
        drawn = [text for text in drawn if not re.fullmatch("[一二两三四五六七八九十零]+[号日点]", text)]
        assert len(drawn) > 300
        assert [annotate(f"我们在{text}见面") for text in drawn] == [
            f"我们在ENTITY_{kind}{text}END见面" for text in drawn
        ]


def test_known_names_are_found_in_plain_sentences():
    for kind in ("PERSON_NAME", "LOCATION", "ORGANIZATION"):
        names = [name for name in CATALOGUE[kind] if name not in AMBIGUOUS]
        assert len(names) > 150
        assert [annotate(f"我喜欢{name}吗") for name in names] == [f"我喜欢ENTITY_{kind}{name}END吗" for name in names]


# Numbers and templates


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "零"),
        (2, "二"),
        (10, "十"),
        (14, "十四"),
        (20, "二十"),
        (105, "一百零五"),
        (110, "一百一十"),
        (118, "一百一十八"),
        (1008, "一千零八"),
        (2010, "二千零一十"),
        (10_000, "一万"),
        (10_015, "一万零一十五"),
        (100_010, "十万零一十"),
        (206_000, "二十万六千"),
        (100_000_010, "一亿零一十"),
        (1_234_567_890, "十二亿三千四百五十六万七千八百九十"),
    ],
)
def test_numbers_as_they_are_spoken(value, expected):
    assert numbers.number(value) == expected


def test_two_before_a_measure_word_is_another_two():
    rng = random.Random(0)
    amounts = [templates.amount(rng) for _ in range(4000)] + [f"{numbers.count(rng)}天" for _ in range(400)]
    assert not [text for text in amounts if re.match("二[块公平个万亿天]|.*(第|百分之|比)两", text)]
    assert {"两天"} < {text for text in amounts if text.startswith("两")}


@pytest.mark.slow
def test_every_pattern_makes_sentences(monkeypatch):
    rng = random.Random(0)
    drawn = [Names(rng, 0.0, {"LOCATION": Counter(["某某村"])}), Names(rng, 1.0)]
    for pattern in templates.patterns():
        monkeypatch.setattr(templates, "patterns", lambda pattern=pattern: [pattern])
        for names in drawn:
            text = templates.template(rng, names)
            assert re.fullmatch("[一-鿿，]+？?", re.sub("ENTITY_[A-Z_]+|END", "", text)), (pattern, text)
            assert text.count("ENTITY_") == text.count("END")


# Sources

FILES = {
    "aishell_transcript_v0.8.txt": (
        "BAC009S0002W0122 而 对 楼市 成交 抑制 作用 最 大\nBAC009S0002W0123 也 成为\n",
        [Sentence("而对楼市成交抑制作用最大", "aishell1")],
    ),
    "content.txt": (
        "SSB00050001.wav\t长 chang2 江 jiang1 很 hen3 长 chang2\nSSB00050002.wav\t有 you3 A 字 zi4 的 de5\n",
        [Sentence("长江很长", "aishell3", ("chang2", "jiang1", "hen3", "chang2"))],
    ),
    "A11_0.wav.trn": (
        "绿 是 阳春 烟 景\nlv4 shi4 yang2 chun1 yan1 jing3\nl v4 sh ix4\n",
        [Sentence("绿是阳春烟景", "thchs30")],
    ),
    "cmn_sentences.tsv": (
        "1\tcmn\t我們試試看！\n2\tcmn\t我该去睡觉了，真的。\n3\tcmn\t你在干什么啊？\n4\tcmn\t我有2只猫在家\n",
        [Sentence("我该去睡觉了，真的", "tatoeba"), Sentence("你在干什么啊？", "tatoeba")],
    ),
    "cmn.txt": ("Wait a bit!\t稍等一下！\tCC-BY 2.0 (France)\n", [Sentence("稍等一下！", "tatoeba")]),
    "text.txt": ("今天天气很好。\n今天 天气 很好\n\n短句\n", [Sentence("今天天气很好", "text")]),
    "manifest.jsonl": (
        '{"audio_filepath": "a.wav", "text": "去ENTITY_LOCATION北京END玩"}\n{"audio_filepath": "b.wav", "text": "hello"}\n',
        [Sentence("去ENTITY_LOCATION北京END玩", "manifest")],
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_transcripts_as_they_are_published(tmp_path, name):
    content, expected = FILES[name]
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_transcripts([tmp_path / name]) == expected


def test_a_folder_of_thchs_30(tmp_path):
    for number, text in enumerate(("绿 是 阳春 烟 景", "他 仅 凭 腰部 的 力量")):
        (tmp_path / f"A11_{number}.wav.trn").write_text(f"{text}\nlv4\nl\n", encoding="utf-8")
    assert [sentence.text for sentence in read_transcripts([tmp_path])] == ["绿是阳春烟景", "他仅凭腰部的力量"]


def test_transcripts_without_a_sentence_say_what_is_expected(tmp_path):
    (tmp_path / "a.txt").write_text("hello\n我們試試看\n", encoding="utf-8")
    for path in (tmp_path / "a.txt", tmp_path):
        with pytest.raises(ValueError, match="no Mandarin sentence of 4 to 28"):
            read_transcripts([path])
    (tmp_path / "gbk.txt").write_bytes("今天天气很好".encode("gbk"))
    with pytest.raises(ValueError, match="convert it to UTF-8"):
        read_transcripts([tmp_path / "gbk.txt"])
    with pytest.raises(OSError, match=r"none\.txt"):
        read_transcripts([tmp_path / "none.txt"])


# What is measured with stays out of training


@pytest.mark.parametrize(
    ("sentence", "near"),
    [
        ("他昨天从北京来到上海", True),
        ("他昨天从北京来到上海了", True),  # contains
        ("天从北京来到上", True),  # is contained
        ("请他昨天从北京来到上海吗", True),
        ("你今天从北京来到上海", True),  # but for two at the start
        ("她昨天从北京来到上海呢", True),  # one at either end
        ("他昨天从南京来到上海", False),
        ("北京来到上", False),  # too short to be a copy
        ("我们走吧", True),
        ("我们走吧呀", True),
        ("我们走啦", False),
        ("播放晴天吧", True),
        ("我播放晴天", True),
        ("播放夜曲", False),
    ],
)
def test_near_copies(sentence, near):
    overlap = Overlap(["他昨天从北京来到上海", "我们走吧"])
    overlap.add("播放晴天呀")
    assert overlap.near(sentence) is near


# Speakers


def test_voices_of_training_and_of_measuring_are_others():
    rng = random.Random(0)
    drawn = {held_out: [draw_speaker(rng, held_out) for _ in range(3000)] for held_out in (False, True)}
    names = {held_out: {name for s in speakers for name, _ in s.voice} for held_out, speakers in drawn.items()}
    assert names[False].isdisjoint(names[True]) and (len(names[False]), len(names[True])) == (43, 10)
    for speaker in drawn[False] + drawn[True]:
        weights = dict(speaker.voice)
        assert len(weights) == len(speaker.voice) and min(weights.values()) > 0
        assert sum(weights.values()) == pytest.approx(1)
        assert weights.get("zf_xiaoni", 0) <= 0.45
        mandarin = any(name.startswith("z") for name in weights)
        assert mandarin == (speaker.dialect != "DIALECT_OTHERS")
        assert (speaker.dialect == "DIALECT_SOUTH") == any(speaker.accent)
        child = speaker.child > 1 or "zm_yunxia" in weights
        assert (speaker.age, speaker.gender is None) == (("AGE_<14", True) if child else ("NONE", False))
        if not child:
            assert {name[1] for name in weights} == {speaker.gender[7].lower()}
        assert 0.8 <= speaker.speed <= 1.35 and 1 <= speaker.child <= 1.4
    dialects = Counter(speaker.dialect for speaker in drawn[False])
    assert 0.2 < dialects["DIALECT_SOUTH"] / 3000 < 0.28 and 0.03 < dialects["DIALECT_OTHERS"] / 3000 < 0.07


# The step

KOKORO = set(" !,.?aefijklmnopstuwxyŋɔɕəɚɛɤɥɨɻʂʊʦʨʰ→↓↗↘ꭧ")  # of its vocabulary


def written(folder):
    return [list(read_utterances(folder / "text" / f"{name}.jsonl.gz")) for name in ("train", "heldout")]


def check(train, held_out):
    assert [utterance.id for utterance in train] == list(range(len(train)))
    assert [utterance.id for utterance in held_out] == list(range(900_000, 900_000 + len(held_out)))
    assert len({utterance.spoken for utterance in train + held_out}) == len(train + held_out)
    assert all(utterance.set is None for utterance in train)
    for utterance in train + held_out:
        assert re.fullmatch("[一-鿿]{1,28}", utterance.spoken)
        assert set(utterance.phonemes) <= KOKORO
    overlap = Overlap(utterance.spoken for utterance in held_out)
    assert not [utterance.spoken for utterance in train if overlap.near(utterance.spoken)]
    voices = [{name for utterance in part for name, _ in utterance.voice} for part in (train, held_out)]
    assert voices[0].isdisjoint(voices[1])


def test_templates_are_enough(tmp_path, capsys):
    run(tmp_path, sentences=30)
    train, held_out = written(tmp_path)
    assert len(train) == 30 and Counter(utterance.set for utterance in held_out) == {"catalogue": 4, "open": 2}
    assert all("ENTITY_" in utterance.text for utterance in held_out)
    check(train, held_out)
    assert re.search(r"^train +30 sentences", capsys.readouterr().out, re.MULTILINE)
    run(tmp_path, sentences=30, seed=2)
    others, _ = written(tmp_path)
    assert all(one.text != other.text for one, other in zip(train, others, strict=True))


@pytest.fixture
def transcripts(tmp_path):
    """200 sentences that are plain, none of them twice."""
    who, what = "我你他她", ["喜欢", "讨厌", "看见", "想起"]
    things = [
        "白色的小猫",
        "冬天的大雪",
        "夏天的海边",
        "妈妈做的饭",
        "新买的毛衣",
        "北京的春天",
        "昨天的电影",
        "谁的自行车",
    ]
    lines = [f"{a}{b}{c}{d}" for a in who for b in what for c in things for d in ("", "吗？")][:200]
    path = tmp_path / "plain.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.slow
def test_transcripts_are_chosen_marked_and_kept_apart(tmp_path, transcripts):
    manifest = tmp_path / "valid.jsonl"
    manifest.write_text('{"audio_filepath": "a.wav", "text": "我 喜欢 白色的小猫"}\n', encoding="utf-8")
    run(tmp_path, [transcripts], sentences=200, exclude=[manifest])
    train, held_out = written(tmp_path)
    check(train, held_out)
    assert not any("喜欢白色的小猫" in utterance.spoken and "我" in utterance.spoken for utterance in train)
    sets = Counter(utterance.set for utterance in held_out)
    assert sets["catalogue"] == 10 and sets["open"] == 5 and 5 <= sets["plain"] <= 10
    sources = Counter(utterance.source for utterance in train)
    assert len(train) == 200 and sources["text"] > 50
    assert sources.keys() == {"text", "swap", "number", "word", "name", "template", "coverage"}
    marked = [utterance.text for utterance in train if "北京" in utterance.text and utterance.source == "text"]
    assert marked and all("ENTITY_LOCATION北京END" in text for text in marked)
    questions = [utterance for utterance in train if utterance.spoken.endswith("吗")]
    assert questions and {utterance.phonemes[-1] for utterance in questions} <= {"?", "a"}


def test_rare_characters_are_heard_often_enough():
    frequent = [character for character in characters() if level(character) == 1]
    assert (len(frequent), len(characters())) == (3755, 6763)
    made = list(selection._covering([Sentence(frequent[0] * 9, "")], set(), random.Random(0)))
    counts = Counter("".join(made))
    assert min(counts[character] for character in frequent[1:]) == selection.OCCURRENCES
    assert len({sentence.rstrip("？") for sentence in made}) > 0.9 * len(made)


@pytest.mark.parametrize("sentences", [0, 1_000_000])
def test_a_number_of_sentences_that_cannot_be(tmp_path, sentences):
    with pytest.raises(ValueError, match="--sentences must be 1 to 900000"):
        run(tmp_path, sentences=sentences)


@pytest.mark.slow
def test_the_same_seed_makes_the_same_files_in_any_process(tmp_path, transcripts):
    code = "import sys; from mandarin_small.text import run; run(sys.argv[1], sys.argv[2:], 60, 3)"
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT / "recipes")}
    command = [sys.executable, "-c", code, str(tmp_path / "one"), str(transcripts)]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    run(tmp_path / "other", [transcripts], 60, 3)
    one, other = (sorted((tmp_path / name / "text").iterdir()) for name in ("one", "other"))
    assert [path.name for path in one] == ["heldout.jsonl.gz", "train.jsonl.gz"]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


# The language model


def test_the_language_model_learns_nothing_that_is_held_out(tmp_path):
    texts, held_out = tmp_path / "text" / "train.jsonl.gz", tmp_path / "valid.jsonl"
    texts.parent.mkdir()
    write_utterances(texts, [replace(UTTERANCE, id=0), replace(UTTERANCE, id=1, text="今天上海的天气怎么样啊")])
    held_out.write_text('{"audio_filepath": "a.wav", "text": "今天上海的天气怎么样"}\n', encoding="utf-8")
    assert main(["language_model", str(tmp_path), "--exclude", str(held_out)]) == 0
    model = read_language_model(tmp_path / "model" / "language_model.npz")
    assert set(model.vocabulary) == {"<unk>", "<s>", "</s>", "ENTITY_LOCATION", "END", *"去北京吧"}
    assert model.settings == {"weight": 0.4, "word_bonus": 1.5}
