"""The page in a real browser: nothing fails, nothing is asked for, and what should move moves."""

import json
import os
import re
import shutil
import subprocess
from html import unescape

import pytest

from mmdiffusion.data import Dance
from mmdiffusion.report import report
from mmdiffusion.report.sounds import HEIGHT, clips
from tests import tiny_runs

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LISTEN = """<script>
const faults = [];
addEventListener("error", (event) => faults.push(String(event.message || event.target.outerHTML).slice(0, 200)), true);
addEventListener("securitypolicyviolation", (event) => faults.push(event.blockedURI));
</script>"""
PROBE = """<script>
const wait = (target, name) => new Promise((done) => target.addEventListener(name, done, { once: true }));
const places = () => [...document.querySelectorAll(".dancer line[data-from]")].map((line) => line.getAttribute("y1"));
addEventListener("load", async () => {
  const found = { ready: document.documentElement.dataset.ready, faults, seconds: [] };
  found.pictures = [...document.images].map((image) => image.complete && image.naturalWidth > 0);
  found.requests = performance.getEntriesByType("resource").map((entry) => entry.name.slice(0, 30));
  found.overflow = document.documentElement.scrollWidth - innerWidth;
  found.heights = [...document.querySelectorAll("section")].map((section) => section.getBoundingClientRect().height);
  for (const audio of document.querySelectorAll("audio")) {
    if (audio.readyState < 1) await wait(audio, "loadedmetadata");
    found.seconds.push(audio.duration);
  }
  const audio = document.querySelector("audio");
  if (audio) {
    found.before = places();
    audio.currentTime = 1;
    await wait(audio, "seeked");
    found.after = places();
    found.head = audio.closest(".sound").querySelector(".head").getAttribute("x1");
  }
  const slider = document.querySelector(".grid input");
  if (slider) {
    const picture = document.querySelector(".grid img"), last = picture.src;
    slider.value = 0;
    slider.dispatchEvent(new Event("input"));
    found.slid = [picture.src !== last, document.querySelector(".grid output").textContent];
  }
  const probe = document.createElement("pre");
  probe.id = "probe";
  probe.textContent = JSON.stringify(found);
  document.body.append(probe);
});
</script>"""


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser to look at a page with: none of {', '.join(BROWSERS)} is installed")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    for name in ("digits", "dance"):
        tiny_runs.fit(folder / name, getattr(tiny_runs, name)())
    samples = folder / "digits" / "samples"
    shutil.copy(samples / "step-000002-joint.png", samples / "step-000001-conditional.png")
    return folder


def looked_at(browser, page, width):
    """What a browser finds on a page."""
    text = page.read_text().replace("<head>", f"<head>{LISTEN}", 1).replace("</body>", f"{PROBE}</body>")
    page.with_name("probed.html").write_text(text)
    options = ["--headless=new", "--disable-gpu", "--mute-audio", f"--window-size={width},900", "--dump-dom"]
    options += ["--virtual-time-budget=20000", f"--user-data-dir={page.with_name('profile')}"]
    options += ["--no-sandbox"] if os.geteuid() == 0 else []
    address = page.with_name("probed.html").as_uri()
    done = subprocess.run([browser, *options, address], capture_output=True, text=True, timeout=120, check=False)
    match = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout)
    assert match, done.stderr[-2000:]
    return json.loads(match[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


@pytest.mark.parametrize("width", [1200, 500])
@pytest.mark.parametrize("name", ["digits", "dance"])
def test_a_browser_shows_the_page(browser, folder, name, width):
    found = looked_at(browser, report(str(folder / name)), width)
    assert found["ready"] == "true"
    assert found["faults"] == []
    assert all(found["pictures"])
    assert [request for request in found["requests"] if not request.startswith("data:")] == []
    assert found["overflow"] <= 0, "the page is no wider than its window"
    assert min(found["heights"]) > 50
    if name == "digits":
        assert found["slid"] == [True, "step 1"]
    else:
        assert found["seconds"] == pytest.approx([2.0] * 4)
        assert found["before"] != found["after"], "the dancer follows the music"
        assert float(found["head"]) == pytest.approx(450)


def test_a_clip_in_a_notebook_dances_and_needs_no_scroll_bar(browser, folder, tmp_path):
    clip, _ = clips(folder / "dance" / "samples", Dance(seconds=2.0, audio=True), [])
    page = tmp_path / "clip.html"
    page.write_text(unescape(clip._repr_html_().split('"')[1]))
    found = looked_at(browser, page, 1000)
    assert found["faults"] == []
    assert found["before"] != found["after"]
    assert found["overflow"] <= 0
    assert HEIGHT - 150 < found["heights"][0] < HEIGHT  # fonts differ


def test_the_probe_sees_a_fault(browser, folder, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        '<!doctype html><html><head></head><body style="width:3000px"><section></section>'
        '<img src="data:image/png;base64,AAAA"><script>nothing()</script></body></html>'
    )
    found = looked_at(browser, page, 800)
    assert len(found["faults"]) == 2
    assert found["pictures"] == [False]
    assert found["overflow"] > 0
