"""Token ids to text and back, with CTC's collapse and times for every character."""

import itertools
import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerFast
from transformers.utils import ModelOutput, to_py_obj

from .transcript_citrinet import Span, split_words

WORD_BOUNDARY = "▁"
# Pieces in which NeMo does not look for punctuation marks: the first of a word, continuations, special tokens, space.
_NO_PUNCTUATION = re.compile(r"▁|##|<.*>$|\[.*\]$|\s*$")


@dataclass
class CitrinetTokenizerOutput(ModelOutput):
    """
    Output of [`CitrinetTokenizer.decode`] with `output_char_offsets` or `output_word_offsets`.

    Args:
        text: the decoded text.
        char_offsets: `{"char", "start_offset", "end_offset"}` for each character, in frames.
        word_offsets: `{"word", "start_offset", "end_offset"}` for each word, in frames.
    """

    text: str | list[str] | None = None
    char_offsets: list | None = None
    word_offsets: list | None = None


@dataclass(frozen=True)
class CTCToken:
    """One token that CTC emitted: its id and the frames [start, end) over which it was the best."""

    id: int
    start: int
    end: int


class CitrinetTokenizer(PreTrainedTokenizerFast):
    """
    SentencePiece (BPE or unigram) or character vocabulary with greedy CTC decoding.

    Decoding groups repeated ids, drops the blank (the pad token) and joins the pieces as SentencePiece does; then, as
    NeMo does, one space before each punctuation mark of the vocabulary is removed. Encoding gives SentencePiece's ids.

    Args:
        leading_boundaries (`str`, defaults to `"keep"`):
            What becomes of word boundaries (`▁`) at the start of the text: `"keep"` writes spaces for them,
            `"drop_one"` and `"drop_all"` do what SentencePiece does with a dummy prefix, the second if it also removes
            extra whitespace.
    """

    model_input_names = ["input_ids", "attention_mask"]
    replace_word_delimiter_char = " "

    def decode(
        self, token_ids, skip_special_tokens=False, output_char_offsets=False, output_word_offsets=False, **kwargs
    ):
        """
        Decode frame-wise (or, with `group_tokens=False`, already collapsed) token ids.

        Args:
            token_ids: ids of one sequence, or of a batch.
            skip_special_tokens (`bool`, defaults to `False`): whether to leave out unknown tokens too.
            output_char_offsets (`bool`, defaults to `False`): whether to return each character's frames.
            output_word_offsets (`bool`, defaults to `False`): whether to return each word's frames.
            **kwargs: `group_tokens` (`bool`, defaults to `True`), whether repeats stand for one token.

        Returns:
            The text, or a [`CitrinetTokenizerOutput`] when offsets are asked for.
        """
        if not output_char_offsets and not output_word_offsets:
            return super().decode(token_ids, skip_special_tokens=skip_special_tokens, **kwargs)
        tokens = self.ctc_tokens(token_ids, group_tokens=kwargs.get("group_tokens", True))
        text, spans = self.text_with_spans(tokens, skip_special_tokens)
        chars = [{"char": c, "start_offset": s.start, "end_offset": s.end} for c, s in zip(text, spans, strict=True)]
        return CitrinetTokenizerOutput(
            text=text,
            char_offsets=chars if output_char_offsets else None,
            word_offsets=self._get_word_offsets(chars) if output_word_offsets else None,
        )

    def ctc_tokens(self, token_ids, group_tokens: bool = True) -> list[CTCToken]:
        """
        Collapse frame-wise ids: group repeats, drop the blank.

        Args:
            token_ids: (T',) ids, list, array or tensor.
            group_tokens: whether repeats stand for one token; if not, every id is a token of one frame.

        Returns:
            The tokens with the frames over which each was emitted.
        """
        ids = to_py_obj(token_ids)
        ids = [ids] if isinstance(ids, int) else ids
        if ids and isinstance(ids[0], list):
            raise ValueError("offsets are computed for one sequence at a time: decode the items of a batch one by one.")
        tokens, frame = [], 0
        groups = ((i, len(list(run))) for i, run in itertools.groupby(ids)) if group_tokens else ((i, 1) for i in ids)
        for token_id, length in groups:
            if token_id != self.pad_token_id:
                tokens.append(CTCToken(token_id, frame, frame + length))
            frame += length
        return tokens

    def text_with_spans(self, tokens: list[CTCToken], skip_special_tokens: bool = False) -> tuple[str, list[Span]]:
        """
        Join tokens to text, with the frames and the token of every character.

        A piece of several characters shares its frames evenly among them: CTC says no more than that.

        Returns:
            The text and one [`Span`] (start, end in frames, index into `tokens`) for each of its characters.
        """
        chars: list[str] = []
        spans: list[Span] = []
        skipped = self.all_special_ids if skip_special_tokens else ()
        kept_tokens = [(index, token) for index, token in enumerate(tokens) if token.id not in skipped]
        for order, (index, token) in enumerate(kept_tokens):
            surface = self._surface(token.id)
            if surface.startswith(" ") and token.id != self.unk_token_id and self._is_leading(order, chars):
                surface = surface[1:]
            step = (token.end - token.start) / max(len(surface), 1)
            for position, char in enumerate(surface):
                chars.append(char)
                spans.append(Span(token.start + position * step, token.start + (position + 1) * step, index))
        kept = [i for i in range(len(chars)) if not self._is_dropped_space(chars, i)]
        return "".join(chars[i] for i in kept), [spans[i] for i in kept]

    def _decode(
        self, token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=None, group_tokens=True, **kwargs
    ):
        return self.text_with_spans(self.ctc_tokens(token_ids, group_tokens), skip_special_tokens)[0]

    def _get_word_offsets(self, offsets: list[dict], word_delimiter_char: str = " ") -> list[dict]:
        """Join character offsets to words; see [`split_words`] for what a word is."""
        text = "".join(offset["char"] for offset in offsets)
        return [
            {
                "word": text[start:end],
                "start_offset": offsets[start]["start_offset"],
                "end_offset": offsets[end - 1]["end_offset"],
            }
            for start, end in split_words(text)
        ]

    def _surface(self, token_id: int) -> str:
        """What a token adds to the text; SentencePiece writes the unknown token as ` ⁇ `."""
        if token_id == self.unk_token_id:
            return " ⁇ "
        return str(self.convert_ids_to_tokens(token_id) or "").replace(WORD_BOUNDARY, " ")

    def _is_leading(self, order: int, chars: list[str]) -> bool:
        """Whether a word boundary stands at the start of the text, where SentencePiece writes no space for it."""
        dropped = self.init_kwargs.get("leading_boundaries", "keep")
        return (dropped == "drop_one" and order == 0) or (dropped == "drop_all" and not chars)

    @cached_property
    def _punctuation(self) -> frozenset[str]:
        """Punctuation marks of the vocabulary, which NeMo writes without a space before them."""
        chars = {char for token in self.get_vocab() if not _NO_PUNCTUATION.match(token) for char in token}
        return frozenset(char for char in chars if unicodedata.category(char).startswith("P"))

    def _is_dropped_space(self, chars: list[str], index: int) -> bool:
        followed = index + 1 < len(chars) and chars[index + 1] in self._punctuation
        return followed and re.match(r"\s", chars[index]) is not None


__all__ = ["CitrinetTokenizer"]
