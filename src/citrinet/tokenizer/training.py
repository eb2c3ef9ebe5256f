"""Train a SentencePiece model on transcripts, with their markers as user-defined symbols."""

import io
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from ..tokenization_citrinet import CitrinetTokenizer
from ..transcript_citrinet import find_markers
from .building import build_tokenizer

MODEL_TYPES = ("bpe", "unigram", "char")
_SCRATCH = ".tokenizer."
# Files that the folder of a tokenizer may have: those written here or by earlier versions of Transformers, modules of
# remote code, and leftovers of an interrupted run.
_OWN_FILES = re.compile(
    r"(tokenizer|tokenizer_config|special_tokens_map|added_tokens)\.json|tokenizer\.model|\w+_citrinet\.py"
    rf"|__pycache__|{re.escape(_SCRATCH)}.*"
)


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    model_type: str = "bpe",
    add_dummy_prefix: bool = True,
    user_defined_symbols: Sequence[str] = (),
) -> CitrinetTokenizer:
    """
    Train a tokenizer, see [`train_sentencepiece`].

    Returns:
        [`CitrinetTokenizer`], which encodes as the SentencePiece model does. The blank follows its pieces.
    """
    return tokenizer_of(train_sentencepiece(texts, vocab_size, model_type, add_dummy_prefix, user_defined_symbols))


def train_sentencepiece(
    texts: Iterable[str],
    vocab_size: int,
    model_type: str = "bpe",
    add_dummy_prefix: bool = True,
    user_defined_symbols: Sequence[str] = (),
) -> bytes:
    """
    Train a SentencePiece model that knows every character of the texts.

    The markers in the texts (`ENTITY_<TYPE>`, `END`, `AGE_14_25`, ...) become user-defined symbols, which are found
    even without spaces around them. Texts are normalised as in NeMo, with SentencePiece's default rule (`nmt_nfkc`):
    full-width punctuation, letters and digits become ASCII, so that `，` is learned as `,`.

    Args:
        texts: transcripts.
        vocab_size: largest number of pieces, including markers and the unknown piece; fewer if the texts are too small.
        model_type: `bpe`, `unigram` or `char`.
        add_dummy_prefix: whether a text starts with a word boundary, which languages without spaces do not need.
        user_defined_symbols: further symbols, such as tags that are not in the texts.

    Returns:
        Content of the `.model` file.

    Raises:
        ValueError: if there is no text, or `vocab_size` cannot hold the characters and markers of the texts.
    """
    if model_type not in MODEL_TYPES:
        raise ValueError(f"`model_type` is {model_type!r}; use 'bpe', 'unigram' or 'char'.")
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise ValueError("there is no text to train a tokenizer on.")
    markers = {marker.name for text in texts for marker in find_markers(text)}
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type=model_type,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            max_sentence_length=max(4192, *(len(text.encode()) + 1 for text in texts)),  # longer ones would be skipped
            user_defined_symbols=sorted(markers.union(user_defined_symbols)),
            add_dummy_prefix=add_dummy_prefix,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(_explained(str(error), vocab_size)) from error
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    # If a character model is full, SentencePiece silently keeps only the most frequent characters.
    is_full = model_type == "char" and processor.vocab_size() >= vocab_size
    if is_full and any(processor.unk_id() in ids for ids in processor.encode(texts)):
        raise ValueError(f"{vocab_size} pieces cannot hold all characters and markers of the texts: allow more.")
    return model.getvalue()


def tokenizer_of(sentencepiece_model: bytes) -> CitrinetTokenizer:
    """Make the tokenizer whose vocabulary is all pieces of a SentencePiece model, in order."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model)
    pieces = [processor.id_to_piece(index) for index in range(processor.vocab_size())]
    return build_tokenizer(pieces, sentencepiece_model)


def save_tokenizer(folder: str | Path, sentencepiece_model: bytes) -> CitrinetTokenizer:
    """
    Write the files of a [`CitrinetTokenizer`], and the SentencePiece model as `tokenizer.model`.

    Every file appears when it is complete.

    Args:
        folder: output folder; files of an existing tokenizer are replaced.
        sentencepiece_model: model from [`train_sentencepiece`].

    Returns:
        The tokenizer.

    Raises:
        OSError: if the folder cannot be written to.
        ValueError: if it has files other than a tokenizer's, see [`check_tokenizer_folder`].
    """
    check_tokenizer_folder(folder)
    tokenizer, output = tokenizer_of(sentencepiece_model), Path(folder)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=_SCRATCH) as scratch:
        tokenizer.save_pretrained(scratch)
        Path(scratch, "tokenizer.model").write_bytes(sentencepiece_model)
        for file in Path(scratch).iterdir():
            file.replace(output / file.name)
    return tokenizer


def check_tokenizer_folder(folder: str | Path) -> None:
    """
    Check that a tokenizer may be written to a folder: it must be new, empty, or have only a tokenizer.

    The tokenizer in the folder of a model must not be replaced: with another one the model's outputs are meaningless.

    Raises:
        ValueError: if it is a file, or has files other than a tokenizer's.
    """
    place = Path(folder)
    if place.is_dir():
        foreign = sorted(path.name for path in place.iterdir() if not _OWN_FILES.fullmatch(path.name))
        if foreign:
            kind = "a model" if "config.json" in foreign else "other files"
            raise ValueError(f"{place} holds {kind} ({foreign[0]}): choose a new folder for the tokenizer.")
    elif place.exists():
        raise ValueError(f"{place} is a file: choose a new folder for the tokenizer.")


def _explained(error: str, vocab_size: int) -> str:
    """Explain SentencePiece's error for a vocabulary that is too small; keep the text of other errors."""
    numbers = re.search(r"Vocabulary size is smaller than required_chars\. (\d+) vs (\d+)", error)
    if numbers is None:
        return f"SentencePiece cannot make {vocab_size} pieces of these texts: {' '.join(error.split())}"
    return (
        f"{vocab_size} pieces cannot hold the {numbers[2]} characters and markers of the texts: "
        f"allow {numbers[2]} at least, and more for pieces of several characters."
    )
