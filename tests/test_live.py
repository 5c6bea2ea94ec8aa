"""Live sources keep the newest frame, reconnect, and never show passwords."""

import contextlib
import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from rnndet.errors import InputError
from rnndet.video.sink import VideoSink
from rnndet.video.sources.base import without_password
from rnndet.video.sources.live import Camera, LiveOptions, LiveSource, url_name
from rnndet.video.sources.open import open_source

NETWORK = LiveOptions(allow_network=True, timeout=5.0, max_reconnects=2)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("rnndet.video.sources.live.FIRST_WAIT", 0.01)


class FakeCapture:
    """A capture with images of these grey values; a negative value is a failed read."""

    def __init__(self, values, *, size_hw=(8, 10), gate=None, opens=True) -> None:
        self.values, self.size_hw, self.gate, self.opens = list(values), size_hw, gate, opens
        self.released = False

    def isOpened(self) -> bool:
        return self.opens

    def read(self):
        if self.gate is not None:
            self.gate.acquire()
        value = self.values.pop(0) if self.values else -1
        return (value >= 0, np.full((*self.size_hw, 3), max(value, 0), np.uint8))

    def get(self, prop: int) -> float:
        return 10.0 if prop == cv2.CAP_PROP_FPS else 0.0

    def release(self) -> None:
        self.released = True


def live(*captures, **options) -> LiveSource:
    """A source with these connections in turn, and then a connection that does not open."""
    left = list(captures)

    def connect():
        return left.pop(0) if left else FakeCapture([], opens=False)

    return LiveSource(
        connect, name="fake", shown_name="fake",
        options=LiveOptions(**{"max_reconnects": 2} | options),
    )  # fmt: skip


def wait_until(is_done) -> None:
    end = time.monotonic() + 20
    while not is_done():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_newest_frame_wins_and_dropped_frames_are_counted():
    gate = threading.Semaphore(1)
    capture = FakeCapture(range(1, 8), gate=gate)
    with live(capture) as source:
        frames = iter(source)
        first = next(frames)
        gate.release(4)  # four frames arrive and are not read
        wait_until(lambda: len(capture.values) == 2 and gate._value == 0)
        wait_until(lambda: source._newest is not None and source._newest.index == 4)
        second = next(frames)
        gate.release(1)
        third = next(frames)
        assert [int(f.image[0, 0, 0]) for f in (first, second, third)] == [1, 5, 6]
        assert [f.index for f in (first, second, third)] == [0, 4, 5]
        assert [f.gap for f in (first, second, third)] == [0, 3, 0]
        assert not any(f.restart for f in (first, second, third))
        assert (source.counts.decoded, source.counts.dropped) == (3, 3)
        assert third.time >= second.time > first.time == 0
        assert source.info.fps == 10
        gate.release(100)


def test_lost_connection_is_renewed_with_a_gap_and_a_restart():
    gates = [threading.Semaphore(1), threading.Semaphore(0)]
    captures = [FakeCapture([k], gate=g) for k, g in zip((1, 2), gates, strict=True)]
    with live(*captures) as source:
        frames = iter(source)
        first = next(frames)
        gates[0].release(100)  # no further images
        gates[1].release(1)
        second = next(frames)
        assert (first.restart, second.restart) == (False, True)
        assert second.gap >= 1
        assert second.index == first.index + 1 + second.gap
        gates[1].release(100)
        assert list(frames) == []  # no more reconnects
        assert source.counts.reconnects == 3
        assert source.counts.truncated
    assert all(capture.released for capture in captures)


def test_gap_of_a_lost_connection_is_the_time_that_passed_in_frames():
    gates = [threading.Semaphore(1), threading.Semaphore(0)]
    captures = [FakeCapture([k], gate=g) for k, g in zip((1, 2), gates, strict=True)]
    with live(*captures) as source:
        frames = iter(source)
        next(frames)
        gates[0].release(100)  # no further images
        time.sleep(0.4)
        gates[1].release(1)
        frame = next(frames)
        assert frame.gap == round(10 * frame.time) - 1 >= 2  # 10 frames per second
        gates[1].release(100)


