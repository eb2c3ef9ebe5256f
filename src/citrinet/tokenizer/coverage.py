"""Which characters of a text a tokenizer knows, so that none is lost without a word."""

from ..tokenization_citrinet import CitrinetTokenizer


def unknown_positions(tokenizer: CitrinetTokenizer, text: str) -> list[int]:
    """
    Find the characters of a text that a tokenizer does not know.

    Args:
        tokenizer: one with an unknown token gives that for them; one of plain characters leaves them out.
        text: with its markers, which the tokenizer may know as a whole.

    Returns:
        Their indices in the text, in order; spaces among them, where the tokenizer has no word boundary.
    """
    if tokenizer.unk_token_id is None:
        return _left_out(tokenizer, text)
    encoded = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    spans = zip(encoded.ids, encoded.offsets, strict=True)
    return [index for token, span in spans if token == tokenizer.unk_token_id for index in range(*span)]


def _left_out(tokenizer: CitrinetTokenizer, text: str) -> list[int]:
    """Characters outside of whole tokens that are none themselves; offsets of such a tokenizer pass over them."""
    vocabulary, splitter = tokenizer.get_vocab(), tokenizer.backend_tokenizer.pre_tokenizer
    parts = splitter.pre_tokenize_str(text) if splitter else [(text, (0, len(text)))]
    return [
        index
        for part, span in parts
        if part not in vocabulary
        for index in range(*span)
        if text[index] not in vocabulary
    ]
