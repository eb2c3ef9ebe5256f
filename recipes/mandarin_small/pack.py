"""
Make the package's default model of a trained one.

    python pack.py TRAINED_FOLDER

Matrices are stored as float16 and loaded as float32; vectors (normalisation, biases) stay float32.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import citrinet

FILES = [
    "model.safetensors",
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
]


def main(trained: Path) -> None:
    """Write the files of `trained` into the package; the model card there is kept."""
    target = Path(citrinet.default_model())
    model = citrinet.CitrinetForCTC.from_pretrained(trained, dtype=torch.float32)
    for name in ("freq_masks", "time_masks"):
        setattr(model.config, name, 0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder)
        citrinet.CitrinetProcessor.from_pretrained(trained).save_pretrained(folder)
        weights = load_file(folder / "model.safetensors")
        small = {key: tensor.half() if tensor.ndim > 1 else tensor for key, tensor in weights.items()}
        assert all(tensor.isfinite().all() for tensor in small.values())
        save_file(small, folder / "model.safetensors", metadata={"format": "pt"})
        for file in FILES:
            shutil.copyfile(folder / file, target / file)
    print(f"{target}: {sum((target / file).stat().st_size for file in FILES) / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
