"""Tracks in regions and across lines: each crossing counts once, jitter does not count."""

import json
from dataclasses import replace

import numpy as np
import pytest

from conftest import detections
from rnndet.errors import InputError, RnndetError
from rnndet.inference.counting import FORGET, Regions, TrackCounter, read_regions
from rnndet.structures import Frame, FrameResult, LineCount

CLASSES = ("car", "person")
IMAGE = np.zeros((100, 200, 3), np.uint8)
LINE = Regions(lines={"gate": ((100, 100), (100, 0))})  # upwards: its right is the right
YARD = Regions({"yard": ((50, 20), (150, 20), (150, 80), (50, 80))})
SIDE = 20  # of the boxes; the hysteresis is 4 pixels


def result(*places, index=0, labels=None, ids=None, cut=False, restart=False) -> FrameResult:
    """A frame with a box of SIDE around each place; ids count from 1."""
    boxes = [[x - SIDE / 2, y - SIDE / 2, x + SIDE / 2, y + SIDE / 2] for x, y in places]
    ids = range(1, len(places) + 1) if ids is None else ids
    found = detections(boxes, [0.9] * len(boxes), labels or [0] * len(boxes), list(ids))
    return FrameResult(Frame(IMAGE, index, index / 25, restart=restart), found, cut)


def walk(regions, *xs, y=50, **options):
    """The counts after a single track went through these x."""
    counter = TrackCounter(regions, CLASSES)
    return [counter.step(result((x, y), index=k, **options)) for k, x in enumerate(xs)][-1]


def test_a_track_that_crosses_a_line_counts_once_in_its_direction():
    assert walk(LINE, 70, 85, 115, 130, 145).lines["gate"] == LineCount({}, {"car": 1})
    assert walk(LINE, 130, 115, 85, 70).lines["gate"] == LineCount({"car": 1}, {})


def test_the_right_of_a_line_is_that_of_somebody_who_looks_from_its_start_to_its_end():
    down = Regions(lines={"gate": ((100, 0), (100, 100))})
    assert walk(down, 70, 130).lines["gate"] == LineCount({"car": 1}, {})
    across = Regions(lines={"gate": ((0, 50), (200, 50))})  # looks to the right: right is down
    counter = TrackCounter(across, CLASSES)
    for y in (20, 80):
        counts = counter.step(result((100, y)))
    assert counts.lines["gate"] == LineCount({}, {"car": 1})


def test_a_track_that_jitters_on_a_line_does_not_count_twice():
    assert walk(LINE, 80, *[98, 103, 97, 102] * 5, 120).lines["gate"] == LineCount({}, {"car": 1})
    assert walk(LINE, 80, *[98, 103, 97, 102] * 5, 80).lines["gate"] == LineCount({}, {})


def test_a_track_that_comes_back_counts_in_both_directions():
    assert walk(LINE, 80, 120, 80).lines["gate"] == LineCount({"car": 1}, {"car": 1})


def test_a_slow_crossing_through_the_hysteresis_counts_once():
    assert walk(LINE, *range(90, 111)).lines["gate"] == LineCount({}, {"car": 1})


def test_a_track_that_begins_on_the_line_does_not_cross_it():
    assert walk(LINE, 99, 102, 130).lines["gate"] == LineCount({}, {})


def test_a_track_that_passes_beside_the_end_of_a_line_does_not_cross_it():
    short = Regions(lines={"gate": ((100, 40), (100, 0))})
    assert walk(short, 70, 130, y=60).lines["gate"] == LineCount({}, {})
    assert walk(short, 70, 130, y=30).lines["gate"] == LineCount({}, {"car": 1})


def test_a_line_ends_at_its_end_as_at_its_start():
    low = Regions(lines={"gate": ((100, 100), (100, 60))})
    assert walk(low, 70, 130, y=40).lines["gate"] == LineCount({}, {})
    assert walk(low, 70, 130, y=70).lines["gate"] == LineCount({}, {"car": 1})


