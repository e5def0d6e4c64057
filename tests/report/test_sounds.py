"""A clip in a notebook: a page of its own inside a frame."""

import re
from html import unescape

import torch

from mmdiffusion.report.sounds import Clip, Sound, heard
from mmdiffusion.report.uri import sound_uri

RATE = 22050


def clicks(*times):
    """A second of silence with clicks."""
    audio = torch.zeros(RATE)
    for time in times:
        audio[round(time * RATE) :][:200] = 0.9
    return audio


def test_onsets_are_told_apart_by_the_beats_of_the_dance():
    audio = clicks(0.3, 0.7)
    sound = heard("drawn", sound_uri(audio, RATE), audio, RATE, torch.tensor([0.3]))
    assert [is_together for _, is_together in sound.beats] == [True, False]
    assert sound.num_together == 1


def test_a_notebook_shows_a_clip_as_a_page_inside_a_frame():
    sound = Sound("drawn by <the> model", "data:audio/wav;base64,AAAA", [(0.5, True)], [0.1, 0.2])
    html = Clip('a "waack"', 20, 1.0, [sound], None)._repr_html_()
    match = re.fullmatch(r'<div><iframe srcdoc="([^"<>]*)" style="[^"<>]*"></iframe></div>', html)
    assert match, "nothing in the page ends the frame"
    page = unescape(match[1])
    assert page.startswith("<!doctype html>")
    assert 'src="data:audio/wav;base64,AAAA"' in page
    assert "drawn by &lt;the&gt; model" in page
    assert "a &#34;waack&#34;" in page
