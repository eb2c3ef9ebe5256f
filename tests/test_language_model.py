import gzip
import io
import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest

from citrinet.cli import main
from citrinet.language_model import arpa, read_language_model
from citrinet.language_model.kenlm_model import KenLMModel
from citrinet.language_model.spelling import spell, split_characters
from citrinet.language_model.training import train

# Letters as rare as words are in a language, so that n-grams of each length occur once, twice, three and four times.
_RANDOM = np.random.default_rng(0)
_LETTERS = [*"abc", *(chr(ord("一") + index) for index in range(77))]
_CHANCES = 1 / np.arange(1, len(_LETTERS) + 1) ** 1.3
SENTENCES = [
    _RANDOM.choice(_LETTERS, size, p=_CHANCES / _CHANCES.sum()).tolist() for size in _RANDOM.integers(1, 6, 400)
]


class ByHand:
    """Interpolated modified Kneser-Ney smoothing as Chen and Goodman (1999) write it, one probability at a time."""

    def __init__(self, sentences, order):
        self.order = order
        padded = [["<s>", *sentence, "</s>"] for sentence in sentences]
        self.grams = [
            Counter(tuple(s[i : i + n]) for s in padded for i in range(len(s) - n + 1)) for n in range(1, order + 1)
        ]
        self.words = {w for s in padded for w in s} - {"<s>"} | {"<unk>"}
        self.counts = [self._counts(n) for n in range(1, order + 1)]
        self.discounts = [self._discounts(counts) for counts in self.counts]

    def _counts(self, n):
        if n == self.order:
            return self.grams[n - 1]
        longer = self.grams[n]
        return {
            gram: count if gram[0] == "<s>" else sum(1 for other in longer if other[1:] == gram)
            for gram, count in self.grams[n - 1].items()
            if gram != ("<s>",)
        }

    @staticmethod
    def _discounts(counts):
        n = [sum(1 for count in counts.values() if count == k) for k in range(5)]
        assert all(n[1:]), "there are too few sentences to say"
        y = n[1] / (n[1] + 2 * n[2])
        return [0] + [k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3)]

    def prob(self, word, context):
        if not context:
            lower = 1 / len(self.words)
            followers = self.counts[0]
        else:
            lower = self.prob(word, context[1:])
            followers = {
                gram: count for gram, count in self.counts[len(context)].items() if gram[:-1] == tuple(context)
            }
        if not followers:
            return lower
        discount = self.discounts[len(context)]
        total = sum(followers.values())
        left_over = sum(discount[min(count, 3)] for count in followers.values())
        count = followers.get((*context, word), 0)
        return (count - discount[min(count, 3)] + left_over * lower) / total


def state_after(model, context):
    state = np.array([0])
    if context[:1] == ["<s>"]:
        state, context = np.array([model.begin()]), context[1:]
    for token in context:
        _, state = model.score(state, np.array([model.ids[token]]))
    return state[0]


def log_probs_after(model, context):
    """Natural logarithms of the probabilities of all tokens but <s>."""
    tokens = np.array([index for token, index in model.ids.items() if token != "<s>"])
    scores, _ = model.score(np.full(len(tokens), state_after(model, context)), tokens)
    return {model.vocabulary[token]: float(score) for token, score in zip(tokens, scores, strict=True)}


def contexts(length):
    alphabet = "abc"
    yield from (list(chars) for n in range(length + 1) for chars in itertools.product(alphabet, repeat=n))
    yield from (["<s>", *chars] for n in range(length) for chars in itertools.product(alphabet, repeat=n))


@pytest.mark.parametrize("order", [2, 3])
def test_smoothing_is_that_of_chen_and_goodman(order):
    model, by_hand = train(SENTENCES, order), ByHand(SENTENCES, order)
    assert model.order == order
    assert model.counts[1:] == [len(grams) for grams in by_hand.grams[1:]]
    for context in contexts(order - 1):
        for token, score in log_probs_after(model, context).items():
            assert math.exp(score) == pytest.approx(by_hand.prob(token, context), rel=2e-5), (context, token)


@pytest.mark.parametrize("prune", [0.0, 1e-3, 1e-2])
def test_probabilities_sum_to_one(prune):
    model = train(SENTENCES, 4, prune)
    for context in contexts(3):
        total = sum(map(math.exp, log_probs_after(model, context).values()))
        assert total == pytest.approx(1, abs=1e-5), context


