"""`TokenizerTesterMixin` on tokenizers of every kind of SentencePiece model."""

import unittest

from tiny_models import tiny_tokenizer

from citrinet import CitrinetTokenizer

from .library import load

TokenizerTesterMixin = load("test_tokenization_common").TokenizerTesterMixin


class BPETokenizationTest(TokenizerTesterMixin, unittest.TestCase):
    tokenizer_class = CitrinetTokenizer
    rust_tokenizer_class = CitrinetTokenizer
    model_type = "bpe"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        tiny_tokenizer(cls.model_type).save_pretrained(cls.tmpdirname)


class UnigramTokenizationTest(BPETokenizationTest):
    model_type = "unigram"


class CharacterTokenizationTest(BPETokenizationTest):
    model_type = "char"
