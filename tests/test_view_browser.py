"""The page of --save html in a real browser: it plays, seeks, filters, and takes keys."""

import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import HAS_FIREFOX, IS_THERE, Browser, Firefox, Window

from conftest import detections
from rnndet.inference.writers import EXPORTS
from rnndet.inference.writers.base import ExportedVideo
from rnndet.inference.writers.view.page import MISSED, Media, Page
from rnndet.structures import (
    Counts,
    Detections,
    Frame,
    FrameResult,
    LineCount,
    RegionCount,
    VideoInfo,
)
from rnndet.video.image import write_image

SIZE_HW = (90, 160)
CLASSES = ("bird", "<b>big</b> car", "</script><script>document.title = 'gone'</script>")
COUNT = 40
VIDEO = "document.getElementById('video')"
ROWS = "[...document.querySelectorAll('.row')].sort((a, b) => a.offsetTop - b.offsetTop)"
PLACE = "Number(document.getElementById('axis').getAttribute('aria-valuenow'))"
H264 = 'video/mp4; codecs="avc1.42E01E"'
# Seconds of the frames: 25 per second, then slower; half a second is missing before frame 20.
TIMES = [k / 25 for k in range(20)] + [1.26 + 0.1 * k for k in range(20)]


def grey(index: int) -> int:
    return 30 + 5 * index


def image(index: int) -> np.ndarray:
    """A frame whose brightness is its number."""
    return np.full((*SIZE_HW, 3), grey(index), np.uint8)


def results() -> list[FrameResult]:
    """Track 1, a bird, in all frames; track 12, a car, in frames 10 to 29; some of no track."""
    made = []
    for i, time in enumerate(TIMES):
        rows = [([10, 10, 40, 40], 0.9, 0, 1)]
        rows += [([80, 20, 120, 60], 0.5, 1, 12)] if 10 <= i < 30 else []
        rows += [([130, 50, 150, 80], 0.4, 2, 0)] if i % 4 == 0 else []
        boxes, scores, labels, ids = zip(*rows, strict=True)
        frame = Frame(image(i), i, time, gap=11 if i == 20 else 0)
        made.append(FrameResult(frame, detections(boxes, scores, labels, ids), cut=i == 30))
    return made


def save(folder: Path, shown: list[FrameResult], *, names=("video", "html"), fps=25) -> Path:
    info = VideoInfo("clip", "<i>clip.mp4", *SIZE_HW[::-1], Fraction(fps), len(shown))
    exports = [EXPORTS[name](folder) for name in names]
    for export in exports:
        export.begin(ExportedVideo(info, SIZE_HW, CLASSES))
    for result in shown:
        for export in exports:
            export.write(result, result.frame.image)
    codec = next((export.codec for export in exports if export.codec), None)
    for export in exports:
        export.sum_up({"codec": codec, "interrupted": False, "frames": len(shown)}, ())
        export.close()
    return folder / "view.html"


BROWSERS = [
    pytest.param(
        Browser, marks=pytest.mark.skipif(not IS_THERE, reason="needs chromium and chromedriver")
    ),
    pytest.param(Firefox, marks=pytest.mark.skipif(not HAS_FIREFOX, reason="needs firefox")),
]


@pytest.fixture(scope="module", params=BROWSERS, ids=["chromium", "firefox"])
def started(request, tmp_path_factory) -> Iterator[Window]:
    with request.param(tmp_path_factory.mktemp("profile")) as window:
        if not window.value(f"document.createElement('video').canPlayType('{H264}')"):
            pytest.skip("needs a browser that plays H.264; for firefox libavcodec is")
        yield window


@pytest.fixture
def browser(started) -> Window:
    """A browser without the errors of tests before."""
    started.errors()
    return started


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    pytest.importorskip("av")
    return save(tmp_path_factory.mktemp("results"), results())


@pytest.fixture
def page(browser, saved) -> Window:
    """The page of `results` with its video, at the first frame."""
    browser.open(saved)
    browser.wait(f"{VIDEO}.readyState >= 2")
    return browser