def test_pruning_leaves_out_what_matters_least():
    """The relative entropy of each n-gram's loss, summed over all tokens rather than by Stolcke's formula."""
    whole, threshold = train(SENTENCES, 2), 2e-3
    pruned = train(SENTENCES, 2, threshold)
    text = Counter(token for sentence in SENTENCES for token in ["<s>", *sentence, "</s>"])
    bigrams = {tuple(gram) for gram in ngrams(whole, 2)}
    kept = {tuple(gram) for gram in ngrams(pruned, 2)}
    for context, token in bigrams:
        probs = {name: math.exp(value) for name, value in log_probs_after(whole, [context]).items()}
        lower = {name: math.exp(value) for name, value in log_probs_after(whole, []).items()}
        seen = {name for first, name in bigrams if first == context} - {token}
        weight = (1 - sum(probs[name] for name in seen)) / (1 - sum(lower[name] for name in seen))
        without = {name: prob if name in seen else weight * lower[name] for name, prob in probs.items()}
        loss = sum(prob * math.log(prob / without[name]) for name, prob in probs.items())
        loss *= text[context] / text.total()
        if abs(math.expm1(loss) / threshold - 1) > 0.01:  # what is on the threshold may fall on either side
            assert ((context, token) in kept) == (math.expm1(loss) >= threshold), (context, token)
    assert 0 < len(kept) < len(bigrams)


def ngrams(model, length):
    text = io.StringIO()
    arpa.write(model, text)
    section = text.getvalue().split(f"\\{length}-grams:\n")[1].split("\n\n")[0]
    return [line.split("\t")[1].split() for line in section.splitlines()]


def test_the_order_of_sentences_does_not_matter():
    files = []
    for sentences in (SENTENCES, SENTENCES[::-1]):
        files.append(io.BytesIO())
        train(sentences, 3, 1e-3).save(files[-1])
    assert files[0].getvalue() == files[1].getvalue()


@pytest.mark.parametrize(
    ("sentences", "order", "prune", "message"),
    [([], 3, 0, "no text"), ([[]], 3, 0, "no text"), (SENTENCES, 1, 0, "2 or more"), (SENTENCES, 3, -1, "1e-7")],
)
def test_training_refuses(sentences, order, prune, message):
    with pytest.raises(ValueError, match=message):
        train(sentences, order, prune)


def test_text_of_a_single_sentence_trains():
    model = train([["a", "b"]], 4)
    assert model.counts == [5, 3, 2, 1]
    assert sum(map(math.exp, log_probs_after(model, ["a"]).values())) == pytest.approx(1, abs=1e-5)


def saved(model, path):
    with path.open("wb") as file:
        model.save(file)
    return path


def test_small_files_hold_the_same_within_half_a_step(tmp_path):
    model = train(SENTENCES, 4)
    read = read_language_model(saved(model, tmp_path / "lm.npz"))
    assert read.vocabulary == model.vocabulary and (read.trie.keys == model.trie.keys).all()
    for ours, theirs in ((model.log_probs, read.log_probs), (model.back_offs, read.back_offs)):
        for start, stop in itertools.pairwise(model.trie.levels[1:]):
            half_step = np.ptp(ours[start:stop]) / 255 / 2
            assert np.abs(ours[start:stop] - theirs[start:stop]).max() <= 1.01 * half_step
    assert read.settings == {}


def test_a_model_of_which_only_single_tokens_are_left(tmp_path):
    model = train(SENTENCES, 3, 0.9)
    assert model.order == 1
    read = read_language_model(saved(model, tmp_path / "lm.npz"))
    assert sum(map(math.exp, log_probs_after(read, ["a", "b"]).values())) == pytest.approx(1, abs=0.02)  # of 8 bits


def test_settings_stay_with_the_model(tmp_path):
    model = train(SENTENCES, 2)
    model.settings["weight"] = 0.3
    assert read_language_model(saved(model, tmp_path / "lm.npz")).settings == {"weight": 0.3}


