"""
Restore `.nemo` files with NeMo and transcribe with them, in an interpreter that has NeMo and need not have this package.

    python nemo_restore.py JOBS.json RESULTS.json

A job is `{"file", "strict", "audio": [paths], "resaved": path or null}`. Its result holds the class of the model, names
and shapes of its weights and the texts, or the `error` that NeMo raised; with `resaved` NeMo writes the model there.
"""

import json
import sys
from pathlib import Path

from regenerate_nemo_fixtures import quiet_nemo


def restore(job: dict) -> dict:
    """Do one job."""
    from nemo.collections.asr.models import ASRModel

    try:
        model = ASRModel.restore_from(job["file"], strict=job["strict"], map_location="cpu")
    except RuntimeError as error:
        return {"error": str(error)}
    texts = [hypothesis.text for hypothesis in model.transcribe(job["audio"], batch_size=4, verbose=False)]
    if job["resaved"]:
        model.save_to(job["resaved"])
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    return {"class": type(model).__name__, "shapes": shapes, "texts": texts}


if __name__ == "__main__":
    quiet_nemo()
    jobs, results = (Path(argument) for argument in sys.argv[1:])
    results.write_text(json.dumps([restore(job) for job in json.loads(jobs.read_text())]))