@pytest.mark.parametrize(
    ("start", "end", "crosses"), [((60, 70), (140, 20), True), ((60, 90), (140, 40), False)]
)
def test_a_track_crosses_where_its_straight_way_meets_the_line(start, end, crosses):
    counter = TrackCounter(Regions(lines={"gate": ((100, 50), (100, 0))}), CLASSES)
    for place in (start, end):  # at x = 100 it is at y = 45, or 65
        counts = counter.step(result(place))
    assert counts.lines["gate"].to_right == ({"car": 1} if crosses else {})


def test_the_hysteresis_of_the_smallest_boxes_is_two_pixels():
    counter = TrackCounter(LINE, CLASSES)
    for x in (90, 101.5, 98.5, 101.5, 98.5, 102.5):
        found = detections([[x - 1, 40, x + 1, 42]], [0.9], [0], [1])
        counts = counter.step(FrameResult(Frame(IMAGE, 0, 0.0), found))
        if x < 102:
            assert counts.lines["gate"] == LineCount({}, {})
    assert counts.lines["gate"] == LineCount({}, {"car": 1})


def test_each_track_counts_for_its_own_class():
    counter = TrackCounter(LINE, CLASSES)
    counter.step(result((70, 20), (130, 50), (70, 80), labels=[0, 1, 1]))
    counts = counter.step(result((130, 20), (70, 50), (130, 80), labels=[0, 1, 1]))
    assert counts.lines["gate"] == LineCount({"person": 1}, {"car": 1, "person": 1})


def test_counts_are_those_of_the_boxes_and_classes_that_are_shown():
    counter = TrackCounter(Regions(YARD.regions, LINE.lines), CLASSES)
    for x in (70, 130):
        found, shown = result((70, 50)), result((x, 50), labels=[1])
        counts = counter.step(replace(found, smoothed=shown.detections))
    assert counts.lines["gate"] == LineCount({}, {"person": 1})
    assert counts.regions["yard"].inside == {"person": 1}


def test_detections_without_a_track_do_not_count():
    counter = TrackCounter(Regions(YARD.regions, LINE.lines), CLASSES)
    counter.step(result((70, 50), ids=[0]))
    counts = counter.step(result((130, 50), ids=[0]))
    assert counts.lines["gate"] == LineCount({}, {})
    assert counts.regions["yard"].inside == counts.regions["yard"].outside == {}


def test_a_region_has_the_tracks_in_and_out_of_it_by_class():
    counter = TrackCounter(YARD, CLASSES)
    counts = counter.step(result((100, 50), (60, 40), (20, 50), (190, 90), labels=[0, 1, 1, 1]))
    yard = counts.regions["yard"]
    assert yard.inside == {"car": 1, "person": 1}
    assert yard.outside == {"person": 2}
    assert yard.entered == yard.left == {}


def test_entering_and_leaving_a_region_count_once_and_jitter_at_its_edge_does_not():
    yard = walk(YARD, 20, *[48, 52] * 5, 60, 100, *[148, 152] * 5, 180).regions["yard"]
    assert (yard.entered, yard.left, yard.inside) == ({"car": 1}, {"car": 1}, {})


def test_inside_follows_the_hysteresis_so_that_it_agrees_with_entered_and_left():
    assert walk(YARD, 20, 52).regions["yard"].inside == {}
    assert walk(YARD, 20, 60, 48).regions["yard"].inside == {"car": 1}


@pytest.mark.parametrize(("x", "inside"), [(51, {"car": 1}), (49, {})])
def test_a_track_that_is_first_seen_near_an_edge_is_inside_if_its_point_is(x, inside):
    yard = walk(YARD, x).regions["yard"]
    assert (yard.inside, yard.entered, yard.left) == (inside, {}, {})