@pytest.mark.parametrize("compressed", [False, True])
def test_arpa_files_are_read_as_written(tmp_path, compressed):
    model = train(SENTENCES, 4, 1e-3)
    text = io.StringIO()
    arpa.write(model, text)
    content = text.getvalue().encode()
    (tmp_path / "lm.arpa").write_bytes(gzip.compress(content) if compressed else content)
    read = read_language_model(tmp_path / "lm.arpa")
    assert read.counts == model.counts
    for context in contexts(2):
        expected = log_probs_after(model, context)
        found = log_probs_after(read, context)
        assert found == pytest.approx(expected, abs=2e-5), context


ARPA = r"""
# a remark

\data\
ngram 1=4
ngram 2=2

\1-grams:
-99	<s>	-0.5
-1	</s>
-0.5	b	-0.25
-0.4	a	-0.3

\2-grams:
-0.1 <s> a
-0.2 a b

\end\
"""


def test_arpa_of_another_program(tmp_path):
    """Columns set off by spaces, back-offs left out, no <unk>, which then is as likely as the rarest token."""
    (tmp_path / "lm.arpa").write_text(ARPA)
    model = read_language_model(tmp_path / "lm.arpa")
    a, b, stop, unknown = (model.ids[token] for token in ("a", "b", "</s>", "<unk>"))
    scores, states = model.score(np.array([model.begin()] * 3), np.array([a, b, unknown]))
    assert scores / math.log(10) == pytest.approx([-0.1, -0.5 - 0.5, -0.5 - 1], abs=1e-6)
    scores, _ = model.score(states, np.array([b, stop, b]))
    assert scores / math.log(10) == pytest.approx([-0.2, -0.25 - 1, -0.5], abs=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\", "data", r"no ARPA file, which has a line"),
        ("ngram 2=2", "ngram 3=2", "`ngram 2=...` is expected"),
        ("ngram 1=4", "ngram 1=5", "number of n-grams is wrong"),
        ("ngram 2=2", "ngram 2=1", "number of n-grams is wrong"),
        ("-0.2 a b", "-0.2 a c", "'c' is in an n-gram"),
        ("-0.2 a b", "-0.2 <s> a", "there twice"),
        ("-0.2 a b", "minus a b", "could not convert"),
        ("\\end\\", "", "end"),
    ],
)
def test_damaged_arpa_files_are_refused(tmp_path, old, new, message):
    (tmp_path / "lm.arpa").write_text(ARPA.replace(old, new))
    with pytest.raises(ValueError, match=message) as caught:
        read_language_model(tmp_path / "lm.arpa")
    assert str(caught.value).startswith(str(tmp_path))


def test_arpa_with_a_missing_beginning_is_refused(tmp_path):
    text = ARPA.replace("ngram 2=2", "ngram 2=2\nngram 3=1").replace("\\end\\", "\\3-grams:\n-1 b a b\n\n\\end\\")
    (tmp_path / "lm.arpa").write_text(text)
    with pytest.raises(ValueError, match="begins with one that is missing"):
        read_language_model(tmp_path / "lm.arpa")


@pytest.mark.parametrize(
    "damage", [lambda c: c[:200], lambda c: c[:1000] + bytes(400) + c[1400:], lambda c: b"PK\x03\x04"]
)
def test_damaged_small_files_are_refused(tmp_path, damage):
    path = saved(train(SENTENCES, 3), tmp_path / "lm.npz")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="no language model"):
        read_language_model(path)


def test_kenlm_scores_the_same(tmp_path):
    """KenLM itself reads what is written here, and scores it as this package does."""
    kenlm = pytest.importorskip("kenlm")
    model = train(SENTENCES, 4, 1e-3)
    path = tmp_path / "lm.arpa"
    with path.open("w", encoding="utf-8") as file:
        arpa.write(model, file)
    theirs, wrapped = kenlm.Model(str(path)), KenLMModel(path)
    for sentence in [*SENTENCES, list("一一一一"), list("abcxab"), []]:
        for read in (model, wrapped):
            states, total = np.array([read.begin()]), 0.0
            for token in [*sentence, "</s>"]:
                scores, states = read.score(states, np.array([read.ids.get(token, read.ids["<unk>"])]))
                total += float(scores[0])
            assert total / math.log(10) == pytest.approx(theirs.score(" ".join(sentence)), abs=1e-4)


