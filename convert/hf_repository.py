"""A Transformers repository, read whole for the exporters."""

from dataclasses import dataclass
from pathlib import Path

from transformers.utils.hub import cached_file

from citrinet import CitrinetFeatureExtractor, CitrinetForCTC, CitrinetTokenizer
from citrinet.checkpoint import load_network, load_processor
from citrinet.tokenizer.building import sentencepiece_model

from .nemo_archive import ConversionError


@dataclass
class Repository:
    """
    A model as an exporter needs it.

    Args:
        network: the network, in evaluation mode.
        features: its feature extractor.
        tokenizer: its tokenizer.
        sentencepiece_model: the file that the tokenizer is made of; none for characters.
    """

    network: CitrinetForCTC
    features: CitrinetFeatureExtractor
    tokenizer: CitrinetTokenizer
    sentencepiece_model: bytes | None

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return sum(tensor.nbytes for tensor in self.network.state_dict().values())


def read_repository(model: str) -> Repository:
    """
    Read a model, of which nothing is missing and nothing left over.

    Args:
        model: a folder or a Hub repository.

    Raises:
        ConversionError: if it is no Citrinet, damaged or incomplete, or its tokenizer is not one of SentencePiece.
        OSError: if it cannot be found or fetched.
    """
    try:
        network, processor = load_network(model), load_processor(model)
    except ValueError as error:
        raise ConversionError(str(error)) from error
    tokenizer = processor.tokenizer
    try:
        sentencepiece = sentencepiece_model(tokenizer, _stored_sentencepiece_model(model))
    except ValueError as error:
        raise ConversionError(f"{model}: {error}") from error
    return Repository(network, processor.feature_extractor, tokenizer, sentencepiece)


def _stored_sentencepiece_model(model: str) -> bytes | None:
    """The `tokenizer.model` of a converted repository; a trained one has none."""
    try:
        return Path(str(cached_file(model, "tokenizer.model"))).read_bytes()
    except OSError:
        return None
