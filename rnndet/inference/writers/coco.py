"""Export coco.json, a list of COCO results, and coco_images.json, which its ids refer to.

coco_images.json is CocoVID without annotations: images (ids count frames from 1), categories (ids
count classes from 1) and the video; pycocotools loads it as the ground truth and coco.json as the
results. Entries have an `instance_id` beside COCO's keys if they belong to a track. Predicted boxes
are left out.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from rnndet.inference.writers.base import ExportedVideo, TextExport
from rnndet.structures import FrameResult
from rnndet.video.sink import describe


class CocoExport(TextExport):
    names = ("coco.json", "coco_images.json")

    def begin(self, video: ExportedVideo) -> None:
        super().begin(video)
        self._number = {name: number for number, name in enumerate(video.classes, start=1)}
        height, width = video.size_hw
        self._size = {"width": width, "height": height}
        fps = {} if video.info.fps is None else {"fps": float(video.info.fps)}
        file_name = Path(video.info.source).name or video.info.name
        about = {"id": 1, "name": video.info.name, "file_name": file_name, **self._size, **fps}
        categories = [{"id": i, "name": name} for name, i in self._number.items()]
        self._between = ["", ""]  # separator before the next entry of each file
        self.files[0].write("[")
        self.files[1].write(
            f'{{"videos": [{_text(about)}], "categories": {_text(categories)}, '
            '"annotations": [], "images": ['
        )

    def write(self, result: FrameResult, image: np.ndarray | None) -> None:
        index = result.frame.index
        record = {"id": index + 1, "video_id": 1, "frame_id": index, **self._size}
        record |= {"file_name": f"{self.video.info.name}/{index:06d}.jpg"}
        self._append(1, record | {"time": round(result.frame.time, 6)})
        for entry in describe(result.detections, self.video.classes):
            x1, y1, x2, y2 = entry["box"]
            found = {"image_id": index + 1, "category_id": self._number[entry["label"]]}
            found["bbox"] = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
            found["score"] = entry["score"]
            self._append(0, found | ({"instance_id": entry["id"]} if "id" in entry else {}))

    def close(self) -> None:
        self.files[0].write("\n]\n")
        self.files[1].write("\n]}\n")
        super().close()

    def _append(self, file: int, entry: dict[str, Any]) -> None:
        self.files[file].write(f"{self._between[file]}\n{_text(entry)}")
        self._between[file] = ","


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