def brightness(browser: Window, path: Path) -> float:
    """The grey of the picture near its upper right corner, where no box is."""
    browser.wait(f"!{VIDEO}.seeking")
    left, top, width, height = browser.value(
        "(() => { const r = document.getElementById('stage').getBoundingClientRect();"
        " return [r.left, r.top, r.width, r.height]; })()"
    )
    browser.screenshot(path)
    pixels = cv2.imread(str(path))
    return float(pixels[round(top + 0.05 * height), round(left + 0.93 * width)].mean())


def row_texts(browser: Window) -> list[str]:
    browser.wait(f"{ROWS}.length > 0")  # they are drawn with the next animation frame
    return browser.value(f"{ROWS}.map((row) => row.children[1].textContent)")


def across(time: float) -> float:
    """Share of the time line's width at which a time is; the last frame lasts 0.04 s."""
    return time / (TIMES[-1] + 0.04)


def click_time(browser: Window, time: float) -> None:
    """Click on the time axis; the width of the scroll bar is not part of it."""
    share = browser.value(
        "(() => { const lanes = document.getElementById('lanes');"
        "const axis = document.getElementById('axis').clientWidth;"
        "return (axis - (lanes.offsetWidth - lanes.clientWidth)) / axis; })()"
    )
    browser.click("#axis", across(time) * share)


def test_page_opens_from_disk_without_an_error(page):
    assert page.value("location.protocol") == "file:"
    assert page.value(f"[{VIDEO}.videoWidth, {VIDEO}.videoHeight]") == [160, 90]
    assert page.errors() == []
    assert page.value("document.querySelectorAll('#notes li').length") == 0


def test_names_are_text_in_the_page(page):
    assert page.value("document.title") == "<i>clip.mp4"
    assert page.value("document.querySelector('h1').textContent") == "<i>clip.mp4"
    names = page.value(f"{ROWS}.map((row) => row.firstElementChild.textContent)")
    assert sorted(names) == sorted(CLASSES)
    assert page.value("document.querySelectorAll('b, i, img[src]').length") == 0


def test_click_in_the_time_line_seeks_the_video_to_that_time(page):
    before = page.value(f"{VIDEO}.currentTime")
    click_time(page, 2.0)
    page.wait(f"!{VIDEO}.seeking")
    after = page.value(f"{VIDEO}.currentTime")
    assert before == 0
    assert 1.96 <= after < 2.06  # the frame that begins at 1.96 s
    assert page.value(PLACE) == 1.96


@pytest.mark.parametrize("index", [0, 13, 19, 20, 33, 39])
def test_picture_is_the_frame_of_that_time_where_the_rate_varies(page, saved, tmp_path, index):
    page.open(saved, f"#t={TIMES[index]:.3f}")
    page.wait(f"{VIDEO}.readyState >= 2 && {VIDEO}.currentTime > 0")  # within the frame
    assert page.value(PLACE) == pytest.approx(TIMES[index], abs=1e-3)
    assert abs(brightness(page, tmp_path / "shot.png") - grey(index)) < 2.4


def test_picture_follows_the_keys_frame_by_frame(page, tmp_path):
    greys = []
    for _ in range(3):
        page.press("ArrowRight")
        greys.append(brightness(page, tmp_path / "shot.png"))
    page.press(",")
    greys.append(brightness(page, tmp_path / "shot.png"))
    assert greys == pytest.approx([grey(1), grey(2), grey(3), grey(2)], abs=2.4)


def test_a_new_fragment_seeks(page):
    page.value("void (location.hash = '#t=0.4')")
    page.wait(f"{PLACE} === 0.4")
    page.wait(f"Math.abs({VIDEO}.currentTime - 0.41) < 0.02")


def test_address_keeps_the_time_that_was_sought(page):
    page.press("ArrowRight", "ArrowRight")
    page.wait("location.hash === '#t=0.080'")


