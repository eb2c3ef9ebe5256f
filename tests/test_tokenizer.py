"""The same ids and texts as SentencePiece and NeMo."""

import io
import random
import re

import pytest
import sentencepiece

from citrinet.tokenizer.building import build_tokenizer, sentencepiece_model

TAGS = ["AGE_14_25", "AGE_<14", "GENDER_MALE", "ENTITY_SONG_NAME", "ENTITY_SONG", "END"]
SENTENCES = [
    "今天北京的天气怎么样",
    "请播放一首好听的歌",
    "明天早上七点叫我起床",
    "上海的气温是二十五度",
    "我想听张学友的吻别",
    "play some music, please",
    "the weather is fine today",
    "打开客厅的灯，好吗？",
    "今年的人民代表大会在北京召开",
]


def train(model_type, **options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 5),
        model_writer=model,
        model_type=model_type,
        **{"vocab_size": 130, **options},
        hard_vocab_limit=False,
        user_defined_symbols=TAGS,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    return model.getvalue()


def pieces(model):
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return processor, [processor.id_to_piece(i) for i in range(processor.vocab_size())]


def random_texts(vocabulary, count, seed=0):
    rng = random.Random(seed)
    parts = [p.replace("▁", " ") for p in vocabulary if p != "<unk>"]
    parts += [*"abXY１２，。？！ａ龘䶮㍿", " ", "  ", "\t", "AGE_", "ENTITY", "EN"]
    return ["".join(rng.choice(parts) for _ in range(rng.randint(0, 14))) for _ in range(count)]


# NeMo trains its tokenizers with `remove_extra_whitespaces=False`; SentencePiece's own default is the other.
@pytest.fixture(scope="module", params=["bpe", "unigram", "char", "bpe spaces", "unigram spaces", "bpe identity"])
def trained(request):
    model_type, _, variant = request.param.partition(" ")
    options = {"spaces": {"remove_extra_whitespaces": False}, "identity": {"normalization_rule_name": "identity"}}
    model = train(model_type, **options.get(variant, {}))
    processor, vocabulary = pieces(model)
    return processor, vocabulary, build_tokenizer(vocabulary, model)


def test_encodes_as_sentencepiece_does(trained):
    processor, vocabulary, tokenizer = trained
    for text in [*SENTENCES, *random_texts(vocabulary, 1500)]:
        assert tokenizer(text)["input_ids"] == processor.encode(text), repr(text)


def test_the_sentencepiece_model_is_found_again(trained):
    processor, vocabulary, tokenizer = trained
    model = sentencepiece_model(tokenizer)
    again, same_pieces = pieces(model)
    assert same_pieces == vocabulary
    rng = random.Random(2)
    for text in [*SENTENCES, *random_texts(vocabulary, 500, seed=3)]:
        assert again.encode(text) == processor.encode(text), repr(text)
        ids = rng.choices(range(len(vocabulary)), k=8)
        assert again.decode(ids) == processor.decode(ids)
    original = processor.serialized_model_proto()
    assert sentencepiece_model(tokenizer, original) == original
    for other in (train("bpe", vocab_size=120), b"no model"):
        assert sentencepiece_model(tokenizer, other) == model


def test_decodes_as_sentencepiece_and_nemo_do(trained):
    processor, vocabulary, tokenizer = trained
    punctuation = re.compile(f"\\s([{re.escape(''.join(tokenizer._punctuation))}])")
    rng = random.Random(1)
    often = [0, vocabulary.index("▁"), vocabulary.index("▁"), vocabulary.index("END")]
    for _ in range(1500):
        ids = [rng.choice([*often, rng.randrange(len(vocabulary))]) for _ in range(rng.randint(0, 10))]
        expected = punctuation.sub(r"\1", processor.decode_pieces([vocabulary[i] for i in ids]))
        assert tokenizer.decode(ids, group_tokens=False) == expected, ids


def test_unknown_tokens_can_be_left_out():
    model = train("bpe")
    _, vocabulary = pieces(model)
    tokenizer = build_tokenizer(vocabulary, model)
    ids = [vocabulary.index("好"), vocabulary.index("<unk>"), vocabulary.index("的")]
    assert tokenizer.decode(ids, group_tokens=False) == "好 ⁇ 的"
    assert tokenizer.decode(ids, group_tokens=False, skip_special_tokens=True) == "好的"


def test_ctc_collapse():
    tokenizer = build_tokenizer([" ", "我", "们", "好"])
    blank = tokenizer.pad_token_id
    assert blank == 4
    assert tokenizer.decode([1, 1, blank, 1, 2, 2, blank, blank, 3]) == "我我们好"
    assert tokenizer.decode([]) == tokenizer.decode([blank] * 5) == ""
    assert tokenizer.batch_decode([[1, 1, 2], [blank, 3, 3]]) == ["我们", "好"]


def test_offsets():
    tokenizer = build_tokenizer([" ", "今天", "好", "OK"])
    blank = tokenizer.pad_token_id
    output = tokenizer.decode([blank, 1, 1, blank, 2, 0, 3], output_char_offsets=True, output_word_offsets=True)
    assert output.text == "今天好 OK"
    assert [(o["char"], o["start_offset"], o["end_offset"]) for o in output.char_offsets] == [
        ("今", 1, 2),
        ("天", 2, 3),
        ("好", 4, 5),
        (" ", 5, 6),
        ("O", 6, 6.5),
        ("K", 6.5, 7),
    ]
    assert [o["word"] for o in output.word_offsets] == ["今", "天", "好", "OK"]
    with pytest.raises(ValueError, match="one by one"):
        tokenizer.decode([[1, 2], [2, 3]], output_char_offsets=True)


def test_a_mark_that_only_begins_words_keeps_its_space():
    """NeMo looks for punctuation in pieces that do not begin a word."""
    assert build_tokenizer(["你", "好", "▁。"]).decode([0, 2], group_tokens=False) == "你 。"
    assert build_tokenizer(["你", "。", "▁。"]).decode([0, 2], group_tokens=False) == "你。"


def test_vocabulary_is_the_truth():
    model = train("bpe")
    _, vocabulary = pieces(model)
    reordered = [*vocabulary[::-1], "▁EMOTION_HAPPY"]
    tokenizer = build_tokenizer(reordered, model)
    ids = tokenizer("今天 EMOTION_HAPPY")["input_ids"]
    assert reordered[ids[-1]] == "▁EMOTION_HAPPY"
    assert tokenizer.decode(ids, group_tokens=False) == "今天 EMOTION_HAPPY"


def test_characters_that_the_vocabulary_lacks_are_left_out():
    tokenizer = build_tokenizer([" ", "我", "好", "END"])
    assert tokenizer("我很好 END")["input_ids"] == [1, 2, 0, 3]


@pytest.mark.parametrize(
    ("vocabulary", "model", "message"),
    [
        (["a", "b", "a"], None, "repeats"),
        (["a"], b"not a model", "not a SentencePiece model"),
        (["a"], b"", "not a SentencePiece model"),
    ],
)
def test_refuses(vocabulary, model, message):
    with pytest.raises(ValueError, match=message):
        build_tokenizer(vocabulary, model)


def test_refuses_byte_fallback():
    model = train("bpe", byte_fallback=True, vocab_size=400)
    with pytest.raises(ValueError, match="byte fallback"):
        build_tokenizer(pieces(model)[1], model)