def test_failed_reads_are_not_a_lost_connection():
    gate = threading.Semaphore(1)
    with live(FakeCapture([1, -1, -1, 2], gate=gate)) as source:
        frames = iter(source)
        next(frames)
        gate.release(3)
        frame = next(frames)
        assert (frame.image[0, 0, 0], frame.restart, source.counts.reconnects) == (2, False, 0)
        gate.release(100)


def test_other_size_after_a_lost_connection_is_scaled():
    gates = [threading.Semaphore(1), threading.Semaphore(0)]
    captures = [
        FakeCapture([1], gate=gates[0]),
        FakeCapture([2], size_hw=(30, 40), gate=gates[1]),
    ]
    with live(*captures) as source:
        frames = iter(source)
        next(frames)
        gates[0].release(100)
        gates[1].release(1)
        frame = next(frames)
        assert (frame.image.shape, frame.restart) == ((8, 10, 3), True)
        assert "40x30" in source.notes[0]
        gates[1].release(100)


def test_source_without_an_image_is_refused_at_once():
    with pytest.raises(InputError, match="fake: sends no image"):
        live()
    with pytest.raises(InputError, match="fake: sends no image"):
        live(FakeCapture([]), max_reconnects=1000)


def test_stop_ends_the_wait_for_a_frame():
    stops = []
    gate = threading.Semaphore(1)
    source = live(FakeCapture([1], gate=gate), stop=lambda: len(stops) > 0)
    frames = iter(source)
    next(frames)
    stops.append(True)
    assert list(frames) == []
    assert not source.counts.truncated
    gate.release(100)
    source.close()


def test_missing_camera_is_named():
    with pytest.raises(InputError, match="camera 93"):
        Camera(93)


def test_number_that_no_camera_can_have_is_an_input_error():
    with pytest.raises(InputError, match="camera 99999999999"):
        Camera(99999999999)


def test_missing_camera_prints_nothing(capfd):
    with pytest.raises(InputError):
        Camera(93)
    assert capfd.readouterr().err == ""


# URLs, on the loopback interface


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "sky.mp4"
    with VideoSink(path, size_hw=(48, 64), fps=25) as sink:
        for k in range(10):
            sink.write(np.full((48, 64, 3), 20 * k + 20, np.uint8))
    return path


