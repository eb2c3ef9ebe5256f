"""Convert a vocabulary and its SentencePiece model to a [`CitrinetTokenizer`], and back."""

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
        vocabulary: tokens in the order of the CTC head's outputs, without the blank, which comes last. It takes
            precedence: pieces are matched to it by their string, and it may have tokens that the SentencePiece model
            lacks.
        sentencepiece_model: content of the `.model` file; `None` for a vocabulary of characters.

    Returns:
        [`CitrinetTokenizer`], which encodes as SentencePiece does, including tags in the vocabulary.

    Raises:
        ValueError: if the vocabulary has repeated tokens, or the SentencePiece model is damaged or of a type other than
            BPE, unigram or character.
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
    Make the SentencePiece model of a tokenizer, from which [`build_tokenizer`] makes the same tokenizer.

    Its pieces are the vocabulary in the same order. Tokens that the tokenizer matches whole are user-defined symbols,
    and the scores of BPE pieces are their ranks, as in SentencePiece.

    Args:
        tokenizer: the tokenizer.
        candidate: content of a `.model` file, which is returned unchanged if it matches the tokenizer.

    Returns:
        Content of the `.model` file; `None` for a character tokenizer, which has no such model.

    Raises:
        ValueError: if no SentencePiece model gives the tokenizer, for example without an unknown piece.
    """
    ids = [index for index in range(len(tokenizer)) if index != tokenizer.pad_token_id]
    vocabulary = list(tokenizer.convert_ids_to_tokens(ids))
    if candidate is not None and _is_model_of(candidate, tokenizer, vocabulary):
        return candidate
    serialized = json.loads(tokenizer.backend_tokenizer.to_str())
    try:
        content = None if serialized["normalizer"] is None else _proto(serialized, vocabulary).SerializeToString()
        is_same = _is_model_of(content, tokenizer, vocabulary)
    except (KeyError, TypeError):  # a part that [`build_tokenizer`] does not make
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
    """Make the SentencePiece model of a tokenizer in the JSON format of the `tokenizers` library."""
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
    """Return scores of unigram pieces, or negative ranks of BPE pieces, so that the first merge is the best."""
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
    """Parse the model as a protobuf message, after checking that SentencePiece accepts it."""
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
    """Make a tokenizer with a token for each character; unknown characters are left out, as in NeMo's parser."""
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(vocabulary)}, [], ignore_merges=True))
    _isolate(tokenizer, [token for token in vocabulary if len(token) > 1])
    return tokenizer


def _sentencepiece_tokenizer(vocabulary: list[str], proto: Any) -> tuple[Tokenizer, str | None]:
    ids = {token: index for index, token in enumerate(vocabulary)}
    pieces = {piece.piece: piece for piece in proto.pieces}
    unknown = next((p.piece for p in proto.pieces if p.type == _Type.UNKNOWN and p.piece in ids), None)
    learned = [p for p in proto.pieces if p.type == _Type.NORMAL and p.piece in ids]
    if proto.trainer_spec.model_type == _UNIGRAM:
        # A token that is not a learned piece is only matched as a whole, so its score does not matter.
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
    """Return all pairs that form a piece, best piece first: SentencePiece merges any such neighbours in that order."""
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
    """Match tokens that no merge gives, such as tags, as a whole, longest first."""
    if tokens:
        pattern = "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")


def _isolated(pattern: str) -> set[str]:
    """Return the tokens that a pattern of [`_isolate`] matches."""
    return {re.sub(r"\\(.)", r"\1", token, flags=re.DOTALL) for token in re.findall(r"(?s)(?:\\.|[^|])+", pattern)}