def test_kenlm_binary_files_need_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "kenlm", None)
    (tmp_path / "lm.binary").write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0")
    with pytest.raises(ImportError, match="pip install kenlm"):
        read_language_model(tmp_path / "lm.binary")


def test_texts_become_characters_and_markers():
    assert split_characters("来首ENTITY_SONG_NAME吻别END。") == [
        "来",
        "首",
        "ENTITY_SONG_NAME",
        "吻",
        "别",
        "END",
        "。",
    ]
    assert split_characters("播放 Let it") == ["播", "放", *"▁Let▁it"]
    ids = {token: index for index, token in enumerate(["<unk>", "a", "b", "▁", "END", "▁ab"])}
    pieces = ["a", "▁a", "▁ab", "ab", "中", "▁中", "END", "▁END", "AGE_14_25", "▁"]
    expected = [[1], [3, 1], [5], [1, 2], [0], [0], [4], [4], [], [3]]
    assert [[unit for unit in row if unit >= 0] for row in spell(pieces, ids, 0).tolist()] == expected


def test_command_trains_on_all_kinds_of_files(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("你好\n\n再见\n", encoding="utf-8")
    lines = [
        {"audio_filepath": "x.wav", "text": "我是ENTITY_PERSON_NAME汪环END"},
        {"audio_filepath": "y.wav"},
        {"text": "你好 吗"},
    ]
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    (tmp_path / "test.txt").write_text("再见\n", encoding="utf-8")
    texts = [str(tmp_path / name) for name in ("a.txt", "b.jsonl.gz")]
    outputs = [tmp_path / name for name in ("lm.arpa", "lm.arpa.gz", "lm.npz")]
    for output in outputs:
        assert main(["lm", "train", *texts, "--output", str(output), "--exclude", str(tmp_path / "test.txt")]) == 0
    assert "12 1-grams" in capsys.readouterr().out
    models = [read_language_model(output) for output in outputs]
    assert set(models[0].vocabulary) == {"<unk>", "<s>", "</s>", "ENTITY_PERSON_NAME", "END", *"你好我是汪环吗"}
    for model in models[1:]:
        assert model.vocabulary == models[0].vocabulary and model.counts == models[0].counts
    assert outputs[0].read_bytes() == gzip.decompress(outputs[1].read_bytes())


def test_command_trains_on_the_pieces_of_a_model(tmp_path, tiny_dir):
    from citrinet.checkpoint import load_tokenizer

    (tmp_path / "a.txt").write_text("hello world\nhow are you\n", encoding="utf-8")
    output = tmp_path / "lm.arpa"
    assert main(["lm", "train", str(tmp_path / "a.txt"), "--pieces", str(tiny_dir), "--output", str(output)]) == 0
    pieces = set(
        load_tokenizer(str(tiny_dir)).tokenize("hello world") + load_tokenizer(str(tiny_dir)).tokenize("how are you")
    )
    assert set(read_language_model(output).vocabulary) == pieces | {"<unk>", "<s>", "</s>"}


def test_command_refuses(tmp_path, capsys):
    text, other = tmp_path / "a.txt", tmp_path / "notes.arpa"
    text.write_text("你好\n", encoding="utf-8")
    other.write_text("my notes")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "bad.jsonl").write_text("{")
    (tmp_path / "empty.txt").write_text("\n")
    for arguments, message in [
        ([text, "--output", tmp_path / "lm.bin"], "name a file that ends in"),
        ([text, "--output", other, "--force"], "is no language model"),
        ([tmp_path / "none.txt", "--output", tmp_path / "lm.arpa"], "none.txt"),
        ([tmp_path / "bad.txt", "--output", tmp_path / "lm.arpa"], "no UTF-8"),
        ([tmp_path / "bad.jsonl", "--output", tmp_path / "lm.arpa"], "no JSON"),
        ([tmp_path / "empty.txt", "--output", tmp_path / "lm.arpa"], "no text"),
        ([text, "--output", tmp_path / "lm.arpa", "--lm-weight", "1"], "only .npz"),
    ]:
        assert main(["lm", "train", *map(str, arguments)]) == 1
        assert message in capsys.readouterr().err, message
    assert other.read_text() == "my notes" and not (tmp_path / "lm.arpa").exists()