@contextmanager
def serve(answer, port: int = 0) -> Iterator[int]:
    """An HTTP server that calls `answer(handler)` for GET; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                answer(self)
            except OSError:  # the client has gone
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        allow_reuse_address = daemon_threads = True
        block_on_close = False

    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def stopping(event: threading.Event) -> Iterator[None]:
    try:
        yield
    finally:
        event.set()


def send_file(path: Path, *, until: float = 1.0):
    def answer(handler) -> None:
        data = path.read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: round(until * len(data))])

    return answer


def send_images(values, *, size_hw=(48, 64), then=lambda: None):
    """Images as a network camera sends them: multipart JPEG."""

    def answer(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=edge")
        handler.end_headers()
        for value in values:
            image = np.full((*size_hw, 3), value, np.uint8)
            data = cv2.imencode(".jpg", image)[1].tobytes()
            head = f"--edge\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            handler.wfile.write(head.encode() + data + b"\r\n")
            handler.wfile.flush()
            time.sleep(0.01)
        then()

    return answer


def test_file_behind_a_url_is_read_completely_and_in_order(clip):
    with (
        serve(send_file(clip)) as port,
        open_source(f"http://127.0.0.1:{port}/d/sky.mp4", live=NETWORK) as source,
    ):
        frames = list(source)
        assert source.info.name == "127.0.0.1_sky"
        assert source.counts.is_complete
    assert [(frame.index, frame.gap) for frame in frames] == [(k, 0) for k in range(10)]
    assert abs(frames[9].image.mean() - 200) < 5


def test_live_images_arrive_and_a_restarted_server_is_reconnected():
    with serve(send_images(range(60, 80))) as port:
        source = open_source(
            f"http://127.0.0.1:{port}/live",
            live=LiveOptions(allow_network=True, timeout=5.0, max_reconnects=300),
        )
        frames = iter(source)
        received = [next(frames)]
    with serve(send_images(range(160, 180), size_hw=(96, 96)), port):
        while not received[-1].restart or received[-1].image.mean() < 150:
            received.append(next(frames))
    source.close()
    assert {frame.image.shape for frame in received} == {(48, 64, 3)}
    assert received[-1].gap >= 1
    assert source.counts.reconnects >= 1
    assert source.notes


def test_stalled_server_ends_at_the_timeout():
    stop = threading.Event()
    options = LiveOptions(allow_network=True, timeout=0.3)
    start = time.monotonic()
    with (
        serve(lambda handler: stop.wait(60)) as port,
        stopping(stop),
        pytest.raises(InputError, match=r"127\.0\.0\.1"),
    ):
        open_source(f"http://127.0.0.1:{port}/x.mp4", live=options)
    assert time.monotonic() - start < 30


def test_stalled_stream_ends_after_its_reconnects():
    stop = threading.Event()
    answer = send_images(range(5), then=lambda: stop.wait(20))
    calls = []

    def once(handler) -> None:
        calls.append(handler)
        if len(calls) > 1:
            stop.wait(20)
        answer(handler)

    options = LiveOptions(allow_network=True, timeout=0.3, max_reconnects=1)
    with (
        serve(once) as port,
        stopping(stop),
        open_source(f"http://127.0.0.1:{port}/live", live=options) as source,
    ):
        assert list(source)
        assert source.counts.truncated


def test_file_that_stalls_gives_the_frames_before_the_stall(tmp_path):
    path, noise = tmp_path / "noise.mp4", np.random.default_rng(0)
    with VideoSink(path, size_hw=(240, 320), fps=25) as sink:
        for _ in range(30):
            sink.write(noise.integers(0, 256, (240, 320, 3), np.uint8))
    stop = threading.Event()

    def most(handler) -> None:
        send_file(path, until=0.7)(handler)
        stop.wait(20)

    options = LiveOptions(allow_network=True, timeout=0.5)
    with (
        serve(most) as port,
        stopping(stop),
        open_source(f"http://127.0.0.1:{port}/noise.mp4", live=options) as source,
    ):
        assert 10 < len(list(source)) < 28
        assert source.counts.truncated


@contextmanager
def serve_rtsp(path: Path) -> Iterator[int]:
    """An RTSP camera for one client at a time: MPEG-TS in RTP in the same connection."""
    server = socket.create_server(("127.0.0.1", 0))

    def talk(client: socket.socket) -> None:
        with client, client.makefile("rb") as lines:
            while request := lines.readline().decode():
                headers = {}
                while line := lines.readline().decode().strip():
                    key, _, value = line.partition(":")
                    headers[key.lower()] = value.strip()
                answer = f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}\r\nSession: 7\r\n"
                body = ""
                if request.startswith("DESCRIBE"):
                    body = "v=0\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track1\r\n"
                    answer += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
                elif request.startswith("SETUP"):
                    answer += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
                client.sendall(f"{answer}\r\n{body}".encode())
                if request.startswith("PLAY"):
                    send(client)
                    return

    def send(client: socket.socket) -> None:
        data = path.read_bytes()
        for number, at in enumerate(range(0, len(data), 7 * 188)):
            head = struct.pack(">BBHII", 0x80, 33, number, number * 900, 1)
            packet = head + data[at : at + 7 * 188]
            client.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
            time.sleep(0.001)

    def accept() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:  # closed
                return
            with contextlib.suppress(OSError):
                talk(client)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()


def test_rtsp_camera_is_read(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "cam.ts"
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for k in range(100):
            image = np.full((48, 64, 3), 100 + k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    options = LiveOptions(allow_network=True, timeout=5.0, max_reconnects=1)
    with (
        serve_rtsp(path) as port,
        open_source(f"rtsp://me:secret@127.0.0.1:{port}/cam", live=options) as source,
    ):
        frame = next(iter(source))
        assert frame.image.shape == (48, 64, 3)
        assert 90 < frame.image.mean() < 210
        assert (source.info.name, source.info.length) == ("127.0.0.1_cam", None)


def test_url_cannot_refer_to_a_file_or_a_playlist(clip):
    def elsewhere(handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", f"file://{clip}")
        handler.end_headers()

    def play_list(handler) -> None:
        text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{clip}\n#EXT-X-ENDLIST\n"
        handler.send_response(200)
        handler.send_header("Content-Type", "application/vnd.apple.mpegurl")
        handler.end_headers()
        handler.wfile.write(text.encode())

    for answer in (elsewhere, play_list):
        with serve(answer) as port, pytest.raises(InputError):
            open_source(f"http://127.0.0.1:{port}/list.m3u8", live=NETWORK)


def test_without_permission_no_connection_is_made(clip):
    requests = []
    with serve(requests.append) as port:
        with pytest.raises(InputError, match=r"`LiveOptions\.allow_network`") as error:
            open_source(f"http://me:secret@127.0.0.1:{port}/a.mp4?key=secret")
        assert error.value.exit_code == 3
    assert requests == []
    assert "secret" not in str(error.value)


def test_other_protocols_are_refused_even_with_permission():
    for url in ("ftp://h/a.mp4", "rtmp://h/a", "concat:/a.mp4|/b.mp4", "file:///etc/hosts"):
        with pytest.raises(InputError, match="expected one of rtsp://"):
            open_source(url, live=NETWORK)


def test_passwords_are_in_no_message_name_or_log(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers
        url = f"rtsp://me:sec@ret@127.0.0.1:{held.getsockname()[1]}/live?pwd=hidden"
        with pytest.raises(InputError) as error:
            open_source(url, live=NETWORK)
    assert "127.0.0.1" in str(error.value)
    printed = "".join(capfd.readouterr())
    for text in (str(error.value), caplog.text, url_name(url), printed):
        assert not any(part in text for part in ("sec", "ret@", "hidden"))


def test_lost_connection_is_logged_without_its_password(caplog):
    caplog.set_level(logging.INFO)
    with serve(send_images(range(5))) as port:
        options = LiveOptions(allow_network=True, timeout=5.0, max_reconnects=1)
        url = f"http://me:secret@127.0.0.1:{port}/live?pwd=hidden"
        with open_source(url, live=options) as source:
            next(iter(source))
            wait_until(lambda: "reconnecting" in caplog.text)
            assert source.info.source == f"http://***@127.0.0.1:{port}/live?***"
    assert not any(part in caplog.text for part in ("secret", "hidden"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://a:b@cam:554/1", "rtsp://***@cam:554/1"),
        ("rtsp://a:b@c@cam/1", "rtsp://***@cam/1"),
        ("rtsp://a:b/c@cam/1", "rtsp://***@cam/1"),
        ("rtsp://a:b?c@cam/1", "rtsp://***@cam/1"),
        ("http://cam/1?user=a&pwd=b", "http://cam/1?***"),
        ("http://cam/1", "http://cam/1"),
        ("a@b?.mp4", "a@b?.mp4"),
    ],
)
def test_url_is_shown_without_its_password(url, shown):
    assert without_password(url) == shown


def test_name_of_a_url_has_host_and_path():
    assert url_name("rtsp://a:b@cam.local:554/live/ch1.sdp?x=1") == "cam.local_ch1"
    assert url_name("http://[::1") == "video"
