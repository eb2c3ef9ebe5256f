"""
NeMo as a contestant: `worker.py` with NeMo's model, run as a script by a Python interpreter that has NeMo.

    /path/to/nemo/bin/python nemo_worker.py model.nemo cuda bfloat16

For bfloat16 it uses PyTorch's autocast, as NeMo's own scripts do.
"""

import sys
from typing import Any

import numpy as np
import torch
from worker import serve  # run as a script, it finds modules in its own folder


def main(file: str, device: str, precision: str) -> None:
    """Answer questions with the model of a `.nemo` file."""
    from nemo.collections.asr.models import ASRModel

    model = ASRModel.restore_from(file, map_location=device, strict=True).eval()
    kind = torch.device(device).type

    @torch.inference_mode()
    def transcribe(audio: list[Any]) -> object:
        signal = torch.from_numpy(np.stack(audio)).to(device)
        lengths = torch.tensor([len(samples) for samples in audio], device=device)
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            log_probs, lengths, _ = model(input_signal=signal, input_signal_length=lengths)
        return model.decoding.ctc_decoder_predictions_tensor(log_probs, decoder_lengths=lengths)

    serve(transcribe, int(model.cfg.sample_rate))


if __name__ == "__main__":
    main(*sys.argv[1:])