def test_regions_may_be_concave():
    bay = Regions({"bay": ((0, 0), (200, 0), (200, 100), (150, 100), (150, 50), (0, 50))})
    assert walk(bay, 100, y=25).regions["bay"].inside == {"car": 1}
    assert walk(bay, 100, y=80).regions["bay"].outside == {"car": 1}
    assert walk(bay, 180, y=80).regions["bay"].inside == {"car": 1}


def test_the_point_of_a_box_is_its_middle_or_the_middle_of_its_lower_edge():
    low = Regions({"ground": ((0, 55), (200, 55), (200, 100), (0, 100))})
    assert walk(low, 100, y=50).regions["ground"].inside == {}
    assert walk(Regions(low.regions, point="bottom"), 100).regions["ground"].inside == {"car": 1}


def test_the_hysteresis_grows_with_the_box():
    def crossing(side):
        counter = TrackCounter(LINE, CLASSES)
        for x in (50, 103):
            found = detections([[x - side, 40, x + side, 40 + 2 * side]], [0.9], [0], [1])
            counts = counter.step(FrameResult(Frame(IMAGE, 0, 0.0), found))
        return counts.lines["gate"].to_right

    assert crossing(5) == {"car": 1}
    assert crossing(20) == {}


@pytest.mark.parametrize("event", ["cut", "restart"])
def test_at_a_cut_and_a_restart_tracks_begin_anew_and_counts_go_on(event):
    counter = TrackCounter(LINE, CLASSES)
    for x in (70, 130):
        counter.step(result((x, 50)))
    counts = counter.step(result((70, 50), **{event: True}))
    assert counts.lines["gate"] == LineCount({}, {"car": 1})
    assert counter.step(result((130, 50))).lines["gate"] == LineCount({}, {"car": 2})


def test_a_missed_track_keeps_its_side():
    counter = TrackCounter(LINE, CLASSES)
    counter.step(result((70, 50)))
    for _ in range(20):
        counter.step(result())
    assert counter.step(result((130, 50))).lines["gate"] == LineCount({}, {"car": 1})


def test_the_state_does_not_grow_with_the_number_of_tracks():
    counter = TrackCounter(LINE, CLASSES)
    for track in range(1, 2 * FORGET):
        counter.step(result((70, 50), ids=[track]))
    assert len(counter.state_dict()["tracks"]) == FORGET


def test_reset_begins_another_video():
    counter = TrackCounter(Regions(YARD.regions, LINE.lines), CLASSES)
    for x in (70, 130):
        first = counter.step(result((x, 50)))
    counter.reset()
    for x in (70, 130):
        second = counter.step(result((x, 50)))
    assert first == second


def test_a_counter_continues_from_its_saved_state():
    regions = Regions(YARD.regions | {"array": YARD.regions["yard"]}, LINE.lines)
    xs = [20, 60, 80, 98, 102, 110, 160, 130, 80, 20]
    whole, first, second = (TrackCounter(regions, CLASSES) for _ in range(3))
    for x in xs[:5]:
        expected = whole.step(result((x, 50), (x + 5, 60), labels=[0, 1]))
        assert first.step(result((x, 50), (x + 5, 60), labels=[0, 1])) == expected
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for x in xs[5:]:
        expected = whole.step(result((x, 50), (x + 5, 60), labels=[0, 1]))
        assert second.step(result((x, 50), (x + 5, 60), labels=[0, 1])) == expected
    assert expected.lines["gate"] == LineCount({"car": 1, "person": 1}, {"car": 1, "person": 1})


def test_a_track_is_forgotten_after_so_many_frames_without_it(monkeypatch):
    monkeypatch.setattr("rnndet.inference.counting.FORGET", 5)
    for frames, crosses in ((4, {"car": 1}), (5, {})):
        counter, saved = (TrackCounter(LINE, CLASSES) for _ in range(2))
        for _ in range(7):  # those in which it is seen do not count
            counter.step(result((70, 50)))
        saved.load_state_dict(json.loads(json.dumps(counter.state_dict())))
        for one in (counter, saved):
            for _ in range(frames):
                one.step(result())
            assert one.step(result((130, 50))).lines["gate"].to_right == crosses


