"""
Write a manifest whose texts have their entities marked by rules and jieba's parts of speech.

    python annotate.py MANIFEST OUTPUT

Texts that have markers already are kept as they are. The marks are a machine's guess: good enough to train on beside
sentences that were made with their marks, not to measure with.
"""

import json
import re
import sys
from pathlib import Path

import jieba.posseg

from sentences import HAN, SURNAMES

_NUMBER = "[零一二两三四五六七八九十百点]+"
_PATTERNS = {
    "TEMPERATURE": f"(?:零下|摄氏)?{_NUMBER}度(?![假过])",
    "DATE": f"[零一二三四五六七八九]{{2,4}}年(?:{_NUMBER}月(?:{_NUMBER}[日号])?)?|{_NUMBER}月{_NUMBER}[日号]",
    "TIME": f"(?:早上|上午|中午|下午|晚上|凌晨)?[一二两三四五六七八九十]+点(?:整|半|一刻|{_NUMBER}分)(?!之)",
}
# A command for music, and what may follow the song's name.
_SONG = re.compile(
    "^(?:音乐搜索|播放歌曲|播放|来一首|我想听歌曲|想听歌曲|我想听|我要听|想听|放一首|下载)(?P<song>.+?)(?:这首歌|吧)?$"
)
_PARTS = {"nr": "PERSON_NAME", "ns": "LOCATION", "nt": "ORGANIZATION"}


def annotate(text: str) -> str:
    """Mark the entities in a plain text with `ENTITY_<TYPE>` and `END`, glued to the characters they enclose."""
    spans: list[tuple[int, int, str]] = []
    if song := _SONG.match(text):
        spans.append((*song.span("song"), "SONG_NAME"))
    for kind, pattern in _PATTERNS.items():
        spans += [(*match.span(), kind) for match in re.finditer(pattern, text)]
    spans += _names(text)
    marked, position = "", 0
    for start, end, kind in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= position:
            marked += f"{text[position:start]}ENTITY_{kind}{text[start:end]}END"
            position = end
    return marked + text[position:]


def _names(text: str) -> list[tuple[int, int, str]]:
    spans, position = [], 0
    for word, part in jieba.posseg.lcut(text, HMM=False):
        kind = _PARTS.get(part)
        if kind and len(word) > 1 and (kind != "PERSON_NAME" or word[0] in SURNAMES):
            spans.append((position, position + len(word), kind))
        position += len(word)
    return spans


def main(manifest: Path, output: Path) -> None:
    """Annotate every text of `manifest`; paths in `output` are absolute."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", encoding="utf-8") as file:
        for line in manifest.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if HAN.fullmatch(entry["text"]):  # markers cannot be glued to Latin letters
                entry["text"] = annotate(entry["text"])
            entry["audio_filepath"] = str((manifest.parent / entry["audio_filepath"]).resolve())
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