@pytest.mark.parametrize("keys, time", [
    (["End"], TIMES[-1]),
    (["End", "Home"], 0.0),
    ([".", ".", "ArrowLeft"], 0.04),
    (["Shift+ArrowRight"], TIMES[19]),  # 1 s is in the gap, after frame 19
    (["]"], TIMES[20]),  # the gap
    (["]", "]"], TIMES[30]),  # the cut
    (["End", "["], TIMES[30]),
    (["ArrowDown", "ArrowDown", "ArrowDown", "Enter"], TIMES[10]),  # the third row begins there
])  # fmt: skip
def test_keys_seek(page, keys, time):
    page.press(*keys)
    assert page.value(PLACE) == pytest.approx(time, abs=1e-3)
    page.wait(f"!{VIDEO}.seeking && Math.abs({VIDEO}.currentTime - {time}) < 0.021")


def test_space_plays_and_pauses(page):
    page.press(" ")
    page.wait(f"!{VIDEO}.paused && {PLACE} > 0.1")
    page.press(" ")
    page.wait(f"{VIDEO}.paused")
    page.wait("document.getElementById('play').getAttribute('aria-label') === 'Play'")


def test_up_and_down_select_a_track_and_escape_clears_it(page):
    selected = "document.querySelectorAll('.row[aria-selected=true]')"
    page.press("ArrowDown", "ArrowDown")
    page.wait(f"{selected}[0]?.getAttribute('aria-rowindex') === '3'")
    active = "document.getElementById('grid').getAttribute('aria-activedescendant')"
    assert page.value(f"{active} === {selected}[0].id")
    page.press("ArrowUp")
    page.wait(f"{selected}[0]?.getAttribute('aria-rowindex') === '2'")
    page.press("Escape")
    page.wait(f"{selected}.length === 0")


def test_slash_filters_by_class_and_by_id(page):
    page.press("/", *"BIG")
    page.wait(f"{ROWS}.length === 1")
    assert row_texts(page) == ["#12"]
    assert page.value("document.getElementById('status').textContent") == "1 of 2 tracks"
    page.press("Escape")  # empties the filter
    page.wait(f"{ROWS}.length === 3")
    page.press("/", "#", "1")
    page.wait(f"{ROWS}.length === 1")
    assert row_texts(page) == ["#1"]
    page.press("9")
    page.wait("document.getElementById('empty').textContent === 'No track fits the filter.'")


def test_chip_hides_a_class_in_the_table_and_in_the_counts(page):
    page.click(".chip[data-label='0']")
    page.wait(f"{ROWS}.length === 2")
    assert "#1" not in row_texts(page)
    counts = page.value("document.getElementById('count-text').textContent")
    assert counts == f"1 {CLASSES[2]}"
    pressed = "document.querySelector('.chip').getAttribute('aria-pressed')"
    page.click(".chip[data-label='0']")
    page.wait(f"{ROWS}.length === 3 && {pressed} === 'true'")


def test_most_objects_of_the_classes_that_are_shown_fill_the_counts(page):
    top = (
        "(() => { const c = document.getElementById('counts'), w = c.width;"
        " const pixels = c.getContext('2d').getImageData(0, 0, w, c.height).data;"
        " for (let y = 0; y < c.height; y++) { let n = 0;"
        " for (let x = 0; x < w; x++) n += pixels[4 * (y * w + x) + 3] === 255;"
        " if (n > 0.03 * w) return y / devicePixelRatio; } })()"
    )
    for label in ("0", "1"):  # 3, 2 and 1 objects at most
        assert page.value(top) == pytest.approx(12, abs=1)
        page.click(f".chip[data-label='{label}']")
        page.wait(f"{ROWS}.length === {2 - int(label)}")
    page.wait(f"{top} >= 11")
    assert page.value(top) == pytest.approx(12, abs=1)


