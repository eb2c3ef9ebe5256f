"""Tokenizers trained on transcripts: their ids are SentencePiece's, their markers are whole."""

import json
import random
import shutil

import pytest
import sentencepiece
from transformers import AutoTokenizer

from citrinet import CitrinetTokenizer
from citrinet.cli import main
from citrinet.tokenizer.building import build_tokenizer
from citrinet.tokenizer.coverage import unknown_positions
from citrinet.tokenizer.training import save_tokenizer, tokenizer_of, train_sentencepiece, train_tokenizer

GLUED = "来首歌ENTITY_SONG_NAME吻别END"
SPACED = "她以 ENTITY_PRODUCT 滴鸡精 END 调养身体。 AGE_14_25 GENDER_FEMALE"
TEXTS = [
    GLUED,
    SPACED,
    "请播放一首好听的歌 ENTITY_SONG 月亮END吧 AGE_<14",
    "ENTITY_CITY上海ENDENTITY_DATE明天END",
    "今天北京的天气怎么样",
    "明天上海的天气好不好",
    "play some music please",
    "turn the music on END",
]
MARKERS = {"ENTITY_SONG_NAME", "ENTITY_SONG", "ENTITY_PRODUCT", "ENTITY_CITY", "ENTITY_DATE", "END"}
TAGS = {"AGE_14_25", "AGE_<14", "GENDER_FEMALE"}
TYPES = ["bpe", "unigram", "char"]


def processor_of(model):
    return sentencepiece.SentencePieceProcessor(model_proto=model)


@pytest.fixture(scope="module", params=[(kind, prefix) for kind in TYPES for prefix in (True, False)], ids=str)
def trained(request):
    kind, prefix = request.param
    return train_sentencepiece(TEXTS * 3, 130, kind, add_dummy_prefix=prefix), prefix


def test_labels_are_what_sentencepiece_gives(trained):
    processor, tokenizer = processor_of(trained[0]), tokenizer_of(trained[0])
    rng = random.Random(0)
    parts = [processor.id_to_piece(i).replace("▁", " ") for i in range(1, processor.vocab_size())] + [" ", "  ", "龘"]
    texts = ["".join(rng.choice(parts) for _ in range(rng.randint(0, 12))) for _ in range(500)]
    for text in [*TEXTS, *texts]:
        assert tokenizer(text)["input_ids"] == processor.encode(text), repr(text)
    assert len(tokenizer) == processor.vocab_size() + 1
    assert tokenizer.pad_token_id == processor.vocab_size()


def test_markers_are_whole_and_bring_no_word_boundaries(trained):
    model, prefix = trained
    tokenizer = tokenizer_of(model)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(GLUED)["input_ids"])
    assert "".join(tokens) == ("▁" if prefix else "") + GLUED
    assert [token for token in tokens if token in MARKERS] == ["ENTITY_SONG_NAME", "END"]
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(SPACED)["input_ids"])
    assert [t for t in tokens if t in MARKERS | TAGS] == ["ENTITY_PRODUCT", "END", "AGE_14_25", "GENDER_FEMALE"]


def test_every_text_is_written_as_it_was(trained):
    tokenizer = tokenizer_of(trained[0])
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, group_tokens=False) == text


def test_pieces_of_several_characters_are_learned():
    vocabularies = {kind: train_tokenizer(TEXTS * 3, 130, kind).get_vocab().keys() - MARKERS - TAGS for kind in TYPES}
    assert any("天气" in piece for piece in vocabularies["bpe"])
    assert max(len(token) for token in vocabularies["char"] if not token.startswith("<")) == 1
    assert all(len(vocabulary) <= 131 for vocabulary in vocabularies.values())


def test_one_long_text_is_not_passed_over():
    """SentencePiece leaves lines of more than 4192 bytes out unless told otherwise."""
    tokenizer = train_tokenizer(["好" * 2000, "你" * 3], 10, "char")
    assert tokenizer.unk_token_id not in tokenizer("你好")["input_ids"]


@pytest.mark.parametrize("kind", TYPES)
def test_a_single_short_text(kind):
    tokenizer = train_tokenizer(["好\x00的"], 20, kind)
    assert tokenizer.decode(tokenizer("好的")["input_ids"], group_tokens=False) == "好的"


def test_symbols_that_no_text_holds():
    tokenizer = train_tokenizer(TEXTS, 130, "bpe", user_defined_symbols=["DIALECT_NORTH", "END"])
    ids = tokenizer("好DIALECT_NORTH")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[-1] == "DIALECT_NORTH"


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_no_text(texts):
    with pytest.raises(ValueError, match="no text to train"):
        train_tokenizer(texts, 100)


