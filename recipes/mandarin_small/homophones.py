"""
Write manifests in which one character stands for all that sound alike.

    python homophones.py OUTPUT MANIFEST...

1,200 tonal syllables can be learnt from little speech, 3,400 characters cannot. A network that first learns to write
one character for each syllable then only has to learn which of its homophones is meant.
"""

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

import jieba
from pypinyin import Style, lazy_pinyin

from sentences import HAN, Sentence


def main(output: Path, manifests: list[Path]) -> None:
    """Write one manifest of the same name into `output` for each of `manifests`."""
    entries = {path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] for path in manifests}
    counts: dict[str, Counter] = defaultdict(Counter)
    for entry in (entry for lines in entries.values() for entry in lines):
        for character, syllable in read(entry["text"]):
            counts[syllable][character] += 1
    canonical = {syllable: characters.most_common(1)[0][0] for syllable, characters in counts.items()}
    output.mkdir(parents=True, exist_ok=True)
    for path, lines in entries.items():
        with (output / f"{path.parent.name}_{path.name}").open("w", encoding="utf-8") as file:
            for entry in lines:
                text = "".join(canonical[syllable] for _, syllable in read(entry["text"]))
                entry |= {"audio_filepath": str((path.parent / entry["audio_filepath"]).resolve()), "text": text}
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    print(f"{len(canonical)} syllables, {sum(len(c) for c in counts.values())} readings of characters")


def read(text: str) -> list[tuple[str, str]]:
    """Spoken characters of a text with their tonal syllables; what is no Chinese character stands for itself."""
    pairs = []
    for word in jieba.lcut(Sentence(text, "read").spoken):
        syllables = lazy_pinyin(word, style=Style.TONE3, neutral_tone_with_five=True) if HAN.fullmatch(word) else word
        pairs += zip(word, syllables, strict=True)
    return pairs


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