def test_a_track_that_is_always_seen_is_not_forgotten(monkeypatch):
    monkeypatch.setattr("rnndet.inference.counting.FORGET", 5)
    for frames in range(1, 15):
        assert walk(LINE, *[70] * frames, 130).lines["gate"].to_right == {"car": 1}


def test_the_way_of_a_track_begins_in_the_saved_state():
    regions = Regions(lines={"gate": ((100, 50), (100, 0))})
    first, second = (TrackCounter(regions, CLASSES) for _ in range(2))
    first.step(result((60, 90)))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.step(result((140, 40))).lines["gate"] == LineCount({}, {})  # passes at y = 65


def test_counts_of_a_frame_do_not_change_later():
    counter = TrackCounter(LINE, CLASSES)
    before = counter.step(result((70, 50)))
    counter.step(result((130, 50)))
    assert before.lines["gate"] == LineCount({}, {})


def stand(regions, *feet, x=100, side=SIDE, index=0):
    """The counts after a single track stood with its feet at these y."""
    counter = TrackCounter(regions, CLASSES)
    for y in feet:
        found = detections([[x - side / 2, y - side, x + side / 2, y]], [0.9], [0], [1])
        counts = counter.step(FrameResult(Frame(IMAGE, 0, 0.0), found))
    return counts


@pytest.mark.parametrize("border", [98, 99, 100, 130])  # the image ends at 100
def test_a_box_that_the_border_cuts_is_in_the_region_that_ends_there(border):
    ground = {"ground": ((0, 40), (200, 40), (200, border), (0, border))}
    regions = Regions(ground, point="bottom")
    assert stand(regions, 100).regions["ground"].inside == {"car": 1}
    walked = stand(regions, 100, 95, 60, 100).regions["ground"]
    assert (walked.inside, walked.entered, walked.left) == ({"car": 1}, {}, {})
    left = stand(regions, 100, 95, 60, 30).regions["ground"]
    assert (left.inside, left.entered, left.left) == ({}, {}, {"car": 1})


def test_a_large_box_enters_a_region_that_ends_at_the_border():
    regions = Regions({"ground": ((0, 70), (200, 70), (200, 100), (0, 100))}, point="bottom")
    assert stand(regions, 40, 100, side=80).regions["ground"].entered == {"car": 1}


@pytest.mark.parametrize(
    ("x", "inside"), [(49, {}), (51, {"car": 1}), (149, {"car": 1}), (151, {})]
)
def test_a_region_goes_straight_on_beyond_the_border(x, inside):
    regions = Regions({"gap": ((50, 40), (150, 40), (150, 98), (50, 98))}, point="bottom")
    assert stand(regions, 100, x=x).regions["gap"].inside == inside


def test_a_region_that_ends_before_the_border_has_an_edge_there():
    regions = Regions({"strip": ((0, 40), (200, 40), (200, 90), (0, 90))}, point="bottom")
    assert stand(regions, 100).regions["strip"].inside == {}


@pytest.mark.parametrize(
    ("place", "inside"),
    [((0, 0), True), ((200, 0), True), ((0, 100), True), ((200, 100), True), ((100, 50), True)],
)
def test_the_whole_image_as_a_region_has_all_of_its_corners(place, inside):
    whole = Regions({"whole": ((0, 0), (199, 0), (199, 99), (0, 99))})
    counts = TrackCounter(whole, CLASSES).step(result(place))
    assert bool(counts.regions["whole"].inside) == inside


@pytest.mark.parametrize(
    ("place", "inside"),
    [((0, 50), True), ((0, 10), False), ((60, 50), False), ((40, 99), False), ((10, 50), True)],
)
def test_a_region_at_one_border_keeps_its_other_edges(place, inside):
    left = Regions({"left": ((0, 20), (50, 20), (50, 80), (0, 80))})
    counts = TrackCounter(left, CLASSES).step(result(place))
    assert bool(counts.regions["left"].inside) == inside


