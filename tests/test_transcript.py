"""Markers, entities, tags and words, on plain strings."""

import random

import pytest

from citrinet.transcript_citrinet import find_markers, parse_transcript, split_words


def entities(parsed):
    return [(e.type, e.text) for e in parsed.entities]


def test_the_model_cards_sentences():
    parsed = parse_transcript("她以 ENTITY_PRODUCT 滴鸡精 END 调养身体。 AGE_14_25 GENDER_FEMALE DIALECT_NORTH")
    assert parsed.transcript == "她以滴鸡精调养身体。"
    assert entities(parsed) == [("PRODUCT", "滴鸡精")]
    assert parsed.tags == {"AGE": "AGE_14_25", "GENDER": "GENDER_FEMALE", "DIALECT": "DIALECT_NORTH"}
    parsed = parse_transcript("你好世界。 AGE_26_40 GENDER_MALE ENTITY_PERSON_NAME 张三 END")
    assert (parsed.transcript, entities(parsed)) == ("你好世界。张三", [("PERSON_NAME", "张三")])


@pytest.mark.parametrize(
    ("text", "transcript", "expected"),
    [
        ("来首歌ENTITY_SONG_NAME吻别END。", "来首歌吻别。", [("SONG_NAME", "吻别")]),
        ("我在 ENTITY_LOCATION 北京", "我在北京", [("LOCATION", "北京")]),
        ("ENTITY_A 一 ENTITY_B 二 END 三 END 四", "一二三四", [("A", "一二三"), ("B", "二")]),
        ("ENTITY_A 一 ENTITY_B 二 END 三", "一二三", [("A", "一"), ("B", "二")]),
        ("END 你好 END END", "你好", []),
        ("ENTITY_A一ENDENTITY_B二END三", "一二三", [("A", "一"), ("B", "二")]),
        ("ENTITY_A END 好", "好", []),
        ("ENTITY_A", "", []),
        ("", "", []),
        (
            "play ENTITY_SONG_NAME hello world END now GENDER_MALE",
            "play hello world now",
            [("SONG_NAME", "hello world")],
        ),
        ("THE WEEKEND IS NEAR", "THE WEEKEND IS NEAR", []),
        ("AGE_<14 你好 AGE_>41", "你好", []),
    ],
)
def test_markers(text, transcript, expected):
    parsed = parse_transcript(text)
    assert (parsed.transcript, entities(parsed)) == (transcript, expected)


def test_offsets_count_in_the_transcript():
    parsed = parse_transcript("放 ENTITY_SONG_NAME 吻别 END 和 ENTITY_PERSON_NAME 张学友 END 。")
    for entity in parsed.entities:
        assert parsed.transcript[entity.start : entity.end] == entity.text
    assert [parsed.text[i] for i in parsed.sources] == list(parsed.transcript)


def test_the_last_tag_of_a_category_counts_and_unknown_categories_are_read():
    parsed = parse_transcript("好 AGE_14_25 AGE_>41 EMOTION_HAPPY")
    assert parsed.tags == {"AGE": "AGE_>41", "EMOTION": "EMOTION_HAPPY"}
    assert parsed.text[parsed.tag_sources["AGE"] :].startswith("AGE_>41")


def test_a_category_may_hold_an_underscore():
    assert parse_transcript("VOICE_AGE_OLD", categories=["VOICE_AGE"]).tags == {"VOICE_AGE": "VOICE_AGE_OLD"}


def test_glued_tags_are_told_apart_when_the_labels_are_known():
    markers = find_markers("好AGE_14_25GENDER_FEMALE", ["AGE_14_25", "AGE_<14", "GENDER_FEMALE", "NONE"])
    assert [marker.name for marker in markers] == ["AGE_14_25", "GENDER_FEMALE"]


def test_nothing_fails_and_no_spoken_text_is_lost():
    rng = random.Random(0)
    parts = [
        "ENTITY_A",
        "ENTITY_LONG_NAME",
        "END",
        "AGE_<14",
        "GENDER_MALE",
        "你好",
        "北",
        "word",
        "。",
        ",",
        " ",
        "  ",
        "a",
    ]
    for _ in range(3000):
        chosen = [rng.choice(parts) for _ in range(rng.randint(0, 12))]
        text = rng.choice(["", " "]).join(chosen)
        parsed = parse_transcript(text)
        marked = {i for m in find_markers(text) for i in range(m.start, m.end)}
        spoken = [c for i, c in enumerate(text) if i not in marked and not c.isspace()]
        assert [c for c in parsed.transcript if not c.isspace()] == spoken
        assert all(parsed.transcript[e.start : e.end] == e.text for e in parsed.entities)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("今天25度。", ["今", "天", "25", "度。"]),
        ("play 吻别 now", ["play", "吻", "别", "now"]),
        ("don't stop, OK?", ["don't", "stop,", "OK?"]),
        ("你,OK", ["你,", "OK"]),
        ("“你好”", ["“", "你", "好”"]),
        ("カタカナ kana", ["カ", "タ", "カ", "ナ", "kana"]),
        ("", []),
    ],
)
def test_words(text, words):
    assert [text[start:end] for start, end in split_words(text)] == words
