"""The page of a run: complete in itself, and equal to what the run's folder holds."""

import base64
import csv
import io
import json
import math
import re
from html.parser import HTMLParser

import pytest
import soundfile
import torch
from PIL import Image

from mmdiffusion.report import report
from tests import tiny_runs
from tests.helpers import command

VOID = {"meta", "img", "input", "br", "line", "circle", "path"}
NAMES = ("digits", "dance", "captions", "codec", "tokens")


class Page(HTMLParser):
    """Elements of a page, as (tag, attributes, text); every element has to be closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        element = [tag, dict(attrs), ""]
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def all(self, tag, **attributes):
        wanted = {name.strip("_"): value for name, value in attributes.items()}
        return [e for e in self.elements if e[0] == tag and all(e[1].get(n) == v for n, v in wanted.items())]


def content(address):
    """Bytes of a data address."""
    kind, _, text = address.partition(";base64,")
    assert kind in ("data:image/png", "data:audio/wav")
    return base64.b64decode(text, validate=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs by name, each with its page `report.html`."""
    folder = tmp_path_factory.mktemp("report")
    tiny_runs.fit_all(folder)
    for name in NAMES:
        status, _, error = command("report", "--run", folder / name)
        assert status == 0, error
    return folder


@pytest.fixture(scope="module")
def pages(folder):
    return {name: Page((folder / name / "report.html").read_text()) for name in NAMES}


# Complete in itself --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_no_address_leads_outside(pages, name):
    for tag, attributes, _ in pages[name].elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for attribute in ("src", "href", "data", "poster", "srcset", "action"):
            assert re.match(r"data:(image/png|audio/wav);|#", attributes.get(attribute, "#")), (tag, attribute)
    style = "".join(text for _, _, text in pages[name].all("style"))
    assert "@import" not in style
    assert "url(" not in style
    script = "".join(text for _, attributes, text in pages[name].all("script") if "type" not in attributes)
    assert not re.search(r"fetch|XMLHttp|import|https?:", script)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_forbids_the_browser_to_ask_for_more(pages, name):
    (policy,) = pages[name].all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy[1]["content"].startswith("default-src 'none'; img-src data:; media-src data:;")


@pytest.mark.parametrize("name", NAMES)
def test_pictures_and_sounds_can_be_read(pages, name):
    addresses = [attributes["src"] for tag, attributes, _ in pages[name].elements if tag in ("img", "audio")]
    assert addresses
    for address in addresses:
        if address.startswith("data:image"):
            Image.open(io.BytesIO(content(address))).verify()
        else:
            assert soundfile.info(io.BytesIO(content(address))).frames == 2 * 22050


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_sections_in_order(pages, name):
    links = [attributes["href"].removeprefix("#") for _, attributes, _ in pages[name].all("a")]
    assert links == [attributes["id"] for _, attributes, _ in pages[name].all("section")]


SECTIONS = {
    "digits": ["samples", "film", "figures", "curves", "settings"],
    "dance": ["music", "film", "curves", "settings"],
    "captions": ["samples", "film", "curves", "settings"],
    "codec": ["samples", "curves", "settings"],
    "tokens": ["samples", "film", "curves", "settings"],
}


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_what_its_run_has(pages, name):
    assert [attributes["id"] for _, attributes, _ in pages[name].all("section")] == SECTIONS[name]
    assert not pages[name].all("p", class_="missing")


# Equal to the folder -------------------------------------------------------------------------------------------


def test_pictures_are_the_run_s_files(folder, pages):
    for name in ("digits", "captions", "codec"):
        shown = {content(attributes["src"]) for _, attributes, _ in pages[name].all("img")}
        files = sorted((folder / name / "samples").glob("step-*.png"))
        last = max(path.name[:11] for path in files)
        assert files
        assert {path.read_bytes() for path in files if path.name.startswith(last)} <= shown