@pytest.mark.parametrize("column, names", [
    ("score", ["#1", "#12", "no track"]), ("frames", ["#1", "#12", "no track"]),
    ("track", ["#1", "#12", "no track"]), ("start", ["#12", "no track", "#1"]),
])  # fmt: skip
def test_table_sorts_by_a_column_and_then_the_other_way(page, column, names):
    button = f"#head button[data-key='{column}']"
    ends = "({ descending: '▾', ascending: '▴' })"
    header = f"document.querySelector(`{button}`)"
    before = page.value(f"{header}.parentElement.ariaSort")
    for expected in (names, names[::-1]):
        page.click(button)
        page.wait(f"{header}.parentElement.ariaSort !== {json.dumps(before)}")
        before = page.value(f"{header}.parentElement.ariaSort")
        assert page.value(f"{header}.textContent.endsWith({ends}['{before}'])")
        if column == "start":  # sorted by it already; the rows that begin together keep their order
            end = 0 if before == "descending" else 2
            page.wait(f"{ROWS}[{end}]?.children[1].textContent === '#12'")
        else:
            texts = f"{ROWS}.map((row) => row.children[1].textContent)"
            page.wait(f"JSON.stringify({texts}) === JSON.stringify({json.dumps(expected)})")


def test_help_opens_by_a_key_and_closes(page):
    page.press("?")
    page.wait("document.getElementById('help').open")
    page.press("End")  # not for the page behind it
    page.click("#help form button")
    page.wait("!document.getElementById('help').open")
    assert page.value(PLACE) == 0
    assert page.errors() == []


def test_click_on_a_box_selects_its_track(page):
    page.click("#overlay", 25 / 160, 25 / 90)
    page.wait("document.querySelector('.row[aria-selected=true] :nth-child(2)')"
              "?.textContent === '#1'")  # fmt: skip
    page.click("#overlay", 0.95, 0.05)
    page.wait("!document.querySelector('.row[aria-selected=true]')")


def test_objects_of_the_frame_are_listed(page):
    page.press("]")  # frame 20
    rows = "[...document.querySelectorAll('#now button')].map((b) => b.textContent)"
    expected = ["bird#10.90", f"{CLASSES[1]}#120.50", f"{CLASSES[2]}no track0.40"]
    page.wait(f"{rows}.join('|') === {json.dumps('|'.join(expected))}")


def test_bars_and_counts_are_drawn_in_colour(page):
    for name in ("bars", "counts"):
        share = page.value(
            f"(() => {{ const c = document.getElementById('{name}');"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;"
            "for (let i = 0; i < d.length; i += 4) n += Math.abs(d[i] - d[i + 2]) > 40;"
            "return n / (d.length / 4); })()"
        )
        assert share > 0.05, name


def test_zoom_keeps_the_play_head_in_sight_and_the_whole_comes_back(page):
    page.press("End", "+", "+", "+")
    page.wait("document.getElementById('thumb').clientWidth < "
              "document.getElementById('pan').clientWidth / 3")  # fmt: skip
    assert not page.value("document.getElementById('playhead').hidden")
    page.press("0")
    page.wait("document.getElementById('thumb').clientWidth === "
              "document.getElementById('pan').clientWidth")  # fmt: skip


def test_page_without_a_video_shows_boxes_and_says_what_is_missing(browser, tmp_path):
    browser.open(save(tmp_path, results(), names=("html",)))
    assert "no annotated.mp4" in browser.value("document.getElementById('notes').textContent")
    assert browser.value(f"{VIDEO}.hidden")
    browser.press("ArrowRight")
    assert browser.value(PLACE) == 0.04
    browser.press(" ")
    browser.wait(f"{PLACE} > 0.3")
    assert browser.errors() == []


def test_page_whose_video_was_moved_says_so_and_goes_on(browser, tmp_path):
    pytest.importorskip("av")
    page = save(tmp_path, results())
    (tmp_path / "annotated.mp4").unlink()
    browser.open(page)
    browser.wait("document.getElementById('notes').textContent.includes('cannot be played')")
    own = 1 if isinstance(browser, Browser) else 0  # Chromium says itself that there is no file
    assert len(browser.errors()) == own
    browser.press("End")
    assert browser.value(PLACE) == pytest.approx(TIMES[-1], abs=1e-3)
    browser.wait("document.getElementById('stage').className === 'blank'")


