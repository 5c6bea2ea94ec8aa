"""Render video of a photograph seen by a moving camera, with cut-out objects moving in it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import cv2
import numpy as np

from rnndet.structures import DEFAULT_FPS, Frame, Target, VideoInfo
from rnndet.video.sources.base import Source
from rnndet.video.synthetic.camera import smooth, wander
from rnndet.video.synthetic.cutouts import Cutout

IGNORE_BELOW = 0.25  # visible part of an object below which its target is marked `ignore`
SUBFRAMES = 8  # moments averaged over an exposure
MAX_ENLARGED = 1.5  # times its size in its photograph: a larger cut-out would be blurred


@dataclass(frozen=True, slots=True)
class _Path:
    """Where something is at the beginning of each frame: a centre and a size."""

    centre: np.ndarray  # (T + 1, 2) x y, pixels of the photograph
    scale: np.ndarray  # (T + 1,) pixels of the photograph per pixel of the frame or the cut-out

    def at(self, time: float) -> tuple[np.ndarray, float]:
        """The centre and the scale at a time in frames; motion within a frame is linear."""
        k = min(int(time), len(self.scale) - 2)
        part = time - k
        centre = (1 - part) * self.centre[k] + part * self.centre[k + 1]
        return centre, float((1 - part) * self.scale[k] + part * self.scale[k + 1])


@dataclass(frozen=True, slots=True)
class _Layer:
    """A cut-out in the frame at one moment."""

    number: int  # of the cut-out
    box: np.ndarray  # (4,) in pixels of the frame, may reach beyond it
    full_alpha: float  # sum of alpha, also of the part outside the frame
    area: tuple[slice, slice]  # the part of the frame that it covers
    pixels: np.ndarray  # (h, w, 4) float32 in `area`, as in Cutout


class MovingPhotograph(Source):
    """A clip of a labelled photograph seen by a moving camera; the same arguments give equal bytes.

    The camera pans, zooms and shakes. Objects of the photograph move with it. Cut-outs move on
    paths of their own in front of it, change their size, enter and leave; a later cut-out is
    nearer. Each frame is the mean of `SUBFRAMES` moments of its exposure, with sensor noise.
    Targets are those of the middle of the exposure: the full box, clipped to the frame.

    Args:
        image: the photograph, (H, W, 3) uint8 RGB, of any size.
        labels: the target of the photograph.
        seed: selects the motion and the noise.
        exposure: share of the time between two frames; 0 for no motion blur.
        noise: factor of the noise; 0 for none.

    >>> clip = MovingPhotograph(np.zeros((96, 128, 3), np.uint8), Target.empty(), [], seed=0,
    ...                         length=2, size_hw=(48, 64))
    >>> [(frame.index, frame.image.shape) for frame in clip]
    [(0, (48, 64, 3)), (1, (48, 64, 3))]
    """

    def __init__(
        self,
        image: np.ndarray,
        labels: Target,
        cutouts: Sequence[Cutout],
        *,
        seed: int,
        length: int = 60,
        size_hw: tuple[int, int] = (384, 640),
        fps: Fraction = DEFAULT_FPS,
        exposure: float = 0.5,
        noise: float = 1.0,
    ) -> None:
        assert length >= 1 and 0 <= exposure <= 1, (length, exposure)
        height, width = size_hw
        name = f"photograph-{seed}"
        self.info = VideoInfo(name, name, width, height, fps, length)
        self._labels, self._seed, self._exposure = labels, seed, exposure
        self._seconds = float(1 / fps)  # between two frames
        # At most two pixels of the photograph per pixel of the frame, against aliasing.
        shrink = min(1.0, max(2 * height / image.shape[0], 2 * width / image.shape[1]))
        self._image = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        exact = np.array(self._image.shape[1::-1]) / image.shape[1::-1]
        self._boxes = labels.boxes.numpy() * np.tile(exact, 2)
        rng = np.random.default_rng([seed, 2025])
        self._camera = self._camera_path(rng)
        self._cutouts: list[Cutout] = []
        self._paths: list[_Path] = []
        for cutout in cutouts:
            path = self._cutout_path(rng, cutout)
            factor = min(1.0, float((path.scale / self._camera.scale).max()))
            self._cutouts.append(_shrunk(cutout, factor))
            self._paths.append(_Path(path.centre, path.scale / factor))
        self._noise = noise * rng.uniform(0.5, 3)  # standard deviation in grey values

    def __len__(self) -> int:
        assert self.info.length is not None
        return self.info.length

    def __iter__(self) -> Iterator[Frame]:
        for index in range(len(self)):
            yield self.frame(index)

    def frame(self, index: int) -> Frame:
        """Render frame `index`, 0-based."""
        count = SUBFRAMES if self._exposure > 0 else 1
        image = np.zeros((self.info.height, self.info.width, 3), np.float32)
        for k in range(count):
            image += self._moment(index + self._exposure * (k + 0.5) / count)
        image /= count
        rng = np.random.default_rng([self._seed, index, 7])
        deviation = self._noise * np.sqrt(0.5 + image / 255)  # photon noise grows with light
        image += deviation * rng.standard_normal(image.shape, dtype=np.float32)
        image = np.round(np.clip(image, 0, 255)).astype(np.uint8)
        return Frame(image, index, index * self._seconds)

    def target(self, index: int) -> Target:
        """Ground truth of frame `index`: the objects of the photograph have the ids 1 to D.

        `ignore` is True where the photograph says so, and where less than `IGNORE_BELOW` of an
        object is visible; of an object of the photograph, which has no outline, of its box.
        """
        import torch  # only for targets

        time = index + self._exposure / 2
        own = (self._boxes - np.tile(self._corner(time), 2)) / self._camera.at(time)[1]
        clear = np.ones((self.info.height, self.info.width), np.float32)  # not covered so far
        rows = []  # id, box, label, ignore
        for layer in reversed(self._layers(time)):
            visible = layer.pixels[..., 3] * clear[layer.area]
            clear[layer.area] -= visible
            hidden = visible.sum() < IGNORE_BELOW * layer.full_alpha
            label = self._cutouts[layer.number].label
            rows.append((len(own) + 1 + layer.number, layer.box, label, bool(hidden)))
        labelled = zip(own, self._labels.labels.tolist(), self._labels.ignore.tolist(), strict=True)
        for number, (box, label, ignore) in enumerate(labelled, start=1):
            visible = clear[_pixels(box, clear.shape)].sum()
            hidden = visible < IGNORE_BELOW * np.prod(box[2:] - box[:2])
            rows.append((number, box, label, bool(hidden) or ignore))
        limits = np.array([self.info.width, self.info.height] * 2)
        rows = [(number, np.clip(box, 0, limits), *rest) for number, box, *rest in rows]
        rows = [row for row in rows if (row[1][2:] - row[1][:2] >= 1).all()]
        rows.sort(key=lambda row: row[0])
        return Target(
            torch.tensor(np.array([row[1] for row in rows]).reshape(-1, 4), dtype=torch.float32),
            torch.tensor([row[2] for row in rows], dtype=torch.int64),
            torch.tensor([row[0] for row in rows], dtype=torch.int64),
            torch.tensor([row[3] for row in rows], dtype=torch.bool),
        )

    def _camera_path(self, rng: np.random.Generator) -> _Path:
        """A path on which the view stays inside the photograph."""
        size, photo = self._size_wh(), np.array(self._image.shape[1::-1], float)
        zoom = np.tanh(self._drift(rng, 1, memory=2.0))[:, 0]
        scale = (photo / size).min() * (0.72 + 0.2 * zoom)
        free = (photo - scale[:, None] * size) / 2
        pan = np.tanh(self._drift(rng, 2, memory=rng.uniform(1, 5)) * rng.uniform(0.1, 1.5))
        spread, dt = rng.uniform(0.1, 1.2), self._seconds
        shake = wander(rng, len(scale), dt, memory=0.15, spread=spread, columns=2)
        centre = photo / 2 + np.clip(free * pan + shake * scale[:, None], -free, free)
        return _Path(centre, scale)

    def _cutout_path(self, rng: np.random.Generator, cutout: Cutout) -> _Path:
        """A path in and around the view of the camera."""
        zoom = float(self._camera.scale.mean())
        view = self._size_wh() * zoom
        side = (cutout.box[2:] - cutout.box[:2]).max()
        share = np.exp(rng.uniform(np.log(0.12), np.log(0.65)))  # of the height of the view
        scale = min(share * view[1] / side, MAX_ENLARGED * zoom)
        start = rng.uniform(-0.5, 0.5, 2) * (1, 0.7)
        way = self._drift(rng, 2, memory=rng.uniform(0.8, 4)) * (0.5, 0.15)
        centre = self._camera.centre.mean(0) + view * (start + way)
        return _Path(centre, scale * np.exp(0.2 * self._drift(rng, 1, memory=2.0)[:, 0]))

    def _drift(self, rng: np.random.Generator, columns: int, *, memory: float) -> np.ndarray:
        """(T + 1, columns) smooth random values of standard deviation below 1."""
        dt = self._seconds
        rough = wander(rng, len(self) + 1, dt, memory=memory, spread=1, columns=columns)
        return smooth(rough, 0.35 / dt).reshape(-1, columns)

    def _size_wh(self) -> np.ndarray:
        return np.array([self.info.width, self.info.height], float)

    def _corner(self, time: float) -> np.ndarray:
        """The upper left corner of the view, (2,) x y in pixels of the photograph."""
        centre, scale = self._camera.at(time)
        return centre - scale * self._size_wh() / 2

    def _moment(self, time: float) -> np.ndarray:
        """The scene at one moment, (H, W, 3) float32."""
        size_hw = (self.info.height, self.info.width)
        scale = 1 / self._camera.at(time)[1]
        offset = -self._corner(time) * scale
        canvas = _warped(self._image, scale, offset, size_hw).astype(np.float32)
        for layer in self._layers(time):
            part = canvas[layer.area]  # a view
            part *= 1 - layer.pixels[..., 3:]
            part += layer.pixels[..., :3]
        return canvas

    def _layers(self, time: float) -> list[_Layer]:
        """The cut-outs in the frame, distant ones first."""
        corner, zoom = self._corner(time), self._camera.at(time)[1]
        layers = []
        for number, (cutout, path) in enumerate(zip(self._cutouts, self._paths, strict=True)):
            centre, scale = path.at(time)
            scale /= zoom
            offset = (centre - corner) / zoom - scale * (cutout.box[:2] + cutout.box[2:]) / 2
            height, width = cutout.pixels.shape[:2]
            reach = np.concatenate([offset, offset + scale * np.array([width, height])])
            area = _pixels(reach, (self.info.height, self.info.width))
            size_hw = (area[0].stop - area[0].start, area[1].stop - area[1].start)
            if min(size_hw) > 0:
                shift = offset - (area[1].start, area[0].start)
                pixels = _warped(cutout.pixels, scale, shift, size_hw)
                box = scale * cutout.box + np.tile(offset, 2)
                full = float(cutout.pixels[..., 3].sum()) * scale**2
                layers.append(_Layer(number, box, full, area, pixels))
        return layers


def _warped(
    texture: np.ndarray, scale: float, offset: np.ndarray, size_hw: tuple[int, int]
) -> np.ndarray:
    """The texture enlarged by `scale` with its corner at `offset` (2,) x y, cut to `size_hw`."""
    x, y = (0.5 - offset) / scale - 0.5  # centres of pixels lie at 0.5, for OpenCV at 0
    matrix = np.array([[1 / scale, 0, x], [0, 1 / scale, y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_CONSTANT if texture.shape[2] == 4 else cv2.BORDER_REPLICATE
    return cv2.warpAffine(texture, matrix, size_hw[::-1], flags=flags, borderMode=border)


def _pixels(box: np.ndarray, size_hw: tuple[int, ...]) -> tuple[slice, slice]:
    """The rows and columns of the pixels that a box touches in an image."""
    limits = np.array([size_hw[1], size_hw[0]] * 2)
    low, high = np.split(np.clip([*np.floor(box[:2]), *np.ceil(box[2:])], 0, limits).astype(int), 2)
    return slice(low[1], high[1]), slice(low[0], high[0])


def _shrunk(cutout: Cutout, factor: float) -> Cutout:
    """The cut-out made smaller, against aliasing."""
    pixels = cv2.resize(cutout.pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    exact = np.array(pixels.shape[1::-1]) / cutout.pixels.shape[1::-1]
    return replace(cutout, pixels=pixels, box=cutout.box * np.tile(exact, 2))
