"""
Speakers for a synthetic corpus: blends of Kokoro's voices, whose names begin with language and gender.

A voice belongs either to the training speakers or to the held-out ones, and blends stay inside their group.
"""

import random
from dataclasses import dataclass

HELD_OUT = {
    "f": ["zf_xiaoyi", "af_nova", "bf_lily", "ef_dora", "jf_nezumi"],
    "m": ["zm_yunyang", "am_liam", "bm_fable", "pm_alex", "hm_psi"],
}
TRAINING = {
    "f": (
        "zf_xiaobei zf_xiaoxiao af_alloy af_aoede af_bella af_heart af_jessica af_kore af_river af_sarah "
        "af_sky bf_alice bf_emma bf_isabella ff_siwis hf_alpha hf_beta if_sara jf_alpha jf_gongitsune jf_tebukuro "
        "pf_dora"
    ).split(),
    "m": (
        "zm_yunjian zm_yunxi am_adam am_echo am_eric am_fenrir am_michael am_onyx am_puck am_santa bm_daniel "
        "bm_george bm_lewis em_alex em_santa hm_omega im_nicola jm_kumo pm_santa"
    ).split(),
}
GENDERS = {"f": "GENDER_FEMALE", "m": "GENDER_MALE"}


@dataclass(frozen=True)
class Speaker:
    """
    Who speaks, and how.

    Args:
        blend: names of voices and their weights, which sum to one.
        gender: `f` or `m`.
        accent: `north` (standard), `south` (simulated by rule) or `other` (a voice of another language alone).
        speed: 1 is the voice's own.
        child: how much higher a child's voice is than this one, as a factor of pitch; 1 for an adult.
    """

    blend: tuple[tuple[str, float], ...]
    gender: str
    accent: str
    speed: float
    child: float

    @property
    def name(self) -> str:
        """The voices and weights, the same for the same timbre."""
        return "+".join(f"{voice}*{weight:g}" for voice, weight in self.blend)

    @property
    def tags(self) -> dict[str, str]:
        """
        Tag category -> label.

        Synthesis cannot tell grown-up ages honestly: they are NONE. The gender of a child is not labelled.
        """
        dialect = {"north": "DIALECT_NORTH", "south": "DIALECT_SOUTH", "other": "DIALECT_OTHERS"}[self.accent]
        if self.child > 1:
            return {"age": "AGE_<14", "dialect": dialect}
        return {"age": "NONE", "gender": GENDERS[self.gender], "dialect": dialect}


def draw_speaker(rng: random.Random, held_out: bool = False) -> Speaker:
    """
    Draw a speaker.

    Args:
        rng: where the chance comes from.
        held_out: whether to draw from the held-out voices rather than from those for training.
    """
    gender = rng.choice("fm")
    voices = (HELD_OUT if held_out else TRAINING)[gender]
    chinese = [voice for voice in voices if voice.startswith("z")]
    kind = rng.random()
    if kind < 0.3:
        blend = ((rng.choice(chinese), 1.0),)
    elif kind < 0.9:
        weight = rng.choice([0.4, 0.5, 0.6, 0.7, 0.8])
        blend = ((rng.choice(chinese), weight), (rng.choice([v for v in voices if v not in chinese]), 1 - weight))
    else:
        blend = ((rng.choice([v for v in voices if v not in chinese]), 1.0),)
    foreign = not blend[0][0].startswith("z")
    return Speaker(
        blend=tuple((voice, round(weight, 2)) for voice, weight in blend),
        gender=gender,
        accent="other" if foreign else rng.choices(["north", "south"], [0.75, 0.25])[0],
        speed=round(rng.uniform(0.9, 1.25), 2),
        child=round(rng.uniform(1.25, 1.4), 2) if gender == "f" and rng.random() < 0.1 else 1.0,
    )