@pytest.mark.parametrize("count", [1, 3])
def test_video_without_detections_is_shown(browser, tmp_path, count):
    pytest.importorskip("av")
    empty = [FrameResult(Frame(image(i), i, i / 25), Detections.empty()) for i in range(count)]
    browser.open(save(tmp_path, empty))
    browser.wait(f"{VIDEO}.readyState >= 2")
    assert browser.value("document.getElementById('empty').textContent") == "Nothing was detected."
    assert browser.value("document.getElementById('status').textContent") == "0 tracks"
    browser.press("ArrowDown", "Enter", "z", "+", "End")
    assert browser.value(PLACE) == pytest.approx((count - 1) / 25)
    assert browser.errors() == []


def test_images_of_a_page_are_shown_by_their_names(browser, tmp_path):
    page = Page(("bird",), size_hw=SIZE_HW, step=0.04)
    names = ["a #1?.png", "b%20.png", "<c>.png"]
    for i, name in enumerate(names):
        write_image(tmp_path / name, image(7 * i))
        page.add_frame(index=i, time=i / 25, shown=i / 25)
        page.add_box(page.row(1, "#1", label=0), (8, 8, 30, 30), score=0, label=0, kind=MISSED)
    urls = ("a%20%231%3F.png", "b%2520.png", "%3Cc%3E.png")
    media = Media("images", urls, SIZE_HW[::-1])
    path = tmp_path / "page.html"
    path.write_text(page.to_html(title="images", media=media), "utf-8")
    browser.open(path)
    shown = "document.getElementById('image')"
    for index in range(3):
        browser.wait(f"{shown}.complete && {shown}.naturalWidth === 160 && "
                     f"{shown}.src.endsWith('{urls[index]}')")  # fmt: skip
        assert brightness(browser, tmp_path / "shot.png") == pytest.approx(grey(7 * index), abs=2)
        browser.press("ArrowRight")
    assert browser.value(f"{ROWS}[0].children[5].textContent") == "3"  # missed
    assert browser.errors() == []


def named(folder: Path, classes: tuple[str, ...]) -> Path:
    """A page with a track of each class."""
    boxes = [[10 + 9 * i, 10, 18 + 9 * i, 40] for i in range(len(classes))]
    found = detections(boxes, [0.5] * len(boxes), range(len(boxes)), range(1, len(boxes) + 1))
    page = Page(classes, size_hw=SIZE_HW, step=0.04)
    for i in range(3):
        page.add_frame(index=i, time=i / 25, shown=i / 25)
        for k, box in enumerate(found.boxes.tolist()):
            page.add_box(page.row(k, f"#{k + 1}", label=k), box, score=0.5, label=k)
    path = folder / "page.html"
    path.write_text(page.to_html(title="names"), "utf-8")
    return path


WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture
def small(browser) -> Iterator[Window]:
    """The window as small as a browser allows, about 500 x 500."""
    browser.resize(500, 500)
    yield browser
    browser.resize(1400, 1000)


@pytest.mark.parametrize("classes", [
    ("x" * 400,), ("many words " * 40, "y" * 90), ("שלום עולם", "مرحبا " * 60),
], ids=["one word", "words", "right to left"])  # fmt: skip
def test_long_names_do_not_widen_the_page(browser, tmp_path, classes):
    browser.open(named(tmp_path, classes))
    assert browser.value(WIDE) == 0


def test_long_names_do_not_widen_the_page_in_a_small_window(small, tmp_path):
    small.open(named(tmp_path, ("x" * 400, "many words " * 40)))
    assert small.value(WIDE) == 0


