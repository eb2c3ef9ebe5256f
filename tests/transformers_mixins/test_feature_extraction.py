"""`SequenceFeatureExtractionTestMixin` on the front end."""

import unittest

import numpy as np

from citrinet import CitrinetFeatureExtractor

from .library import load

SequenceFeatureExtractionTestMixin = load("test_sequence_feature_extraction_common").SequenceFeatureExtractionTestMixin


class CitrinetFeatureExtractionTester:
    """Settings and inputs as the mixin asks for them."""

    batch_size = 7
    feature_size = 16
    min_seq_length = 200
    max_seq_length = 800
    seq_length_diff = 100

    def prepare_feat_extract_dict(self):
        # The mixin asks for no padding but its own.
        return {"feature_size": self.feature_size, "pad_to_multiple_of": None, "frontend": "nemo-2.4"}

    def prepare_inputs_for_common(self, equal_length=False, numpify=False):
        lengths = range(self.min_seq_length, self.max_seq_length, self.seq_length_diff)[: self.batch_size]
        rng = np.random.default_rng(0)
        shapes = [(self.max_seq_length if equal_length else length, self.feature_size) for length in lengths]
        features = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
        return features if numpify else [feature.tolist() for feature in features]


class CitrinetFeatureExtractionTest(SequenceFeatureExtractionTestMixin, unittest.TestCase):
    feature_extraction_class = CitrinetFeatureExtractor

    def setUp(self):
        self.feat_extract_tester = CitrinetFeatureExtractionTester()
