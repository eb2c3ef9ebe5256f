"""Build a [`CitrinetTokenizer`] from a vocabulary and the SentencePiece model that made it."""

import re

import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from .tokenization_citrinet import WORD_BOUNDARY, CitrinetTokenizer

BLANK = "<blank>"
_Type = sentencepiece_model_pb2.ModelProto.SentencePiece.Type
_UNIGRAM, _BPE, _CHAR = (sentencepiece_model_pb2.TrainerSpec.ModelType.Value(n) for n in ("UNIGRAM", "BPE", "CHAR"))


def build_tokenizer(vocabulary: list[str], sentencepiece_model: bytes | None = None) -> CitrinetTokenizer:
    """
    Make the tokenizer of a CTC model.

    Args:
        vocabulary: the tokens in the order of the CTC head's outputs, without the blank, which comes last. It is the
            truth: pieces are matched to it by their string, and it may hold more than the SentencePiece model knows.
        sentencepiece_model: the `.model` file; none means that the vocabulary is characters.

    Returns:
        [`CitrinetTokenizer`], which encodes as SentencePiece does, tags in the vocabulary included.

    Raises:
        ValueError: for a vocabulary with repeated tokens, or a SentencePiece model that is damaged or of a kind that
            is neither BPE, unigram nor characters.
    """
    if len(set(vocabulary)) != len(vocabulary):
        repeated = sorted({token for token in vocabulary if vocabulary.count(token) > 1})[:5]
        raise ValueError(f"the vocabulary repeats {repeated}: every token must be unique.")
    unknown, boundaries = None, "keep"
    if sentencepiece_model is None:
        tokenizer = _character_tokenizer(vocabulary)
    else:
        proto = _parse(sentencepiece_model)
        tokenizer, unknown = _sentencepiece_tokenizer(vocabulary, proto)
        boundaries = _leading_boundaries(proto.normalizer_spec)
    blank = next(name for name in (BLANK, "<ctc_blank>", "<pad>") if name not in vocabulary)
    tokenizer.add_special_tokens([AddedToken(blank, special=True, normalized=False)])
    return CitrinetTokenizer(
        tokenizer_object=tokenizer,
        pad_token=blank,
        unk_token=unknown,
        leading_boundaries=boundaries,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )


def _parse(content: bytes):
    """The model as a protobuf message, after SentencePiece itself has accepted it."""
    if not content:
        raise ValueError("the tokenizer is not a SentencePiece model: it is empty.")
    try:
        sentencepiece.SentencePieceProcessor(model_proto=content)
        proto = sentencepiece_model_pb2.ModelProto.FromString(content)
    except (RuntimeError, DecodeError) as error:
        raise ValueError(f"the tokenizer is not a SentencePiece model: {error}") from error
    if proto.trainer_spec.model_type not in (_UNIGRAM, _BPE, _CHAR) or proto.trainer_spec.byte_fallback:
        raise ValueError("only SentencePiece models of BPE, unigram or characters, without byte fallback, can be read.")
    return proto


def _character_tokenizer(vocabulary: list[str]) -> Tokenizer:
    """Every character a token; those that the vocabulary lacks are left out, as NeMo's parser does."""
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(vocabulary)}, [], ignore_merges=True))
    _isolate(tokenizer, [token for token in vocabulary if len(token) > 1])
    return tokenizer


def _sentencepiece_tokenizer(vocabulary: list[str], proto) -> tuple[Tokenizer, str | None]:
    ids = {token: index for index, token in enumerate(vocabulary)}
    pieces = {piece.piece: piece for piece in proto.pieces}
    unknown = next((p.piece for p in proto.pieces if p.type == _Type.UNKNOWN and p.piece in ids), None)
    learned = [p for p in proto.pieces if p.type == _Type.NORMAL and p.piece in ids]
    if proto.trainer_spec.model_type == _UNIGRAM:
        # A token that is not a learned piece is only reached when it stands alone, where any score of 0 is the best.
        scores = {piece.piece: piece.score for piece in learned}
        model: models.Model = models.Unigram(
            [(token, scores.get(token, 0.0)) for token in vocabulary], None if unknown is None else ids[unknown], False
        )
    else:
        model = models.BPE(ids, _merges(learned, ids), unk_token=unknown, fuse_unk=True, ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = _normalizer(proto.normalizer_spec)
    whole = [t for t in vocabulary if t not in pieces or pieces[t].type == _Type.USER_DEFINED]
    _isolate(tokenizer, whole)
    return tokenizer, unknown


def _merges(learned, ids: dict[str, int]) -> list[tuple[str, str]]:
    """All pairs that make a piece, best piece first: SentencePiece merges any two neighbours that do, in that order."""
    merges = []
    for piece in sorted(learned, key=lambda piece: -piece.score):
        text = piece.piece
        pairs = ((text[:i], text[i:]) for i in range(1, len(text)))
        merges += [(left, right) for left, right in pairs if left in ids and right in ids]
    return merges


def _normalizer(spec) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(" "))
    steps.append(normalizers.Replace(" ", WORD_BOUNDARY))
    return normalizers.Sequence(steps)


def _leading_boundaries(spec) -> str:
    if spec.remove_extra_whitespaces:
        return "drop_all"
    return "drop_one" if spec.add_dummy_prefix else "keep"


def _isolate(tokenizer: Tokenizer, tokens: list[str]) -> None:
    """Let tokens that no merge makes, such as tags, be matched whole, the longest first."""
    if tokens:
        pattern = "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