def test_counts_keep_their_order_beside_names_from_right_to_left(browser, tmp_path):
    browser.open(named(tmp_path, ("שלום", "مرحبا", "bird")))
    starts = browser.value(
        "[...document.querySelectorAll('#count-text bdi')].map((b) => b.getBoundingClientRect().x)"
    )
    assert starts == sorted(starts) and len(starts) == 3
    assert browser.value("document.getElementById('count-text').textContent") == (
        "1 שלום, 1 مرحبا, 1 bird"
    )


def test_picture_fills_its_stage_at_every_size(small, saved):
    ratio = (
        "(() => { const s = document.getElementById('stage');"
        "return s.clientWidth / s.clientHeight; })()"
    )
    for width, height in ((500, 500), (950, 900), (1400, 1000)):
        small.resize(width, height)
        small.open(saved)
        small.wait(f"{VIDEO}.readyState >= 2")
        assert small.value(ratio) == pytest.approx(160 / 90, rel=0.02), width


def test_heads_of_the_table_fit_with_their_arrows(page):
    for key in ("class", "track", "start", "end", "frames", "score"):
        page.click(f"#head button[data-key='{key}']")
        page.wait(
            f"document.querySelector(`#head button[data-key='{key}']`).textContent !== '{key}'"
        )
    heads = "[...document.querySelectorAll('#head button')]"
    assert page.value(f"{heads}.filter((b) => b.scrollWidth > b.clientWidth).length") == 0


def test_screen_readers_are_not_told_the_time_of_every_frame(page):
    live = "(e) => e.ariaLive || e.getAttribute('aria-live')"
    assert page.value(f"({live})(document.getElementById('clock'))") == "off"


def test_help_begins_at_its_title_in_a_small_window(small, saved):
    small.open(saved)
    small.press("?")
    small.wait("document.getElementById('help').open")
    assert small.value("document.getElementById('help').scrollTop") == 0
    assert small.value("document.activeElement.id") == "help-title"
    small.press("Escape")
    small.wait("!document.getElementById('help').open")


def test_page_keys_move_by_a_second_on_the_time_axis(page):
    page.value("document.getElementById('axis').focus()")
    page.press("PageUp")
    page.wait(f"{PLACE} === {TIMES[19]}")
    page.press("PageDown")
    page.wait(f"{PLACE} === 0")


def test_count_under_the_pointer_is_shown_until_it_leaves(page):
    text = "document.getElementById('count-text').textContent"
    before = page.value(text)
    page.value(
        "void ((r) => document.getElementById('chart').dispatchEvent(new PointerEvent("
        "'pointermove', { clientX: r.left + 0.3 * r.width, clientY: r.top + 5 })))"
        "(document.getElementById('counts').getBoundingClientRect())"
    )
    assert page.value(text) != before
    leave = "document.getElementById('chart').dispatchEvent(new PointerEvent('pointerleave'))"
    page.value(leave)
    assert page.value(text) == before


def test_legend_tells_of_smoothed_scores_in_an_annotated_picture_only(page, tmp_path):
    said = "document.getElementById('legend').textContent.includes('smoothed score')"
    assert page.value(said)
    plain = Page(("bird",), size_hw=SIZE_HW, step=0.04)
    plain.add_frame(index=0, time=0.0, shown=0.0)
    media = Media("video", ("none.mp4",), SIZE_HW[::-1])
    path = tmp_path / "page.html"
    path.write_text(plain.to_html(title="plain", media=media), "utf-8")
    page.open(path)
    assert not page.value(said)


def test_empty_frame_says_so(browser, tmp_path):
    empty = [FrameResult(Frame(image(0), 0, 0.0), Detections.empty())]
    browser.open(save(tmp_path, empty, names=("html",)))
    style = "getComputedStyle(document.getElementById('now'), '::before').content"
    assert browser.value(style) == '"none"'


