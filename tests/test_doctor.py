"""rnndet doctor."""

import json
import sys

from test_tools import run

from rnndet.cli import doctor
from rnndet.video import probe


def test_report_is_printed_as_json(capsys):
    code = run("doctor", "--json")
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert {"rnndet", "torch", "opencv", "device", "encoder mp4v", "weights aerial"} <= set(found)
    assert code == int(any(one["advice"] for one in found.values()))


def test_opencv_writes_mpeg4():
    assert probe.encoders()["mp4v"]


def test_two_opencv_packages_are_noticed(monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda name: "5.0" if "contrib" not in name else None)
    found = doctor.opencv()
    assert found.value == "opencv-python 5.0, opencv-python-headless 5.0"
    assert found.advice.startswith("pip uninstall opencv-python opencv-python-headless")


def test_torchvision_that_does_not_fit_torch_is_noticed(monkeypatch):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "torchvision":
                raise error

    error = RuntimeError("operator torchvision::nms does not exist")
    assert doctor.operators() == []
    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    (finding,) = doctor.operators()
    assert "torchvision::nms" in finding.value and "one index" in finding.advice
    assert finding in doctor.examine()
    error = ImportError()
    (finding,) = doctor.operators()
    assert finding.value == "no: ImportError"


def test_missing_h264_says_what_to_install():
    h264, mpeg4 = doctor.video_output({"h264": False, "mp4v": True})
    assert "rnndet[video]" in h264.advice
    assert mpeg4.advice is None


def test_damaged_weights_are_noticed(tmp_path, monkeypatch):
    entry = {"file": "a.pt", "sha256": "0" * 64}
    monkeypatch.setattr(doctor, "published_weights", lambda: {"a": entry})
    monkeypatch.setattr(doctor, "WEIGHTS_DIR", tmp_path)
    assert doctor.weights()[0].value == "missing"
    (tmp_path / "a.pt").write_bytes(b"x")
    assert doctor.weights()[0].value == "damaged"


def test_advice_stands_below_its_line():
    lines = doctor.lines_of([doctor.Finding("a", "1"), doctor.Finding("bc", "2", "do it")])
    assert lines == ["a   1", "bc  2", "    -> do it"]
