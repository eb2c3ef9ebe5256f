"""Find characters that a tokenizer does not know, so that none is lost silently."""

from ..tokenization_citrinet import CitrinetTokenizer


def unknown_positions(tokenizer: CitrinetTokenizer, text: str) -> list[int]:
    """
    Find the characters of a text that a tokenizer does not know.

    Args:
        tokenizer: the tokenizer. With an unknown token it encodes such characters as that token; a character tokenizer
            leaves them out.
        text: text including markers, which the tokenizer may have as tokens.

    Returns:
        Indices of these characters in the text, in order; also of spaces, if the tokenizer has no word boundary.
    """
    if tokenizer.unk_token_id is None:
        return _left_out(tokenizer, text)
    encoded = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    spans = zip(encoded.ids, encoded.offsets, strict=True)
    return [index for token, span in spans if token == tokenizer.unk_token_id for index in range(*span)]


def _left_out(tokenizer: CitrinetTokenizer, text: str) -> list[int]:
    """Find unknown characters outside of tokens that are matched whole; such a tokenizer gives no offsets for them."""
    vocabulary, splitter = tokenizer.get_vocab(), tokenizer.backend_tokenizer.pre_tokenizer
    parts = splitter.pre_tokenize_str(text) if splitter else [(text, (0, len(text)))]
    return [
        index
        for part, span in parts
        if part not in vocabulary
        for index in range(*span)
        if text[index] not in vocabulary
    ]