def test_counts_of_regions_and_lines_follow_the_frame(browser, tmp_path):
    shown = results()
    for i in range(COUNT):
        car = {CLASSES[1]: 1} if i >= 10 else {}
        region = RegionCount({"bird": 1} | (car if i < 30 else {}), {}, car, car if i > 29 else {})
        counts = Counts({"<b>yard": region}, {"gate": LineCount({}, {"bird": i // 20})})
        shown[i] = replace(shown[i], counts=counts)
    browser.open(save(tmp_path, shown, names=("html",)))
    texts = (
        "[...document.querySelectorAll('#areas td:last-child')].map((d) => d.textContent).join()"
    )
    assert browser.value("document.querySelector('#areas caption').textContent")
    browser.wait(f"{texts} === '1 bird,0,0,0 bird,0'")
    heads = "[...document.querySelectorAll('#areas th')].map((h) => h.textContent)"
    assert browser.value(heads) == ["<b>yard", "", "", "gate", ""]
    names = "[...document.querySelectorAll('#areas td:nth-child(2)')].map((d) => d.textContent)"
    assert browser.value(names) == ["inside", "entered", "left", "to the right", "to the left"]
    browser.press("]")  # frame 20
    car = f"1 {CLASSES[1]}"
    browser.wait(f"{texts} === {json.dumps(f'1 bird, {car},{car},0,1 bird,0')}")
    browser.press("End")
    browser.wait(f"{texts} === {json.dumps(f'1 bird,{car},{car},1 bird,0')}")
    browser.press("Home")
    browser.wait(f"{texts} === '1 bird,0,0,0 bird,0'")


def test_page_without_regions_has_no_table_of_them(page):
    assert page.value("document.getElementById('areas').hidden")


def test_paper_has_the_time_line_at_its_width_without_controls(browser, saved):
    if not isinstance(browser, Browser):
        pytest.skip("needs the print style of DevTools")
    browser.open(saved, "#t=2.0")
    browser.devtools("Emulation.setEmulatedMedia", media="print")
    browser.devtools(
        "Emulation.setDeviceMetricsOverride", width=700, height=900, deviceScaleFactor=1,
        mobile=False, dontSetVisibleSize=True,
    )  # fmt: skip
    try:
        right = "(s) => document.querySelector(s).getBoundingClientRect().right"
        edge = browser.value(f"({right})('#chart')")
        for name in ("#counts", "#axis canvas", "#bars"):
            assert browser.value(f"({right})('{name}')") == pytest.approx(edge, abs=20), name
        left, head, end = browser.value(
            "[document.getElementById('bars').getBoundingClientRect().left,"
            "document.getElementById('playhead').getBoundingClientRect().left,"
            "document.getElementById('bars').getBoundingClientRect().right]"
        )
        assert (head - left) / (end - left) == pytest.approx(across(1.96), abs=0.01)
        for name in ("#play", "#filter", "#zoom-in", "#pan", "#speed"):
            assert browser.value(f"!document.querySelector('{name}').checkVisibility()"), name
    finally:
        browser.devtools("Emulation.setEmulatedMedia", media="")
        browser.devtools("Emulation.clearDeviceMetricsOverride")


def test_paper_is_told_what_the_scroll_bar_of_many_rows_takes_of_the_time_line(browser, tmp_path):
    """The canvas of the counts goes on above the scroll bar, which paper has not."""
    many = detections([[1, 1, 9, 9]] * 60, [0.5] * 60, [0] * 60, list(range(1, 61)))
    shown = [FrameResult(Frame(image(i), i, i / 25), many) for i in range(20)]
    browser.open(save(tmp_path, shown, names=("html",)))
    counts, bars, over = browser.value(
        "[...['counts', 'bars'].map((id) => document.getElementById(id).offsetWidth),"
        " Number(document.getElementById('chart').style.getPropertyValue('--over'))]"
    )
    if isinstance(browser, Browser):
        assert counts > bars
    assert over == pytest.approx(counts / bars)


@pytest.mark.parametrize("kind", BROWSERS, ids=["chromium", "firefox"])
def test_page_is_printed_in_light_colours_from_a_dark_screen(saved, tmp_path, kind):
    styles = [f"getComputedStyle(document.querySelector('{name}')).{key}" for name, key in (
        ("body", "backgroundColor"), ("body", "color"), (".row .swatch", "backgroundColor"),
        (".chip .swatch", "backgroundColor"),
    )]  # fmt: skip
    drawn = [f"document.querySelector('{name}').toDataURL()" for name in ("#bars", "#counts")]
    colours = f"[{', '.join(styles + drawn)}]"
    found = []
    for is_dark in (False, True):
        with kind(tmp_path / str(is_dark), is_dark=is_dark) as window:
            window.open(saved)
            window.wait("document.querySelector('.row .swatch')")
            found.append(window.value(colours))
            record = f"addEventListener('beforeprint', () => {{ window.printed = {colours}; }})"
            window.value(f"void {record}")
            window.print()
            assert window.value("window.printed") == found[0]
            window.wait("!document.documentElement.classList.contains('paper')")
            assert window.value(colours) == found[-1]
            assert window.errors() == []
    assert all(light != dark for light, dark in zip(*found, strict=True))


@pytest.mark.parametrize("start", [0, 2, 37])
def test_frames_count_from_the_first_one_where_the_file_begins_late(browser, tmp_path, start):
    """Chromium plays such a file by its time stamps, Firefox from 0."""
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "v.mp4"), "w", options={"use_editlist": "0"}) as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE_HW[::-1], "yuv420p"
        for i in range(20):
            frame = av.VideoFrame.from_ndarray(image(i), "rgb24")
            frame.pts, frame.time_base = start + i, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    page = Page(("bird",), size_hw=SIZE_HW, step=0.04)
    for i in range(20):
        page.add_frame(index=i, time=i / 25, shown=i / 25)
    path = tmp_path / "page.html"
    media = Media("video", ("v.mp4",), SIZE_HW[::-1])
    path.write_text(page.to_html(title="late", media=media), "utf-8")
    browser.open(path, "#t=0.440")
    browser.wait(f"{VIDEO}.readyState >= 2 && {VIDEO}.currentTime > 0.4")
    assert abs(brightness(browser, tmp_path / "shot.png") - grey(11)) < 2.4
    for key, index in (("Home", 0), ("End", 19)):
        browser.press(key)
        assert abs(brightness(browser, tmp_path / "shot.png") - grey(index)) < 2.4
        assert browser.value(PLACE) == pytest.approx(index / 25)
    browser.press("Home")
    browser.wait(f"!{VIDEO}.seeking && {PLACE} === 0")
    origin = browser.value(f"{VIDEO}.currentTime") - 0.01  # in the middle of the frame, or nearer
    places = f"[{VIDEO}.currentTime, {PLACE}]"
    watch = f"if ({VIDEO}.ended) return; if (!{VIDEO}.paused) seen.push({places});"
    browser.value(
        f"void (window.seen = [], window.watch = () => {{ {watch} requestAnimationFrame(watch); }},"
        " watch())"
    )
    browser.press(" ")
    browser.wait(f"{VIDEO}.ended")
    browser.wait(f"{PLACE} === 0.76")
    seen = browser.value("window.seen")
    behind = [time - origin - place for time, place in seen]
    assert len(behind) > 1 and -0.02 < np.median(behind) < 0.09, (origin, seen)


def test_times_that_do_not_increase_still_make_a_time_line(browser, tmp_path):
    shown = [
        FrameResult(Frame(image(i), i, time), detections([[1, 1, 9, 9]], [0.5], [0], [1]))
        for i, time in enumerate([0.0, 0.5, 0.5, 0.2, float("nan")])
    ]
    browser.open(save(tmp_path, shown, names=("html",)))
    places = []
    for _ in shown:
        places.append(browser.value(PLACE))
        browser.press("ArrowRight")
    assert places == pytest.approx([0, 0.5, 0.54, 0.58, 0.62])
    assert browser.errors() == []
