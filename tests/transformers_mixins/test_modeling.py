"""`ModelTesterMixin` and `ConfigTester` on the network and its configuration."""

import unittest
from unittest.mock import patch

import torch
from torch.utils import _pytree as pytree
from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES, MODEL_MAPPING_NAMES
from transformers.testing_utils import torch_device

from citrinet import CitrinetConfig, CitrinetForCTC, CitrinetModel
from tiny_models import TWO_BLOCKS, tiny_config

from .sdist import load

ConfigTester = load("test_configuration_common").ConfigTester
ModelTesterMixin = load("test_modeling_common").ModelTesterMixin

BATCH, FRAMES, LABELS = 3, 40, 4


class CitrinetModelTester:
    """Configuration and inputs as the mixin asks for them."""

    def __init__(self, parent):
        config = self.get_config()
        self.parent = parent
        self.batch_size = BATCH
        self.seq_length = FRAMES
        self.num_hidden_layers = config.num_hidden_layers
        self.hidden_size = config.num_mel_bins  # of the first hidden state, which is the features
        self.is_training = True
        self.features_require_grad = False

    def get_config(self):
        return tiny_config(**TWO_BLOCKS)  # the mixin allows no more

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        mask = torch.ones(BATCH, FRAMES, dtype=torch.long)
        mask[1, 30:] = 0
        features = (torch.randn(BATCH, FRAMES, config.num_mel_bins) * mask[..., None]).to(torch_device)
        features.requires_grad_(self.features_require_grad)
        return config, {"input_features": features, "attention_mask": mask.to(torch_device)}


# The mixin looks up there which class is the encoder and which has a loss.
@patch.dict(MODEL_MAPPING_NAMES, citrinet="CitrinetModel")
@patch.dict(MODEL_FOR_CTC_MAPPING_NAMES, citrinet="CitrinetForCTC")
class CitrinetModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (CitrinetModel, CitrinetForCTC)
    # `generate` is greedy CTC, one pass without a cache or options: there is nothing to test of Transformers' own.
    all_generative_model_classes = ()
    has_attentions = False
    test_resize_embeddings = False  # there are none
    test_can_init_all_missing_weights_before_2023 = True  # else it is skipped for want of a year in the source

    def setUp(self):
        self.model_tester = CitrinetModelTester(self)
        self.config_tester = ConfigTester(
            self, config_class=CitrinetConfig, common_properties=["num_mel_bins", "hop_length"], vocab_size=37
        )

    def test_config(self):
        self.config_tester.run_common_tests()

    @unittest.skip("Citrinet has no embeddings: its input is features")
    def test_model_get_set_embeddings(self):
        pass

    def test_retain_grad_hidden_states_attentions(self):
        """The first hidden state is the features: it has a gradient if they ask for one."""
        self.model_tester.features_require_grad = True
        super().test_retain_grad_hidden_states_attentions()

    def test_model_outputs_equivalence(self):
        """The mixin subtracts what it compares, which torch refuses for boolean masks: let it have integers."""
        with patch.object(type(self), "all_model_classes", tuple(map(_with_integer_mask, self.all_model_classes))):
            super().test_model_outputs_equivalence()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class)
        if return_labels and issubclass(model_class, CitrinetForCTC):
            labels = torch.arange(BATCH * LABELS, device=torch_device).reshape(BATCH, LABELS) % 11
            tags = torch.arange(BATCH, device=torch_device)
            inputs |= {"labels": labels, "tag_labels": {"emotion": tags % 3, "gender": tags % 2}}
        return inputs


def _with_integer_mask(model_class):
    class Model(model_class):
        def forward(self, *args, **kwargs):
            outputs = super().forward(*args, **kwargs)
            return pytree.tree_map_only(torch.Tensor, lambda t: t.long() if t.dtype == torch.bool else t, outputs)

    return Model
