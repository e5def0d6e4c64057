"""Words for the places of hands, feet and torso, of which moves are made.

A word is the part's numbers in a pose (see `skeleton.POSE_SIZES`). A place of a hand or foot is the same on both sides,
outward from the body; a word for the torso says where the hips are as well.
"""

HAND = {
    #         outward  up   forward of the shoulder, in arm lengths
    "low": (0.18, -0.93, 0.1),
    "ready": (0.2, -0.5, 0.45),
    "hip": (0.3, -0.72, 0.1),
    "back": (0.3, -0.7, -0.35),
    "open": (0.65, -0.62, 0.15),
    "side": (0.97, 0.0, 0.1),
    "high": (0.65, 0.72, 0.1),
    "up": (0.1, 0.97, 0.1),
    "front": (0.0, 0.0, 0.98),
    "reach": (0.1, -0.35, 0.85),
    "chest": (-0.3, -0.22, 0.4),
    "cross": (-0.7, -0.1, 0.5),
    "head": (0.0, 0.42, 0.25),
    "flex": (0.5, 0.15, 0.25),
    "neck": (0.2, 0.4, -0.05),
    "floor": (0.15, -0.8, 0.55),
}

FOOT = {
    #         outward up  forward of its rest, in leg lengths
    "home": (0.0, 0.0, 0.0),
    "wide": (0.2, 0.0, 0.0),
    "front": (0.03, 0.0, 0.28),
    "back": (0.03, 0.0, -0.3),
    "cross": (-0.32, 0.0, 0.16),
    "behind": (-0.3, 0.0, -0.2),
    "knee": (0.06, 0.4, 0.28),
    "kick": (0.0, 0.32, 0.65),
    "swing": (0.55, 0.3, 0.1),
    "tuck": (0.05, 0.35, -0.3),
    "long": (0.3, 0.0, 0.45),
}

_TORSO = {
    #        hips: left  up  forward  turn  lean  tilt  twist
    "tall": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "low": (0.0, -0.12, -0.04, 0.0, 0.2, 0.0, 0.0),
    "deep": (0.0, -0.3, -0.1, 0.0, 0.5, 0.0, 0.0),
    "floor": (0.0, -0.55, -0.2, 0.0, 1.25, 0.0, 0.0),
    "bow": (0.0, -0.1, -0.14, 0.0, 0.75, 0.0, 0.0),
    "arch": (0.0, -0.08, 0.08, 0.0, -0.3, 0.0, 0.0),
    "push": (0.0, -0.06, 0.06, 0.0, 0.25, 0.0, 0.0),
    "left": (0.13, -0.05, 0.0, 0.0, 0.05, 0.14, 0.0),
    "lunge": (0.24, -0.2, 0.0, 0.25, 0.15, 0.1, 0.1),
    "twist": (0.03, -0.08, 0.0, 0.1, 0.08, 0.0, 0.6),
    "turn": (0.0, -0.05, 0.0, 0.7, 0.05, 0.0, 0.3),
    "lean": (0.05, -0.04, 0.0, 0.0, 0.0, 0.4, 0.0),
}
MIRROR = (-1, 1, 1, -1, 1, -1, -1)
"""Signs of the numbers of the torso in a mirror."""

TORSO = _TORSO | {
    f"{word}'": tuple(sign * number for sign, number in zip(MIRROR, place, strict=True))
    for word, place in _TORSO.items()
}
"""With a prime: to the other side, the dancer's right."""