def test_a_corner_on_the_border_is_no_edge_there():
    tip = Regions({"tip": ((100, 100), (50, 40), (150, 40))}, point="bottom")
    assert stand(tip, 100, x=80).regions["tip"].inside == {}


def test_a_line_to_the_last_pixel_reaches_the_border():
    regions = Regions(lines={"gate": ((100, 99), (100, 60))}, point="bottom")

    def crossing(y):
        counter = TrackCounter(regions, CLASSES)
        for x in (70, 130):
            found = detections([[x - 10, y - 20, x + 10, y]], [0.9], [0], [1])
            counts = counter.step(FrameResult(Frame(IMAGE, 0, 0.0), found))
        return counts.lines["gate"].to_right

    assert crossing(100) == {"car": 1}
    assert crossing(50) == {}  # its other end stays


def test_a_line_along_the_border_is_not_longer():
    line = Regions(lines={"low": ((50, 98), (90, 98))})
    counter = TrackCounter(line, CLASSES)
    for y in (90, 106):  # of a box that leaves the image
        counts = counter.step(result((120, y)))
    assert counts.lines["low"] == LineCount({}, {})


@pytest.mark.parametrize(
    "kind",
    [
        list,
        np.array,
        lambda points: [np.array(point, np.float32) for point in points],
        lambda points: [[np.float32(x), np.int64(y)] for x, y in points],
    ],
)
def test_points_may_be_lists_and_arrays(kind):
    yard = [[50, 20], [150, 20], [150, 80]]
    regions = Regions({"yard": kind(yard)}, {"gate": kind([[100, 100], [100, 0]])})
    assert json.loads(json.dumps(regions.to_dict()))["regions"]["yard"] == yard
    assert walk(regions, 70, 130).lines["gate"].to_right == {"car": 1}


@pytest.mark.parametrize("shapes", [[[0, 0], [9, 0], [9, 9]], {3: [[0, 0], [9, 0], [9, 9]]}, 3])
def test_regions_without_names_are_refused(shapes):
    with pytest.raises(RnndetError, match=r"^regions: expected names"):
        Regions(shapes)


@pytest.mark.parametrize(
    "corners",
    [
        ((0, 0), (100, 100), (100, 0), (0, 100)),
        ((0, 0), (100, 100), (100, 0), (0, 70)),
        ((100, 0), (0, 70), (0, 0), (100, 100)),
        ((0, 100), (0, 0), (100, 100), (100, 0)),
        ((50, 0), (80, 90), (0, 35), (100, 35), (20, 90)),
    ],
)
def test_a_region_whose_edges_cross_is_refused_with_both(corners):
    with pytest.raises(
        RnndetError, match=r"'yard': its edge from \(.*\) crosses that from .*order"
    ):
        Regions({"yard": corners})


def test_the_edges_that_cross_are_named_as_they_run():
    first, second = r"from \(0, 0\) to \(100, 100\)", r"from \(100, 0\) to \(0, 70\)"
    with pytest.raises(RnndetError, match=f"{first} crosses that {second}"):
        Regions({"yard": ((0, 0), (100, 100), (100, 0), (0, 70))})


@pytest.mark.parametrize("first", range(6))
def test_a_concave_region_may_begin_at_any_corner(first):
    bay = [(0, 0), (200, 0), (200, 100), (150, 100), (150, 50), (0, 50)]
    for corners in (bay, bay[::-1]):
        assert len(Regions({"bay": [*corners[first:], *corners[:first]]}).regions["bay"]) == 6


def test_edges_of_a_region_may_meet():
    """As where a hole is cut out, or the first corner is repeated as the last."""
    ring = [(0, 0), (90, 0), (90, 90), (0, 90), (0, 0), (30, 30), (30, 60), (60, 60), (60, 30)]
    hole = Regions({"ring": [*ring, (30, 30)]})
    assert walk(hole, 45, y=45).regions["ring"].inside == {}
    assert walk(hole, 15, y=45).regions["ring"].inside == {"car": 1}


