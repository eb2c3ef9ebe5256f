"""A [`CitrinetTokenizer`] from a vocabulary and the SentencePiece model that made it, and the other way round."""

import base64
import json
import re
from typing import Any

import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from ..decoding_citrinet import WORD_BOUNDARY
from ..tokenization_citrinet import CitrinetTokenizer

BLANK = "<blank>"
_EDGE_SPACES = "^ +| +$"
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
    return CitrinetTokenizer(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=blank,
        unk_token=unknown,
        leading_boundaries=boundaries,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )


def sentencepiece_model(tokenizer: CitrinetTokenizer, candidate: bytes | None = None) -> bytes | None:
    """
    The SentencePiece model of a tokenizer: [`build_tokenizer`] makes the same tokenizer of it.

    Its pieces are the vocabulary in its order. Tokens that the tokenizer matches whole are user-defined symbols, and
    the scores of BPE pieces are their ranks, as SentencePiece itself gives them.

    Args:
        tokenizer: the tokenizer.
        candidate: a `.model` file, which is returned as it is if it is that of the tokenizer.

    Returns:
        The `.model` file; none for a tokenizer of characters, which has no such model.

    Raises:
        ValueError: for a tokenizer that no SentencePiece model makes, such as one without an unknown piece.
    """
    ids = [index for index in range(len(tokenizer)) if index != tokenizer.pad_token_id]
    vocabulary = list(tokenizer.convert_ids_to_tokens(ids))
    if candidate is not None and _is_model_of(candidate, tokenizer, vocabulary):
        return candidate
    serialized = json.loads(tokenizer.backend_tokenizer.to_str())
    try:
        content = None if serialized["normalizer"] is None else _proto(serialized, vocabulary).SerializeToString()
        is_same = _is_model_of(content, tokenizer, vocabulary)
    except (KeyError, TypeError):  # a part of another kind than [`build_tokenizer`] makes
        is_same = False
    if not is_same:
        raise ValueError(
            "the tokenizer is not what a SentencePiece model or a list of characters makes: it was changed, or its "
            "blank is not the last token, or it has no unknown piece."
        )
    return content


def _is_model_of(content: bytes | None, tokenizer: CitrinetTokenizer, vocabulary: list[str]) -> bool:
    try:
        pieces = vocabulary if content is None else [piece.piece for piece in _parse(content).pieces]
        built = build_tokenizer(vocabulary, content)
    except ValueError:
        return False
    boundaries = tokenizer.init_kwargs.get("leading_boundaries", "keep")
    same_text = boundaries == built.init_kwargs["leading_boundaries"]
    return (
        same_text and pieces == vocabulary and built.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    )


def _proto(serialized: dict[str, Any], vocabulary: list[str]) -> Any:
    """A SentencePiece model that says what a tokenizer in the JSON of the `tokenizers` library does."""
    model, splitter = serialized["model"], serialized["pre_tokenizer"]
    is_unigram = model["type"] == "Unigram"
    unknown = vocabulary[model["unk_id"] or 0] if is_unigram else model["unk_token"]
    scores = _scores(model)
    kinds = dict.fromkeys(_isolated(splitter["pattern"]["Regex"]) if splitter else (), _Type.USER_DEFINED)
    kinds[unknown] = _Type.UNKNOWN
    proto = sentencepiece_model_pb2.ModelProto()
    for token in vocabulary:
        proto.pieces.add(piece=token, score=scores.get(token, -len(scores)), type=kinds.get(token, _Type.NORMAL))
    proto.trainer_spec.model_type = _UNIGRAM if is_unigram else _BPE
    proto.trainer_spec.vocab_size = len(vocabulary)
    proto.trainer_spec.unk_piece = unknown or ""
    _describe_normalizer(serialized["normalizer"]["normalizers"], proto.normalizer_spec)
    return proto


def _scores(model: dict[str, Any]) -> dict[str, float]:
    """Scores of unigram pieces; of BPE pieces their ranks, the first merge being the best."""
    if model["type"] == "Unigram":
        return dict(model["vocab"])
    merged = dict.fromkeys(left + right for left, right in model["merges"])
    return {piece: -float(rank) for rank, piece in enumerate(merged)}


def _describe_normalizer(steps: list[dict[str, Any]], spec: Any) -> None:
    """The inverse of [`_normalizer`]."""
    patterns = [step["pattern"].get("Regex") for step in steps if step["type"] == "Replace"]
    spec.precompiled_charsmap = next(
        (base64.b64decode(step["precompiled_charsmap"]) for step in steps if step["type"] == "Precompiled"), b""
    )
    spec.remove_extra_whitespaces = _EDGE_SPACES in patterns
    spec.add_dummy_prefix = any(step["type"] == "Prepend" for step in steps)


def _parse(content: bytes) -> Any:
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


def _sentencepiece_tokenizer(vocabulary: list[str], proto: Any) -> tuple[Tokenizer, str | None]:
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


def _merges(learned: list[Any], ids: dict[str, int]) -> list[tuple[str, str]]:
    """All pairs that make a piece, best piece first: SentencePiece merges any two neighbours that do, in that order."""
    merges = []
    for piece in sorted(learned, key=lambda piece: -piece.score):
        text = piece.piece
        pairs = ((text[:i], text[i:]) for i in range(1, len(text)))
        merges += [(left, right) for left, right in pairs if left in ids and right in ids]
    return merges


def _normalizer(spec: Any) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(_EDGE_SPACES), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(" "))
    steps.append(normalizers.Replace(" ", WORD_BOUNDARY))
    return normalizers.Sequence(steps)


def _leading_boundaries(spec: Any) -> str:
    if spec.remove_extra_whitespaces:
        return "drop_all"
    return "drop_one" if spec.add_dummy_prefix else "keep"


def _isolate(tokenizer: Tokenizer, tokens: list[str]) -> None:
    """Let tokens that no merge makes, such as tags, be matched whole, the longest first."""
    if tokens:
        pattern = "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")


def _isolated(pattern: str) -> set[str]:
    """The tokens that a pattern of [`_isolate`] matches."""
    return {re.sub(r"\\(.)", r"\1", token, flags=re.DOTALL) for token in re.findall(r"(?s)(?:\\.|[^|])+", pattern)}