def test_the_slider_has_every_step(folder, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for part in ("config.yaml", "checkpoints", "metrics.csv"):
        (run / part).symlink_to(folder / "codec" / part)
    (run / "samples").mkdir()
    whole = (folder / "codec" / "samples" / "step-000002-rebuilt.png").read_bytes()
    (run / "samples" / "step-000100-rebuilt.png").write_bytes(whole)
    Image.new("L", (3, 3)).save(run / "samples" / "step-000020-rebuilt.png")
    page = Page(report(str(run)).read_text())
    steps = json.loads(page.all("script", type="application/json")[0][2])
    assert [step for step, _ in steps] == [20, 100]
    assert content(steps[1][1]) == whole
    assert page.all("img")[0][1]["src"] == steps[1][1]


def test_figures_are_the_run_s(folder, pages):
    figures = json.loads((folder / "digits" / "metrics.json").read_text())
    expected = [figure["value"] for row in figures.values() for figure in row.values()]
    tables = "".join(text for _, _, text in pages["digits"].all("table", class_="figures"))
    values = [float(attributes["value"]) for _, attributes, _ in pages["digits"].all("data")]
    assert values[: len(expected)] == pytest.approx(expected, rel=0, abs=0)
    assert all(f"{value:.4g}" in tables for value in expected)
    (protocol,) = pages["digits"].all("dl", class_="protocol")
    for part in ("digits-svm, Gaussian kernel", "360 samples", "given label, drawn image", "sampler ddim"):
        assert part in protocol[2]


def test_last_values_of_the_curves_are_the_file_s(folder, pages):
    with (folder / "dance" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = {}
    for row in rows:
        expected |= {name: float(value) for name, value in row.items() if "/" in name and value}
    values = [float(attributes["value"]) for _, attributes, _ in pages["dance"].all("data")]
    assert sorted(values) == sorted(value for value in expected.values() if math.isfinite(value))
    titles = [text for _, _, text in pages["dance"].all("h3")]
    assert titles.index("loss") < titles.index("bound")


def test_settings_are_the_run_s(folder, pages):
    assert pages["digits"].all("code")[-1][2] == (folder / "digits" / "config.yaml").read_text()


def test_a_name_cannot_become_markup(folder, tmp_path):
    run = tmp_path / "<b>&"
    run.mkdir()
    for part in ("checkpoints", "metrics.csv"):
        (run / part).symlink_to(folder / "codec" / part)
    text = (folder / "codec" / "config.yaml").read_text()
    (run / "config.yaml").write_text("# </code><script>alert(1)</script>\n" + text)
    page = Page(report(str(run)).read_text())
    assert not page.all("b")
    assert len(page.all("script")) == 1


# Film, dance and music -----------------------------------------------------------------------------------------


def film(page):
    return [attributes for _, attributes, _ in page.all("img") if "t / T" in attributes["alt"]]


def opened(attributes):
    return Image.open(io.BytesIO(content(attributes["src"])))


def test_a_film_ends_with_the_run_s_samples(folder, pages):
    """Conditional samples 0 to 3, as the run drew them into its grid; both are float32 here."""
    grid = Image.open(folder / "digits" / "samples" / "step-000002-conditional.png").convert("L")
    side, zoom = (grid.width - 2) // 10 - 2, ((grid.width - 2) // 10 - 2) // 8
    for i in range(4):
        last = opened(film(pages["digits"])[8 * i + 7])
        left = 2 + i * (side + 2)
        cell = grid.crop((left, 2, left + side, 2 + side)).resize((8, 8), Image.Resampling.NEAREST)
        assert zoom > 1
        difference = [abs(a - b) for a, b in zip(cell.tobytes(), last.tobytes(), strict=True)]
        assert max(difference) <= 1


def test_a_film_of_tokens_begins_masked_and_ends_clear(pages):
    for name, num_samples in (("tokens", 4), ("dance", 4)):
        frames = film(pages[name])
        assert len(frames) == 8 * num_samples
        opacity = [opened(frame).convert("RGBA").getchannel("A").tobytes() for frame in frames]
        for i in range(num_samples):
            shares = [sum(values) / len(values) for values in opacity[8 * i : 8 * i + 8]]
            assert shares[0] == 0
            assert shares[-1] == 255


def test_what_was_given_stands_beside_a_film(pages):
    words = [text for _, attributes, text in pages["captions"].all("th") if attributes.get("class") == "word"]
    assert len(words) == 4
    assert all(text.startswith("a handwritten") for text in words)


def test_music_is_the_run_s_file(folder, pages):
    sounds = [content(attributes["src"]) for _, attributes, _ in pages["dance"].all("audio")]
    files = sorted((folder / "dance" / "samples").glob("step-000002-*.wav"))
    assert len(sounds) == 2 * len(files) == 4
    assert sounds[::2] == [path.read_bytes() for path in files]


def test_beats_and_dancer_are_those_of_the_test_split(pages):
    from mmdiffusion.data import Dance
    from mmdiffusion.metrics.onsets import KinematicBeats

    motion = Dance(seconds=2.0).rows("test", [0, 1])["motion"]
    assert isinstance(motion, torch.Tensor)
    beats = KinematicBeats(60)(motion)
    marks = [attributes for _, attributes, _ in pages["dance"].all("path", class_="step")]
    places = [float(mark["d"].removeprefix("M").split(" ")[0]) for mark in marks]
    expected = [900 * time / 2.0 for times in beats for _ in range(2) for time in times.tolist()]
    assert places == pytest.approx(expected, abs=0.06)
    clips = [json.loads(text) for _, _, text in pages["dance"].all("script", type="application/json")]
    assert [len(clip["frames"]) for clip in clips] == [60, 60]
    left_wrist = torch.tensor([frame[2 * 9 : 2 * 9 + 2] for frame in clips[0]["frames"]])
    height = motion[0].unflatten(1, (-1, 3))[::2, 9, 1]
    assert torch.corrcoef(torch.stack([-left_wrist[:, 1], height]))[0, 1] > 0.999


# What is not there, and mistakes -------------------------------------------------------------------------------


def test_a_run_without_its_data_has_a_page_that_says_so(folder, tmp_path, monkeypatch):
    def absent(*_):
        raise ValueError("root is /elsewhere: no such folder")

    monkeypatch.setattr("mmdiffusion.data.base.DataModule.rows", absent)
    status, _, error = command("report", "--run", folder / "dance", "--to", tmp_path / "page.html")
    assert status == 0, error
    page = Page((tmp_path / "page.html").read_text())
    reasons = [text for _, _, text in page.all("p", class_="missing")]
    assert len(reasons) == 2
    assert all("root is /elsewhere" in text for text in reasons)
    assert len(page.all("audio")) == 2


def test_a_page_is_written_where_it_is_asked_for_and_again(folder, tmp_path):
    path = tmp_path / "new" / "page.html"
    for _ in range(2):
        assert command("report", "--run", folder / "codec", "--to", path)[0] == 0
    assert path.read_text().startswith("<!doctype html>")


MISTAKES = [
    ([], ["report needs --run FOLDER"]),
    (["--run", "absent"], ["expected the folder of a finished run", "config.yaml is missing"]),
    (["--run", "RUN", "--to", "FOLDER"], ["it is a folder", "report.html"]),
    (["--run", "RUN", "--to", "LAST"], ["last.ckpt: it exists and is no page", "an .html file to replace"]),
    (["--run", "RUN", "--open"], ["report has no option --open"]),
]


@pytest.mark.parametrize(("words", "expected"), MISTAKES)
def test_a_mistake_is_one_message(folder, tmp_path, words, expected):
    last = folder / "codec" / "checkpoints" / "last.ckpt"
    places = {"RUN": folder / "codec", "FOLDER": tmp_path, "LAST": last}
    status, _, error = command("report", *[places.get(word, word) for word in words])
    assert status == 2
    assert all(part in error for part in expected), error


@pytest.mark.parametrize(("name", "text"), [("metrics.csv", "a/b,step\n1,x\n"), ("metrics.json", '{"fid": 3}')])
def test_a_file_that_holds_something_else_is_named(folder, tmp_path, name, text):
    for part in ("config.yaml", "checkpoints"):
        (tmp_path / part).symlink_to(folder / "codec" / part)
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{re.escape(name)}: expected"):
        report(str(tmp_path))
