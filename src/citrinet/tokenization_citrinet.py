"""Tokenizer: text to token ids, and CTC outputs to text with the frames of every character."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.utils.generic import ModelOutput, to_py_obj

from .decoding_citrinet import CTCToken, PieceJoiner, collapse, punctuation_marks
from .transcript_citrinet import Span, split_words

# Arguments for loading the model that `pipeline` also passes to the tokenizer; some of them cannot be saved.
_MODEL_ARGUMENTS = {
    "attn_implementation",
    "device_map",
    "dtype",
    "experts_implementation",
    "ignore_mismatched_sizes",
    "kernel_config",
    "key_mapping",
    "low_cpu_mem_usage",
    "max_memory",
    "offload_buffers",
    "offload_folder",
    "offload_state_dict",
    "output_loading_info",
    "quantization_config",
    "state_dict",
    "torch_dtype",
    "tp_plan",
    "tp_size",
    "use_kernels",
    "use_safetensors",
    "variant",
    "weights_only",
}


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
    char_offsets: list[dict[str, Any]] | None = None
    word_offsets: list[dict[str, Any]] | None = None


class CitrinetTokenizer(PreTrainedTokenizerFast):
    """
    Tokenizer with a SentencePiece (BPE or unigram) or character vocabulary and greedy CTC decoding.

    Decoding groups repeated ids, drops the blank (the pad token) and joins the pieces as SentencePiece does; then, as
    in NeMo, one space before each punctuation mark of the vocabulary is removed. Encoding gives SentencePiece's ids.

    Args:
        leading_boundaries (`str`, defaults to `"keep"`):
            Treatment of word boundaries (`▁`) at the start of the text: `"keep"` writes spaces for them, `"drop_one"`
            and `"drop_all"` follow SentencePiece with a dummy prefix, the latter if it also removes extra whitespace.
    """

    model_input_names = ["input_ids", "attention_mask"]
    replace_word_delimiter_char = " "

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *init_inputs: Any, **kwargs: Any) -> Any:
        """Load as in Transformers, but ignore arguments for the model that a pipeline also passes to its tokenizer."""
        own = {name: value for name, value in kwargs.items() if name not in _MODEL_ARGUMENTS}
        return super().from_pretrained(pretrained_model_name_or_path, *init_inputs, **own)

    def decode(  # type: ignore[override]  # the base class has no offsets
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        output_char_offsets: bool = False,
        output_word_offsets: bool = False,
        **kwargs: Any,
    ) -> str | list[str] | CitrinetTokenizerOutput:
        """
        Decode frame-wise (or, with `group_tokens=False`, already collapsed) token ids.

        Args:
            token_ids: ids of one sequence, or of a batch.
            skip_special_tokens (`bool`, defaults to `False`): whether to leave out unknown tokens too.
            output_char_offsets (`bool`, defaults to `False`): whether to return each character's frames.
            output_word_offsets (`bool`, defaults to `False`): whether to return each word's frames.
            **kwargs: `group_tokens` (`bool`, defaults to `True`), whether repeats are one token.

        Returns:
            The text (a list for a batch), or a [`CitrinetTokenizerOutput`] if offsets are requested.
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

    def ctc_tokens(self, token_ids: Any, group_tokens: bool = True) -> list[CTCToken]:
        """
        Collapse frame-wise ids: group repeats, drop the blank.

        Args:
            token_ids: (T',) ids; list, array or tensor.
            group_tokens: whether repeats are one token; otherwise every id is a token of one frame.

        Returns:
            The tokens with the frames in which each was emitted.
        """
        ids = to_py_obj(token_ids)  # type: ignore[no-untyped-call]
        ids = [ids] if isinstance(ids, int) else ids
        if ids and isinstance(ids[0], list):
            raise ValueError("offsets are computed for one sequence at a time: decode the items of a batch one by one.")
        return collapse(ids, self.pad_token_id, group_tokens)

    def text_with_spans(
        self, tokens: list[CTCToken], skip_special_tokens: bool | None = False
    ) -> tuple[str, list[Span]]:
        """
        Join tokens to text, with the frames and the token of every character.

        The frames of a piece are divided evenly among its characters, since CTC gives times only for pieces.

        Returns:
            The text and one [`Span`] (start, end in frames, index into `tokens`) for each of its characters.
        """
        dropped = self.init_kwargs.get("leading_boundaries", "keep")
        joiner = PieceJoiner(self.backend_tokenizer.id_to_token, self.unk_token_id, dropped, self._punctuation)
        return joiner.text_with_spans(tokens, self.all_special_ids if skip_special_tokens else ())

    def _decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool | None = False,
        clean_up_tokenization_spaces: bool | None = None,
        group_tokens: bool = True,
        **kwargs: Any,
    ) -> str:
        return self.text_with_spans(self.ctc_tokens(token_ids, group_tokens), skip_special_tokens)[0]

    def _get_word_offsets(self, offsets: list[dict[str, Any]], word_delimiter_char: str = " ") -> list[dict[str, Any]]:
        """Join character offsets to words as defined by [`split_words`]."""
        text = "".join(offset["char"] for offset in offsets)
        return [
            {
                "word": text[start:end],
                "start_offset": offsets[start]["start_offset"],
                "end_offset": offsets[end - 1]["end_offset"],
            }
            for start, end in split_words(text)
        ]

    @cached_property
    def _punctuation(self) -> frozenset[str]:
        return punctuation_marks(self.get_vocab())


__all__ = ["CitrinetTokenizer"]
