"""From texts to the token ids that are trained on, and what is lost on the way."""

from collections import Counter
from dataclasses import dataclass, field

from ..error_rates import normalize
from ..tokenization_citrinet import CitrinetTokenizer
from ..tokenizer.coverage import unknown_positions

SHOWN = 10  # unknown characters that are named


def label_ids(tokenizer: CitrinetTokenizer, text: str) -> list[int]:
    """
    Token ids to train on.

    Punctuation, symbols and spaces that the tokenizer does not know are left out, as error rates leave them out: a
    network is not to write an unknown token for what nobody says. Letters and digits that it does not know are unknown
    tokens, see [`describe_unknown`].

    Args:
        tokenizer: of the network.
        text: the target of the CTC head, with markers.
    """
    silent = {index for index in unknown_positions(tokenizer, text) if not normalize(text[index])}
    known = "".join(char for index, char in enumerate(text) if index not in silent)
    ids: list[int] = tokenizer.backend_tokenizer.encode(known, add_special_tokens=False).ids
    return ids


def describe_unknown(tokenizer: CitrinetTokenizer, texts: list[str]) -> list[str]:
    """
    Say which characters of the texts a tokenizer does not know, and what becomes of them.

    Args:
        tokenizer: of the network.
        texts: targets of the CTC head, with markers.

    Returns:
        A line for letters and digits, and one for punctuation, symbols and spaces; neither where there are none.
    """
    spoken, silent = _Unknown(), _Unknown()
    for text in texts:
        chars = [text[index] for index in unknown_positions(tokenizer, text)]
        spoken.add([char for char in chars if normalize(char)])
        silent.add([char for char in chars if not normalize(char)])
    becomes = "left out" if tokenizer.unk_token is None else f"trained as {tokenizer.unk_token}"
    lines = []
    if spoken.utterances:
        advice = "give the model a tokenizer that knows them (`tokenizer` in the recipe), or mend the texts"
        lines.append(f"warning: {spoken.describe('characters')}: they are {becomes}; {advice}")
    if silent.utterances:
        lines.append(f"{silent.describe('spaces, marks or symbols')}: they are left out")
    return lines


@dataclass
class _Unknown:
    """Characters that a tokenizer does not know, and how many utterances hold some."""

    utterances: int = 0
    counts: "Counter[str]" = field(default_factory=Counter)

    def add(self, chars: list[str]) -> None:
        self.utterances += bool(chars)
        self.counts.update(chars)

    def describe(self, kind: str) -> str:
        named = [f"{_name(char)} {count}" for char, count in self.counts.most_common(SHOWN)]
        named += [f"and {len(self.counts) - SHOWN} others"] if len(self.counts) > SHOWN else []
        hold = "utterance holds" if self.utterances == 1 else "utterances hold"
        return (
            f"{self.utterances} {hold} {self.counts.total()} {kind} that the tokenizer does not know "
            f"({', '.join(named)})"
        )


def _name(char: str) -> str:
    if char == " ":
        return "space"
    return char if char.isprintable() else f"U+{ord(char):04X}"
