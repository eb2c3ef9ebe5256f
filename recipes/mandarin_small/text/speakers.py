"""
Speakers: blends of Kokoro's voices, whose names start with language and gender.

A voice belongs either to the training speakers or to the held-out ones; blends do not mix the two.
"""

import random
from dataclasses import dataclass

HELD_OUT = {
    "f": ("zf_xiaoyi", "af_nova", "bf_lily", "ef_dora", "jf_nezumi"),
    "m": ("zm_yunyang", "am_liam", "bm_fable", "pm_alex", "hm_psi"),
}
TRAINING = {
    "f": tuple(
        "zf_xiaobei zf_xiaoxiao zf_xiaoni af_alloy af_aoede af_bella af_heart af_jessica af_kore af_river af_sarah "
        "af_sky bf_alice bf_emma bf_isabella ff_siwis hf_alpha hf_beta if_sara jf_alpha jf_gongitsune jf_tebukuro "
        "pf_dora".split()
    ),
    "m": tuple(
        "zm_yunjian zm_yunxi am_adam am_echo am_eric am_fenrir am_michael am_onyx am_puck am_santa bm_daniel bm_george "
        "bm_lewis em_alex em_santa hm_omega im_nicola jm_kumo pm_santa".split()
    ),
}
BOY = "zm_yunxia"  # a child's voice, for training
_WEAK = "zf_xiaoni"  # less clear than the others: never the larger part of a blend
# Whether sibilants and nasals merge in a southern accent. Not all speakers merge both.
_SOUTHERN = ((True, True), (True, False), (False, True))


@dataclass(frozen=True)
class Speaker:
    """
    A speaker.

    Args:
        voice: names of voices and their weights, which sum to one.
        speed: speaking rate relative to the voice.
        child: pitch factor that turns the voice into a child's; 1 for no change.
        age: label; NONE for adults, whose age synthesis does not represent.
        gender: label; `None` for a child.
        dialect: label: north (standard), south (by rule) or others (no Mandarin voice in the blend).
        accent: whether sibilants and nasals merge; see `pronunciation.southern`.
    """

    voice: tuple[tuple[str, float], ...]
    speed: float
    child: float
    age: str
    gender: str | None
    dialect: str
    accent: tuple[bool, bool]


def draw_speaker(rng: random.Random, held_out: bool = False) -> Speaker:
    """
    Draw a speaker.

    Args:
        rng: random number generator.
        held_out: whether to draw from the held-out voices instead of the training voices.
    """
    gender = rng.choice("fm")
    boy = not held_out and gender == "m" and rng.random() < 0.06
    child = 1.0
    if boy:
        voice, child = _blend(rng, (BOY,), TRAINING["f"][:2], 0.6), round(rng.uniform(1.0, 1.12), 2)
    else:
        voice = _draw_blend(rng, (HELD_OUT if held_out else TRAINING)[gender])
        if gender == "f" and rng.random() < 0.08:
            child = round(rng.uniform(1.2, 1.4), 2)
    mandarin = any(name.startswith("z") for name, _ in voice)
    south = mandarin and rng.random() < 0.25
    young = boy or child > 1
    return Speaker(
        voice=voice,
        speed=round(rng.uniform(0.8, 1.35), 2),
        child=child,
        age="AGE_<14" if young else "NONE",
        gender=None if young else {"f": "GENDER_FEMALE", "m": "GENDER_MALE"}[gender],
        dialect="DIALECT_SOUTH" if south else "DIALECT_NORTH" if mandarin else "DIALECT_OTHERS",
        accent=rng.choices(_SOUTHERN, (60, 25, 15))[0] if south else (False, False),
    )


def _draw_blend(rng: random.Random, voices: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """Draw a blend, mostly of one Mandarin voice with one or two voices of other languages for timbre."""
    mandarin = tuple(name for name in voices if name.startswith("z"))
    foreign = tuple(name for name in voices if not name.startswith("z"))
    main = tuple(name for name in mandarin if name != _WEAK)
    kind = rng.random()
    if kind < 0.05:
        return _blend(rng, foreign, foreign, 0.5)
    if kind < 0.15:
        return ((rng.choice(main), 1.0),)
    if kind < 0.30:
        return _blend(rng, main, mandarin, 0.55)
    return _blend(rng, main, foreign, 0.55 if kind > 0.37 else 0.3, others=rng.choice((1, 1, 2)))


def _blend(
    rng: random.Random, first: tuple[str, ...], rest: tuple[str, ...], least: float, others: int = 1
) -> tuple[tuple[str, float], ...]:
    """Blend one voice of `first` with others; its weight is `least` to `least` + 0.35."""
    name = rng.choice(first)
    candidates = [other for other in rest if other != name]
    if not candidates:
        return ((name, 1.0),)
    weight = round(rng.uniform(least, least + 0.35), 2)
    added = rng.sample(candidates, min(others, len(candidates)))
    share = rng.uniform(0.3, 0.7) if len(added) == 2 else 1.0
    second = round((1 - weight) * share, 2)
    weights = (weight, second, round(1 - weight - second, 2))
    return tuple(zip((name, *added), weights, strict=False))
