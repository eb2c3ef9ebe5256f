"""
Read plain sentences from published corpora. Download them to run the recipe; they are not part of it:

    AISHELL-1   openslr.org/33, Apache-2.0      transcript/aishell_transcript_v0.8.txt
    AISHELL-3   openslr.org/93, Apache-2.0      train/content.txt, with transcribed pinyin
    THCHS-30    openslr.org/18, Apache-2.0      the .trn files of the folder data/
    Tatoeba     tatoeba.org, CC BY 2.0 FR       cmn_sentences.tsv, or pairs with another language
    any other   NeMo manifests, or text files with one sentence per line
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..utterance import spoken
from .words import level

SHORTEST, LONGEST = 4, 28
_PAUSES = re.compile("[，,、；;：:。.！!？?…—]+")
_QUOTES = re.compile(r"[\s“”‘’\"'「」『』《》〈〉（）()·-]+")
_HAN = re.compile("[\u4e00-\u9fff]")
_SYLLABLE = re.compile("[a-zü]+[1-5]")


@dataclass(frozen=True)
class Sentence:
    """
    A sentence to speak.

    Args:
        text: Han characters, with markers if entities are known; `，` for pauses, and `？` or `！` at the end.
        source: name of its source.
        given: transcribed pinyin of each character, if the corpus has it.
    """

    text: str
    source: str
    given: tuple[str, ...] = ()

    @property
    def plain(self) -> str:
        """The characters without markers and punctuation."""
        return re.sub("[^\u4e00-\u9fff]", "", spoken(self.text))


def read_transcripts(paths: Iterable[str | Path]) -> list[Sentence]:
    """
    Read plain sentences of 4 to 28 simplified characters, leaving out those with digits, Latin or rare characters.

    Args:
        paths: files as published, or folders of `.trn` files.

    Returns:
        Distinct sentences, in the order of the files.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if a file has no such sentence, or is not in UTF-8.
    """
    found: dict[str, Sentence] = {}
    for path in map(Path, paths):
        files = sorted(path.glob("**/*.trn")) if path.is_dir() else [path]
        sentences = [sentence for file in files for sentence in _sentences(file)]
        if not sentences:
            raise ValueError(
                f"{path}: no Mandarin sentence of {SHORTEST} to {LONGEST} simplified characters. Give transcripts as "
                "AISHELL, THCHS-30 or Tatoeba publish them, a NeMo manifest, or one sentence a line."
            )
        for sentence in sentences:
            found.setdefault(sentence.plain, sentence)
    return list(found.values())


def read_manifest_texts(path: str | Path) -> Iterator[str]:
    """Texts of a NeMo manifest."""
    from citrinet.manifest import read_manifest  # imports PyTorch, which nothing else here needs

    return (entry.text for entry in read_manifest(path) if entry.text)


def _sentences(path: Path) -> Iterator[Sentence]:
    lines: Iterable[tuple[str, str, tuple[str, ...]]]
    if path.suffix in {".json", ".jsonl"}:
        lines = (("manifest", text, ()) for text in read_manifest_texts(path))
    elif path.suffix == ".trn":  # the second line is pinyin, the third are phonemes
        lines = [("thchs30", _text(path).partition("\n")[0], ())]
    else:
        lines = map(_line, _text(path).splitlines())
    for source, raw, given in lines:
        if text := clean(raw):
            yield Sentence(text, source, given)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8: convert it to UTF-8.") from error


def _line(line: str) -> tuple[str, str, tuple[str, ...]]:
    """Source, text and pinyin of a line in any of the formats."""
    fields = line.split("\t")
    if len(fields) > 1 and fields[0].endswith(".wav"):
        tokens = fields[1].split()
        return "aishell3", "".join(tokens[::2]), tuple(s for s in tokens[1::2] if _SYLLABLE.fullmatch(s))
    if len(fields) > 1:
        return "tatoeba", next(filter(_HAN.search, fields), ""), ()
    first, _, rest = line.strip().partition(" ")
    if first.isascii() and rest:
        return "aishell1" if first.startswith("BAC009") else "text", rest, ()
    return "text", line, ()


def clean(raw: str) -> str | None:
    """Normalise a sentence to pauses and end mark as in [`Sentence`]; `None` if it is not suitable."""
    text = _QUOTES.sub("", raw)
    end = {"?": "？", "？": "？", "!": "！", "！": "！"}.get(text[-1:], "")
    text = _PAUSES.sub("，", text).strip("，")
    characters = spoken(text).replace("，", "")
    return text + end if SHORTEST <= len(characters) <= LONGEST and level(characters) else None