def test_too_many_corners_are_refused():
    circle = [(100 + 90 * np.cos(t), 100 + 90 * np.sin(t)) for t in np.linspace(0, 6.2, 1001)]
    assert len(Regions({"round": circle[:1000]}).regions["round"]) == 1000
    with pytest.raises(RnndetError, match=r"'round': 1001 corners; expected 1000 at most"):
        Regions({"round": circle})


def test_detections_without_ids_are_refused():
    found = detections([[0, 0, 9, 9]], [0.9], [0])
    with pytest.raises(RnndetError, match="use a tracker"):
        TrackCounter(LINE, CLASSES).step(FrameResult(Frame(IMAGE, 0, 0.0), found))


@pytest.mark.parametrize(
    "corners",
    [[[300, 0], [400, 0], [400, 9]], [[0, -9], [9, -9], [9, -50]], [[0, 150], [9, 150], [9, 190]]],
)
def test_a_region_outside_the_image_is_refused_with_both(corners):
    regions = Regions.from_dict({"regions": {"far": corners}}, where="r.json")
    with pytest.raises(RnndetError, match=r"'far'.*200x100.*pixels of the source"):
        TrackCounter(regions, CLASSES).step(result())


def test_regions_are_read_from_a_file_and_written_as_they_were(tmp_path):
    tree = {
        "regions": {"yard": [[0, 0], [10.5, 0], [10, 10]]},
        "lines": {"gate": [[0, 0], [0, 20]]},
        "point": "bottom",
    }
    path = tmp_path / "regions.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    assert read_regions(path).to_dict() == tree


SQUARE = [[0, 0], [9, 0], [9, 9]]


@pytest.mark.parametrize(
    ("tree", "what"),
    [
        ([], "expected an object"),
        ({}, "at least one region or line"),
        ({"region": {}}, "'region' is unknown; did you mean 'regions'"),
        (
            {"lines": {"a": [[0, 0], [9, 9]]}, "name": "x"},
            "'name' is unknown; expected the keys reg",
        ),
        ({"regions": []}, "names with lists"),
        ({"regions": {"a": 3}}, "region 'a'"),
        ({"regions": {"a": [[0, 0], [9, 0]]}}, "three corners"),
        (
            {"regions": {"a": [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]]}},
            "one pixel; coordinates are pix",
        ),
        ({"regions": {"a": [[0, 0], [9, 0], [9, "9"]]}}, r"\(9, '9'\) is no point"),
        ({"regions": {"a": [[0, 0], [9, 0], [9, 9, 9]]}}, "is no point"),
        ({"regions": {"a": [[0, 0], [9, 0], [9, float("nan")]]}}, "is no point"),
        ({"regions": {"a": [[0, 0], [9, 0], [9, True]]}}, "is no point"),
        ({"lines": {"a": [[0, 0]]}}, "line 'a'"),
        ({"lines": {"a": [[0, 0], [0.5, 0.5]]}}, "a pixel apart"),
        ({"lines": {"a": SQUARE}}, "line 'a'"),
        ({"regions": {"a": SQUARE}, "lines": {"a": [[0, 0], [9, 9]]}}, "use two names"),
        ({"regions": {"a": SQUARE}, "point": "top"}, "middle, bottom"),
    ],
)
def test_an_impossible_file_is_refused_by_name(tmp_path, tree, what):
    path = tmp_path / "regions.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(RnndetError, match=rf"regions\.json: .*{what}"):
        read_regions(path)


@pytest.mark.parametrize("text", ["{", "\xff", '{"lines": {"a": [], "a": []}}', "[" * 100_000])
def test_a_file_that_is_no_json_is_an_input_error(tmp_path, text):
    path = tmp_path / "regions.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"regions\.json: not valid JSON"):
        read_regions(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_regions(tmp_path / "none.json")
