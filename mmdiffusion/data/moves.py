"""The moves of ten dances, in a notation of counts.

A move lasts one bar of four beats and has five tracks. A track has eight words, one for each count of `1 & 2 & 3 & 4 &`
on which this part of the body reaches that place; a dot stays. The words are those of `poses.py`.
"""

from typing import NamedTuple


class Move(NamedTuple):
    """One bar of a dance, a track for each part of the body."""

    left_hand: str
    right_hand: str
    left_foot: str
    right_foot: str
    torso: str


class Style(NamedTuple):
    """How a genre is danced.

    Attributes:
        reach: Beats that it takes to reach a pose: short is sharp.
        bounce: Depth of the knees' bounce, one a beat, lowest on the beat; negative is highest on it. Leg lengths.
        sway: Shift of the hips to the left on odd counts and to the right on even ones, in leg lengths.
        moves: The vocabulary.
    """

    reach: float
    bounce: float
    sway: float
    moves: tuple[Move, Move, Move]


STYLES = {
    "break": Style(
        reach=0.75,
        bounce=0.03,
        sway=0.05,
        moves=(
            Move(  # top rock: a step across, arms open and cross
                "open  .     cross .     open  .     cross .",
                "open  .     cross .     open  .     cross .",
                "cross .     home  .     home  .     home  .",
                "home  .     home  .     cross .     home  .",
                "twist' .    low   .     twist .     low   .",
            ),
            Move(  # six-step: round the hands on the floor
                "floor .     floor .     side  .     floor .",
                "floor .     side  .     floor .     floor .",
                "wide  .     long  .     home  .     back  .",
                "back  .     home  .     long  .     wide  .",
                "floor .     floor .     floor .     floor .",
            ),
            Move(  # kick out of a crouch
                "ready .     open  .     ready .     high  .",
                "ready .     open  .     floor .     open  .",
                "home  .     kick  .     home  .     home  .",
                "home  .     home  .     back  .     kick  .",
                "low   .     arch  .     deep  .     low   .",
            ),
        ),
    ),
    "pop": Style(
        reach=0.65,
        bounce=0.01,
        sway=0.04,
        moves=(
            Move(  # arm wave
                "side  .     flex  .     chest .     ready .",
                "chest .     ready .     side  .     flex  .",
                "home  .     .     .     home  .     .     .",
                "home  .     .     .     home  .     .     .",
                "left  .     tall  .     left' .     tall  .",
            ),
            Move(  # fresno: hit to one side, then the other
                "front .     ready .     open  .     ready .",
                "open  .     ready .     front .     ready .",
                "wide  .     home  .     home  .     home  .",
                "home  .     home  .     wide  .     home  .",
                "lean  .     tall  .     lean' .     tall  .",
            ),
            Move(  # robot angles
                "flex  .     front .     flex  .     low   .",
                "low   .     flex  .     front .     flex  .",
                "home  .     .     .     front .     home  .",
                "home  .     front .     home  .     .     .",
                "turn  .     tall  .     turn' .     tall  .",
            ),
        ),
    ),
    "lock": Style(
        reach=0.7,
        bounce=0.04,
        sway=0.05,
        moves=(
            Move(  # points up and down
                "up    .     hip   .     high  .     hip   .",
                "hip   .     up    .     hip   .     high  .",
                "home  .     knee  .     home  .     home  .",
                "home  .     home  .     home  .     knee  .",
                "left  .     low   .     left' .     low   .",
            ),
            Move(  # the lock: arms hang from high elbows
                "high  .     flex  .     flex  .     ready .",
                "high  .     flex  .     flex  .     ready .",
                "wide  .     wide  .     home  .     home  .",
                "wide  .     wide  .     home  .     home  .",
                "tall  .     bow   .     bow   .     tall  .",
            ),
            Move(  # scoo bot: kicks with twirling wrists
                "head  .     open  .     head  .     open  .",
                "head  .     open  .     head  .     open  .",
                "kick  .     home  .     home  .     home  .",
                "home  .     home  .     kick  .     home  .",
                "arch  .     low   .     arch  .     low   .",
            ),
        ),
    ),
    "middle hip-hop": Style(
        reach=0.85,
        bounce=0.08,
        sway=0.04,
        moves=(
            Move(  # two-step
                "ready .     low   .     ready .     low   .",
                "low   .     ready .     low   .     ready .",
                "wide  .     wide  .     home  .     home  .",
                "home  .     home  .     wide  .     wide  .",
                "left  .     low   .     left' .     low   .",
            ),
            Move(  # running man
                "reach .     back  .     reach .     back  .",
                "back  .     reach .     back  .     reach .",
                "knee  .     back  .     knee  .     back  .",
                "back  .     knee  .     back  .     knee  .",
                "push  .     low   .     push  .     low   .",
            ),
            Move(  # rock with crossed arms
                "cross .     open  .     cross .     open  .",
                "cross .     open  .     cross .     open  .",
                "front .     front .     home  .     home  .",
                "back  .     back  .     home  .     home  .",
                "bow   .     arch  .     bow   .     tall  .",
            ),
        ),
    ),
    "LA hip-hop": Style(
        reach=0.7,
        bounce=0.04,
        sway=0.06,
        moves=(
            Move(  # arms frame the face, every half beat
                "head  chest side  .     head  chest low   .",
                "chest head  low   .     chest head  side  .",
                "home  .     wide  .     .     .     home  .",
                "home  .     wide  .     .     .     home  .",
                "twist .     lunge .     twist' .    lunge' .",
            ),
            Move(  # slide and pull
                "front .     flex  chest open  .     low   .",
                "front .     flex  chest open  .     low   .",
                "wide  .     .     .     behind .    home  .",
                "home  .     .     .     home  .     home  .",
                "lean  .     low   .     turn  .     tall  .",
            ),
            Move(  # drop and rise
                "low   .     ready .     high  head  hip   .",
                "low   .     ready .     hip   head  high  .",
                "wide  .     wide  .     home  .     home  .",
                "wide  .     wide  .     home  .     home  .",
                "deep  .     deep  .     arch  .     tall  .",
            ),
        ),
    ),
    "house": Style(
        reach=0.75,
        bounce=-0.03,
        sway=0.06,
        moves=(
            Move(  # jack
                "ready .     .     .     ready .     .     .",
                "ready .     .     .     ready .     .     .",
                "home  wide  home  .     home  wide  home  .",
                "home  .     home  wide  home  .     home  wide",
                "arch  .     push  .     arch  .     push  .",
            ),
            Move(  # pas de bourree
                "open  .     ready .     open  .     ready .",
                "ready .     open  .     ready .     open  .",
                "behind home home  .     home  wide  home  .",
                "home  wide  home  .     behind home home  .",
                "turn  .     tall  .     turn' .     tall  .",
            ),
            Move(  # shuffle
                "ready .     back  .     ready .     back  .",
                "back  .     ready .     back  .     ready .",
                "knee  front home  back  knee  front home  back",
                "home  back  knee  front home  back  knee  front",
                "low   .     .     .     low   .     .     .",
            ),
        ),
    ),
    "waack": Style(
        reach=0.7,
        bounce=0.02,
        sway=0.07,
        moves=(
            Move(  # whacking arms overhead and down
                "neck  side  neck  side  up    .     side  .",
                "side  neck  side  neck  side  .     up    .",
                "home  .     cross .     home  .     home  .",
                "home  .     home  .     home  .     cross .",
                "left  .     left' .     left  .     left' .",
            ),
            Move(  # both arms roll behind the head
                "neck  .     high  .     neck  .     side  .",
                "neck  .     high  .     neck  .     side  .",
                "front .     home  .     front .     home  .",
                "home  .     home  .     home  .     home  .",
                "arch  .     tall  .     lean  .     lean' .",
            ),
            Move(  # walk and pose
                "hip   .     hip   .     up    neck  high  .",
                "side  neck  side  .     hip   .     hip   .",
                "cross .     home  .     cross .     home  .",
                "home  .     cross .     home  .     home  .",
                "turn  .     turn  .     turn' .     turn' .",
            ),
        ),
    ),
    "krump": Style(
        reach=0.7,
        bounce=0.04,
        sway=0.04,
        moves=(
            Move(  # stomps with arm swings
                "flex  .     low   .     flex  .     low   .",
                "flex  .     low   .     flex  .     low   .",
                "knee  wide  wide  .     wide  .     wide  .",
                "wide  .     wide  .     knee  wide  wide  .",
                "arch  .     deep  .     arch  .     deep  .",
            ),
            Move(  # chest pops and jabs
                "front flex  flex  .     front flex  flex  .",
                "flex  .     front flex  flex  .     front flex",
                "wide  .     .     .     wide  .     .     .",
                "wide  .     .     .     wide  .     .     .",
                "bow   .     arch  .     bow   .     arch  .",
            ),
            Move(  # buck: sink and throw
                "hip   .     up    .     cross .     flex  .",
                "flex  .     cross .     up    .     hip   .",
                "long  .     long  .     wide  .     wide  .",
                "wide  .     wide  .     long  .     long  .",
                "lunge .     deep  .     lunge' .    deep  .",
            ),
        ),
    ),
    "street jazz": Style(
        reach=0.75,
        bounce=0.02,
        sway=0.09,
        moves=(
            Move(  # hip walk
                "hip   .     open  .     hip   .     up    .",
                "open  .     hip   .     open  .     hip   .",
                "cross .     home  .     cross .     home  .",
                "home  .     cross .     home  .     wide  .",
                "left  .     left' .     left  .     lean' .",
            ),
            Move(  # kick ball change
                "side  .     chest .     side  .     low   .",
                "side  .     chest .     side  .     low   .",
                "kick  .     back  home  home  .     home  .",
                "home  .     home  .     swing .     home  .",
                "tall  .     low   .     lean  .     tall  .",
            ),
            Move(  # body roll
                "head  .     hip   .     head  .     hip   .",
                "head  .     hip   .     head  .     hip   .",
                "wide  .     wide  .     wide  .     home  .",
                "home  .     home  .     home  .     home  .",
                "arch  .     bow   .     lunge .     tall  .",
            ),
        ),
    ),
    "ballet jazz": Style(
        reach=1.0,
        bounce=0.0,
        sway=0.04,
        moves=(
            Move(  # port de bras
                "low   .     reach .     up    .     side  .",
                "low   .     reach .     up    .     side  .",
                "home  .     front .     front .     home  .",
                "home  .     home  .     home  .     home  .",
                "low   .     tall  .     arch  .     tall  .",
            ),
            Move(  # arabesque
                "side  .     front .     up    .     side  .",
                "side  .     side  .     side  .     side  .",
                "home  .     home  .     tuck  .     home  .",
                "home  .     front .     home  .     home  .",
                "tall  .     tall  .     push  .     tall  .",
            ),
            Move(  # grand battement to the side
                "side  .     up    .     up    .     low   .",
                "side  .     side  .     side  .     low   .",
                "behind .    swing .     behind .    home  .",
                "home  .     home  .     home  .     home  .",
                "left' .     lean' .     left' .     low   .",
            ),
        ),
    ),
}
"""Genre to style; the genres stand as in `rhythm.GENRES`."""
