"""Render video of flying objects with exact ground truth, for demos, tests and training.

Every frame is a pure function of the seed and the frame number, so frames may be rendered in any
order. No file is read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np

from rnndet.structures import Frame, Target, VideoInfo
from rnndet.video.sources.base import Source
from rnndet.video.synthetic.camera import make_bursts, make_camera_path, motion_blur_kernel
from rnndet.video.synthetic.flight import Flyer, make_flyer
from rnndet.video.synthetic.objects import MODELS, Pose, Sprite, draw_sprite
from rnndet.video.synthetic.scene import Scene, make_scene

CLASSES = ("airplane", "bird", "drone", "helicopter")
VISIBLE_ALPHA = 0.12  # minimum opacity of the pixels inside a box
IGNORE_BELOW = 0.25  # visible part of an object below which its target is marked `ignore`


@dataclass(frozen=True, slots=True)
class _Placed:
    """An object in a frame: its sprite cropped to the frame, and the visibility of each pixel."""

    flyer: Flyer
    sprite: Sprite
    veil: np.ndarray  # (h, w) float32 in [0, 1]: transmission of the clouds in front of it
    visible: np.ndarray  # (h, w) float32 in [0, 1]: alpha after all occlusion
    full_alpha: float  # sum of alpha of the sprite before cropping and occlusion


class SyntheticClip(Source):
    """A rendered clip of 1 to 4 flying objects; the same seed and options give the same bytes.

    Iterating yields `length` frames of (H, W, 3) uint8 RGB. With `degrade` some runs of 4 to 12
    frames are blurred, out of focus or strongly compressed; targets are the same with and without.

    Args:
        seed: selects scene, objects and motion.
        length: number of frames, at least 1.
        size_hw: height and width of a frame in pixels, at least 64 each.
        fps: frames per second; motion is in seconds, so it looks the same at any rate.

    >>> clip = SyntheticClip(0, length=2, size_hw=(64, 96))
    >>> [(frame.index, frame.image.shape) for frame in clip]
    [(0, (64, 96, 3)), (1, (64, 96, 3))]
    >>> len(clip.target(0).boxes) == len(clip.target(0).labels)
    True
    """

    classes = CLASSES

    def __init__(
        self,
        seed: int,
        *,
        length: int = 150,
        size_hw: tuple[int, int] = (384, 480),
        fps: int = 30,
        degrade: bool = True,
    ) -> None:
        if length < 1 or min(size_hw) < 64 or fps < 1:
            raise ValueError(
                f"expected length >= 1, sides >= 64, fps >= 1, got {length}, {size_hw}, {fps}"
            )
        rng = np.random.default_rng([seed, 2024])
        height, width = size_hw
        self.info = VideoInfo(
            f"synthetic-{seed}", f"synthetic:{seed}", width, height, Fraction(fps), length
        )
        self._seed = seed
        wind = rng.uniform(-14, 14) / fps  # pixels per frame
        self._wind = float(wind)
        self._scene: Scene = make_scene(
            rng, size_hw=size_hw, drift_px=int(np.ceil(abs(wind) * length)) + 2
        )
        count = int(rng.choice([1, 2, 3, 4], p=[0.3, 0.35, 0.2, 0.15]))
        sky = self._scene.brightness
        clip = {"length": length, "size_hw": size_hw, "fps": fps}
        self._flyers = [
            make_flyer(rng, CLASSES[rng.integers(4)], sky=sky, **clip) for _ in range(count)
        ]
        self._camera = make_camera_path(
            rng, self._flyers[0].position, limit=self._scene.margin - 4, **clip
        )
        self._noise = float(rng.uniform(0.8, 4.5))
        self._soft = float(rng.uniform(0.45, 0.85))
        self._quality = int(rng.integers(55, 95))
        self._grey = bool(rng.random() < 0.12)  # some cameras have no colour
        bursts = make_bursts(rng, length)
        self._bursts = bursts if degrade else []

    def __len__(self) -> int:
        assert self.info.length is not None
        return self.info.length

    def __iter__(self) -> Iterator[Frame]:
        for index in range(len(self)):
            yield self.frame(index)

    def frame(self, index: int) -> Frame:
        """Render frame `index`, 0-based; raises IndexError outside the clip."""
        return self._frame(index, with_objects=True)

    def background(self, index: int) -> Frame:
        """Render the same frame, with the same noise, without objects."""
        return self._frame(index, with_objects=False)

    def target(self, index: int) -> Target:
        """Ground truth of frame `index`: boxes clipped to the frame, ids from 1.

        `ignore` is True where less than a quarter of the object is visible.
        """
        import torch  # only for targets: frames can be rendered without it

        self._check(index)
        boxes, labels, ids, ignore = [], [], [], []
        for number, placed in self._place(index):
            hidden = placed.visible.sum() < IGNORE_BELOW * placed.full_alpha
            box = _tight_box(placed, placed.sprite.alpha if hidden else placed.visible)
            if box is not None:
                boxes.append(box)
                labels.append(CLASSES.index(placed.flyer.kind))
                ids.append(number)
                ignore.append(bool(hidden))
        return Target(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor(labels, dtype=torch.int64),
            torch.tensor(ids, dtype=torch.int64),
            torch.tensor(ignore, dtype=torch.bool),
        )

    def degraded(self, index: int) -> bool:
        """Whether frame `index` lies in a degraded run."""
        return any(burst.amount(index) > 0 for burst in self._bursts)

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f"expected a frame in 0..{len(self) - 1}, got {index}")

    def _frame(self, index: int, *, with_objects: bool) -> Frame:
        self._check(index)
        rng = np.random.default_rng([self._seed, index, 7])
        canvas = self._crop(self._scene.sky, index)
        cloud = self._crop(self._scene.cloud, index, self._cloud_shift(index))
        cloud_alpha = cloud[..., 3:]
        canvas += cloud_alpha * (cloud[..., :3] - canvas)
        if with_objects:
            for _, placed in self._place(index, cloud_alpha[..., 0]):
                self._paint(canvas, placed, index)
        if self._scene.ground is not None:
            ground = self._crop(self._scene.ground, index)
            canvas += ground[..., 3:] * (ground[..., :3] - canvas)
        image = self._develop(canvas, index, rng)
        return Frame(image, index, float(index / self.info.fps))

    def _cloud_shift(self, index: int) -> float:
        shift = self._wind * index
        return shift if shift >= 0 else shift - self._wind * len(self)

    def _crop(self, texture: np.ndarray, index: int, shift: float = 0.0) -> np.ndarray:
        """The part of a texture in view of the camera, (H, W, channels) float32."""
        x, y = self._camera[index] + self._scene.margin
        matrix = np.array([[1, 0, x + shift], [0, 1, y]], np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = (self.info.width, self.info.height)
        return cv2.warpAffine(texture, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def _place(
        self, index: int, cloud_alpha: np.ndarray | None = None
    ) -> Iterator[tuple[int, _Placed]]:
        """Objects in the frame with their numbers from 1, distant (small) objects first."""
        order = sorted(range(len(self._flyers)), key=lambda k: self._flyers[k].size[0])
        ground_alpha = None
        for k in order:
            flyer = self._flyers[k]
            centre = flyer.position[index] - self._camera[index]
            reach = flyer.size[index]
            limit = (self.info.width + reach, self.info.height + reach)
            if (centre < -reach).any() or (centre > limit).any():
                continue
            parts = MODELS[flyer.kind](flyer.style, flyer.phase[index])
            pose = Pose(*flyer.angles[index], flyer.elevation)
            sprite = draw_sprite(
                parts, pose, size_px=flyer.size[index], centre_xy=(centre[0], centre[1])
            )
            cropped = _crop_to_frame(sprite, self.info)
            if cropped is None:
                continue
            area = (
                slice(cropped.y, cropped.y + cropped.alpha.shape[0]),
                slice(cropped.x, cropped.x + cropped.alpha.shape[1]),
            )
            veil = np.ones_like(cropped.alpha)
            if flyer.behind_clouds:
                if cloud_alpha is None:
                    shift = self._cloud_shift(index)
                    cloud_alpha = self._crop(self._scene.cloud[..., 3], index, shift)
                veil = 1 - cloud_alpha[area]
            visible = cropped.alpha * veil
            if self._scene.ground is not None:
                if ground_alpha is None:
                    ground_alpha = self._crop(self._scene.ground[..., 3], index)
                visible = visible * (1 - ground_alpha[area])
            full_alpha = float(sprite.alpha.sum())
            yield k + 1, _Placed(flyer, cropped, veil, visible, full_alpha)

    def _paint(self, image: np.ndarray, placed: _Placed, index: int) -> None:
        """Blend an object into an image, (H, W, 3) float32, in place; the ground is drawn later."""
        flyer, sprite = placed.flyer, placed.sprite
        if flyer.contrail > 0:
            self._paint_contrail(image, flyer, index)
        height, width = sprite.alpha.shape
        patch = image[sprite.y : sprite.y + height, sprite.x : sprite.x + width]
        tone = cv2.GaussianBlur(sprite.tone, (0, 0), self._soft)[..., None]
        alpha = cv2.GaussianBlur(sprite.alpha, (0, 0), self._soft)[..., None]
        patch += flyer.contrast * placed.veil[..., None] * (tone * flyer.colour - alpha * patch)

    def _paint_contrail(self, image: np.ndarray, flyer: Flyer, index: int) -> None:
        here = flyer.position[index] - self._camera[index]
        back = flyer.position[index] - flyer.position[index - 1 if index else 1]
        speed = float(np.hypot(*back))
        if index == 0:
            back = -back
        if speed < 1e-3:
            return
        start = here - back / speed * flyer.size[index] * 0.5
        end = here - back / speed * flyer.size[index] * flyer.contrail
        mask = np.zeros(image.shape[:2], np.uint8)
        wide = max(1, round(flyer.size[index] * 0.05))
        for k in range(8):  # fainter and wider with distance
            a, b = (start + (end - start) * t / 8 for t in (k, k + 1))
            cv2.line(
                mask,
                tuple(np.round(a * 16).astype(int).tolist()),
                tuple(np.round(b * 16).astype(int).tolist()),
                150 - 16 * k,
                wide + k // 2,
                cv2.LINE_AA,
                4,
            )
        alpha = cv2.GaussianBlur(mask, (0, 0), 1.2)[..., None] * np.float32(1 / 255)
        image += alpha * (238 - image)

    def _develop(self, canvas: np.ndarray, index: int, rng: np.random.Generator) -> np.ndarray:
        """Degrade, add noise and compress as a camera does: float32 to (H, W, 3) uint8 RGB."""
        quality = self._quality
        for burst in self._bursts:
            amount = burst.amount(index)
            if amount > 0 and burst.kind == "motion":
                canvas = cv2.filter2D(canvas, -1, motion_blur_kernel(2 + 11 * amount, burst.angle))
            elif amount > 0 and burst.kind == "defocus":
                canvas = cv2.GaussianBlur(canvas, (0, 0), 0.8 + 2.4 * amount)
            elif amount > 0:
                quality = int(np.interp(amount, [0, 1], [30, 6]))
        if self._grey:
            canvas = np.repeat(canvas.mean(-1, keepdims=True), 3, axis=-1)
        canvas += rng.standard_normal(canvas.shape[:2], np.float32)[..., None] * self._noise
        image = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
        _, data = cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
        )
        return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def _crop_to_frame(sprite: Sprite, info: VideoInfo) -> Sprite | None:
    """The part of a sprite inside the frame, or None."""
    height, width = sprite.alpha.shape
    x1, y1 = max(sprite.x, 0), max(sprite.y, 0)
    x2, y2 = min(sprite.x + width, info.width), min(sprite.y + height, info.height)
    if x1 >= x2 or y1 >= y2:
        return None
    area = (slice(y1 - sprite.y, y2 - sprite.y), slice(x1 - sprite.x, x2 - sprite.x))
    return Sprite(x1, y1, sprite.tone[area], sprite.alpha[area])


def _tight_box(placed: _Placed, alpha: np.ndarray) -> tuple[float, float, float, float] | None:
    """x1 y1 x2 y2 in frame pixels around the visible pixels of `alpha`, or None."""
    rows, columns = (np.flatnonzero((alpha > VISIBLE_ALPHA).any(axis)) for axis in (1, 0))
    if rows.size == 0:
        return None
    x, y = placed.sprite.x, placed.sprite.y
    return (
        float(x + columns[0]),
        float(y + rows[0]),
        float(x + columns[-1] + 1),
        float(y + rows[-1] + 1),
    )
