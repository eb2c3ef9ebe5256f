"""Train a SentencePiece model on transcripts, with their markers as symbols of its own."""

import io
from collections.abc import Iterable

import sentencepiece

from .tokenization_citrinet import CitrinetTokenizer
from .tokenizer_building import build_tokenizer
from .transcript_citrinet import find_markers


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, model_type: str = "bpe", add_dummy_prefix: bool = True
) -> CitrinetTokenizer:
    """
    Train a tokenizer. The markers in the texts (`ENTITY_<TYPE>`, `END`, `AGE_14_25`, ...) become user-defined symbols.

    Args:
        texts: transcripts.
        vocab_size: pieces at most; fewer if the texts do not give as many.
        model_type: `bpe`, `unigram` or `char`.
        add_dummy_prefix: whether a text starts with a word boundary, which languages without spaces do not need.

    Returns:
        [`CitrinetTokenizer`], which encodes as the SentencePiece model does.

    Raises:
        ValueError: if there is no text, or `vocab_size` cannot hold the characters and markers of the texts.
    """
    if model_type not in ("bpe", "unigram", "char"):
        raise ValueError(f"`model_type` is {model_type!r}; use 'bpe', 'unigram' or 'char'.")
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise ValueError("there is no text to train a tokenizer on.")
    markers = sorted({marker.name for text in texts for marker in find_markers(text)})
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type=model_type,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            user_defined_symbols=markers,
            add_dummy_prefix=add_dummy_prefix,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        characters = len(set("".join(texts)))
        raise ValueError(
            f"SentencePiece cannot make {vocab_size} pieces of these texts, which hold {characters} characters and "
            f"{len(markers)} markers: {error}"
        ) from error
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [processor.id_to_piece(index) for index in range(processor.vocab_size())]
    return build_tokenizer(pieces, model.getvalue())