def test_unknown_kind():
    with pytest.raises(ValueError, match="'bpe', 'unigram' or 'char'"):
        train_tokenizer(TEXTS, 100, "word")


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("vocab_size", [2, 40])
def test_a_vocabulary_that_is_too_small(kind, vocab_size):
    with pytest.raises(ValueError, match=f"{vocab_size} pieces"):
        train_tokenizer(TEXTS, vocab_size, kind)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_the_size_that_the_error_asks_for_is_enough(kind):
    with pytest.raises(ValueError, match=r"allow \d+ at least") as caught:
        train_tokenizer(TEXTS, 40, kind)
    size = int(str(caught.value).split("allow ")[1].split()[0])
    tokenizer = train_tokenizer(TEXTS, size, kind)
    assert all(tokenizer.unk_token_id not in tokenizer(text)["input_ids"] for text in TEXTS)
    with pytest.raises(ValueError, match="at least"):
        train_tokenizer(TEXTS, size - 1, kind)


def test_saved_files(tmp_path):
    model = train_sentencepiece(TEXTS, 130)
    save_tokenizer(tmp_path, model)
    save_tokenizer(tmp_path, model)  # in the place of the first
    assert (tmp_path / "tokenizer.model").read_bytes() == model
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(tokenizer, CitrinetTokenizer)
    assert tokenizer(GLUED)["input_ids"] == processor_of(model).encode(GLUED)


@pytest.mark.parametrize("foreign", ["config.json", "model.safetensors", "model.onnx", "notes.txt", ".git"])
def test_a_folder_of_something_else_is_left_alone(tmp_path, foreign):
    save_tokenizer(tmp_path, train_sentencepiece(TEXTS, 130))
    (tmp_path / foreign).write_text("{}")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=f"holds .*{foreign}.*choose a new folder"):
        save_tokenizer(tmp_path, train_sentencepiece(TEXTS, 120, "char"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# What a tokenizer does not know


@pytest.mark.parametrize("kind", TYPES)
def test_unknown_characters_are_found_where_they_stand(kind):
    """Whatever stands around them, and several in a row."""
    tokenizer = train_tokenizer(TEXTS * 3, 130, kind)
    for text in [*TEXTS, "天气 music", ""]:
        assert unknown_positions(tokenizer, text) == []
    text = "請問臺ENTITY_CITY上海END的 龘,"
    assert [text[i] for i in unknown_positions(tokenizer, text)] == ["請", "問", "臺", "龘", ","]


def test_unknown_characters_of_a_vocabulary_of_characters():
    """NeMo's parser leaves them out; with spaces unknown, those are named too."""
    tokenizer = build_tokenizer([*"你好吗", "END", "GENDER_MALE"])
    text = "你 好龘吗ENDGENDER_MALE"
    assert [text[i] for i in unknown_positions(tokenizer, text)] == [" ", "龘"]
    assert unknown_positions(build_tokenizer(list("ab")), "abBa") == [2]


# The command


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifests")
    paths = [folder / "a.jsonl", folder / "b.jsonl"]
    for path, texts in zip(paths, (TEXTS[:4], [*TEXTS[4:], None]), strict=True):
        lines = [json.dumps({"audio_filepath": "a.wav", "text": text}) for text in texts]
        path.write_text("\n".join(lines), encoding="utf-8")
    return [str(path) for path in paths]


@pytest.mark.parametrize(
    ("flags", "present", "absent"),
    [
        ([], MARKERS, TAGS),
        (["--keep-tags"], MARKERS | TAGS, set()),
        (["--drop-entities", "--model-type", "unigram"], set(), MARKERS | TAGS),
        (["--model-type", "char", "--user-defined-symbols", "AGE_14_25"], MARKERS | {"AGE_14_25"}, {"GENDER_FEMALE"}),
    ],
)
def test_command(manifests, tmp_path, capsys, flags, present, absent):
    arguments = ["--output", str(tmp_path / "tok"), "--vocab-size", "130", *flags]
    assert main(["tokenizer", *manifests, *arguments]) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tok")
    assert present <= tokenizer.get_vocab().keys()
    assert not absent & tokenizer.get_vocab().keys()
    assert f"{len(tokenizer)} tokens" in capsys.readouterr().out
    assert tokenizer.convert_ids_to_tokens(tokenizer("好")["input_ids"])[0].startswith("▁")


def test_command_without_dummy_prefix(manifests, tmp_path):
    assert main(["tokenizer", *manifests, "--output", str(tmp_path), "--vocab-size", "130", "--no-dummy-prefix"]) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert "".join(tokenizer.convert_ids_to_tokens(tokenizer(GLUED)["input_ids"])) == GLUED


def test_command_leaves_a_model_alone(manifests, tmp_path, zh_small_dir, capsys):
    model = shutil.copytree(zh_small_dir, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    assert main(["tokenizer", *manifests, "--output", str(model), "--vocab-size", "130"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "holds a model (" in captured.err and len(captured.err.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()} == before
    for _ in range(2):  # the second time in the place of the first
        assert main(["tokenizer", *manifests, "--output", str(tmp_path / "tok"), "--vocab-size", "130"]) == 0


def test_command_fails_with_one_line(manifests, tmp_path, capsys):
    assert main(["tokenizer", *manifests, "--output", str(tmp_path / "tok"), "--vocab-size", "9"]) == 1
    assert main(["tokenizer", str(tmp_path / "none.jsonl"), "--output", str(tmp_path / "tok")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "9 pieces cannot hold" in errors[0] and "none.jsonl" in errors[1]
    assert not (tmp_path / "tok").exists()
