"""`ProcessorTesterMixin` on feature extractor and tokenizer together."""

import unittest

from tiny_models import tiny_tokenizer

from citrinet import CitrinetFeatureExtractor, CitrinetProcessor

from .library import load

ProcessorTesterMixin = load("test_processing_common").ProcessorTesterMixin


class CitrinetProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = CitrinetProcessor

    @classmethod
    def _setup_feature_extractor(cls):
        return CitrinetFeatureExtractor()

    @classmethod
    def _setup_tokenizer(cls):
        return tiny_tokenizer("bpe")
