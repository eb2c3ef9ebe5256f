"""From texts to token ids for training, and a report of characters that the tokenizer does not know."""

from collections import Counter
from dataclasses import dataclass, field

from ..error_rates import normalize
from ..tokenization_citrinet import CitrinetTokenizer
from ..tokenizer.coverage import unknown_positions

SHOWN = 10  # unknown characters to list


def label_ids(tokenizer: CitrinetTokenizer, text: str) -> list[int]:
    """
    Convert a text to token ids for training.

    Punctuation, symbols and spaces that the tokenizer does not know are left out, as in error rates: the network should
    not learn an unknown token for what is not spoken. Unknown letters and digits become unknown tokens, see
    [`describe_unknown`].

    Args:
        tokenizer: tokenizer of the network.
        text: the target of the CTC head, with markers.
    """
    silent = {index for index in unknown_positions(tokenizer, text) if not normalize(text[index])}
    known = "".join(char for index, char in enumerate(text) if index not in silent)
    ids: list[int] = tokenizer.backend_tokenizer.encode(known, add_special_tokens=False).ids
    return ids


def describe_unknown(tokenizer: CitrinetTokenizer, texts: list[str]) -> list[str]:
    """
    Describe the characters of texts that a tokenizer does not know, and how they are handled.

    Args:
        tokenizer: tokenizer of the network.
        texts: targets of the CTC head, with markers.

    Returns:
        A line for letters and digits, and one for punctuation, symbols and spaces, each only if there are any.
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
    """Counts of characters that a tokenizer does not know, and of the utterances that have some."""

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
