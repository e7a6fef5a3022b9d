"""Every knob of a run: frozen dataclasses. JSON and dotted names of them are in config_fields.py.

A field that is None is filled from the data set's Plan (fingerprint.py) before training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import tyro

from cellseg.config_ranges import require_ranges

Backbone = Literal[
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnet50_v2",
    "convnext_tiny",
    "convnext_small",
    "convnext_base",
]
Recipe = Literal["demo", "reference", "best", "best-cpu"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TORCHVISION_ANCHORS = (32.0, 64.0, 128.0, 256.0, 512.0)
TORCHVISION_RATIOS = (0.5, 1.0, 2.0)
OVERLAP = 128
"""network pixels that neighbouring tiles share where neither a config nor a Plan says how many"""


@dataclass(frozen=True)
class DatasetConfig:
    """What is read, and which images are held back for validation."""

    channel_order: Literal["auto", "rgb", "bgr"] = "auto"
    """order of the colours in the image files; auto compares red and blue inside annotated nuclei"""
    color: Literal["rgb", "gray"] = "rgb"
    """gray repeats the luminance three times"""
    class_names: tuple[str, ...] | None = None
    """of the classes 1..C; a folder with train/ then has so many; by default class1, … there, and a COCO file's own"""
    mpp: float | None = None
    """microns per pixel of the images; by default from the tags of the files, where all agree"""
    validation_fraction: float = 0.2
    """share of the images held back, in whole groups; 0 trains on all"""
    folds: int = 0
    """0 holds back validation_fraction; K > 1 holds back fold `fold` of K"""
    fold: int = 0
    """which of the folds is held back, from 0"""
    grouped_split: bool = True
    """keep tiles of one source, or of one stain cluster, on one side of the split"""
    split_seed: int = 0
    """which images are held back follows from it, so that runs of several seeds share one split"""
    subset: float = 1.0
    """share of the training and validation pixels that is used, as fixed, stratified crops; 1 uses whole images"""
    minimum_area: int = 4
    """cells of fewer pixels (in the training window) are not trained on"""
    workers: int = 2
    """processes that load images beside the training process"""

    def __post_init__(self) -> None:
        require_ranges("dataset", self)
        if self.folds < 0 or self.folds == 1:
            raise ValueError(f"dataset.folds: expected 0 or at least 2, got {self.folds}")
        if not 0 <= self.fold < max(self.folds, 1):
            raise ValueError(
                f"dataset.fold: expected 0 to {max(self.folds, 1) - 1} with dataset.folds {self.folds}, got {self.fold}"
            )
        names = self.class_names
        if names is not None and (not all(names) or len(set(names)) < max(1, len(names))):
            raise ValueError(f"dataset.class_names: expected a name for each class, none twice, got {names}")


@dataclass(frozen=True)
class AugmentConfig:
    """The random view of an image that a training step sees."""

    crop: int | None = None
    """side of the view in network pixels; 0 shows the whole image, None takes the Plan's"""
    zoom_jitter: float = 1.25
    """the zoom is multiplied by up to this factor, or divided by it; 1 is off"""
    flips: bool = True
    """mirror left-right and up-down, each with probability 1/2"""
    turns: bool = True
    """turn by 0, 90, 180 or 270 degrees"""
    color_jitter: float = 0.15
    """largest relative change of brightness, contrast and saturation"""
    stain_jitter: float = 0.3
    """probability of an H&E stain perturbation"""
    blur: float = 0.1
    """probability of a Gaussian blur"""
    noise: float = 0.1
    """probability of Gaussian noise"""
    copy_paste: int = 0
    """cells of other training images, of rare classes first, that are pasted into a view at most"""
    rare_windows: float = 0.0
    """probability that a view is laid around a cell of a class drawn evenly, instead of anywhere"""
    least_share: float = 0.0
    """cells of which a view shows less than this share of their pixels are no cells and no background to it"""

    def __post_init__(self) -> None:
        require_ranges("augment", self)


@dataclass(frozen=True)
class ModelConfig:
    """Mask R-CNN with an FPN: backbone, anchors, heads and what they sample in training."""

    num_cell_classes: int = 4
    """classes without background"""
    backbone: Backbone = "resnet50"
    stages: int = 4
    """backbone stages that feed the FPN: 4 ends at stride 32, 3 at stride 16"""
    weights: str = "imagenet"
    """coco, imagenet, none, or the path of a state_dict"""
    trainable_stages: int = 5
    """backbone stages that are trained, counted from the fourth, used or not; the stem is the fifth"""
    norm: Literal["auto", "batch", "frozen", "group"] = "auto"
    """normalisation of a ResNet; frozen keeps pretrained statistics; auto is frozen with weights and batch without"""
    fpn_channels: int = 256
    extra_level: bool = True
    """add a level at twice the last stride by max pooling"""
    anchor_sizes: tuple[float, ...] | None = None
    """sides in network pixels, the finest level's first; every level gets as many; None takes the Plan's"""
    aspect_ratios: tuple[float, ...] | None = None
    """height / width of the anchors of every level; None takes the Plan's"""
    sizes_per_level: int = 3
    """how many sizes a level gets where the Plan fits them"""
    roi_levels: int = 4
    """FPN levels that RoIs are pooled from, from the finest"""
    box_head: int = 1024
    """width of the fully connected layers of the box head"""
    mask_channels: tuple[int, ...] = (256, 256, 256, 256)
    """channels of the convolutions of the mask head"""
    mask_size: Literal[28, 56] = 28
    """side of the predicted mask"""
    box_stages: Literal[1, 2, 3] = 1
    """box heads in a cascade, trained from IoU .5, .6 and .7 on, each on the boxes of the one before"""
    mask_quality: bool = False
    """a head that tells the IoU of a mask with its cell, by which scores are multiplied"""
    logit_adjustment: float = 0.0
    """in training, this much of the log of each class's share is added to its logit; 1 is balanced, 0 is off"""
    class_shares: tuple[float, ...] | None = None
    """share of each class among the training cells; None takes the Plan's"""
    image_mean: tuple[float, float, float] = IMAGENET_MEAN
    image_std: tuple[float, float, float] = IMAGENET_STD
    rpn_pre_nms: int = 2000
    """proposals kept per level before NMS, in training"""
    rpn_post_nms: int = 2000
    """proposals kept per image after NMS, in training"""
    rpn_nms: float = 0.7
    """IoU over which the weaker of two proposals is dropped"""
    rpn_batch: int = 256
    """anchors sampled per image for the RPN loss"""
    rpn_positive_fraction: float = 0.5
    roi_batch: int = 512
    """proposals sampled per image for the box and mask losses"""
    roi_positive_fraction: float = 0.25
    parameter_limit: int = 200_000_000
    """more trainable parameters are refused; the competition's rule"""

    def __post_init__(self) -> None:
        require_ranges("model", self)

    @property
    def levels(self) -> int:
        """FPN levels that carry anchors."""
        return self.stages + self.extra_level

    @property
    def coarsest_stride(self) -> int:
        """Network pixels from one place of the last level to the next."""
        return int(4 * 2 ** (self.levels - 1))


@dataclass(frozen=True)
class TrainConfig:
    """Optimiser, schedule and stopping."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-4
    """peak rate, after the warm-up"""
    momentum: float = 0.9
    """of SGD"""
    weight_decay: float = 0.05
    warmup_fraction: float = 0.05
    """share of all steps in which the rate rises linearly from 0; then it falls as a cosine to 0"""
    epochs: int = 50
    steps_per_epoch: int = 0
    """0: as many as one pass over the training images takes"""
    batch: int = 4
    """images per forward pass, of each process"""
    accumulation: int = 1
    """forward passes per optimiser step"""
    clip_norm: float = 10.0
    """largest norm of the gradient; 0 is off"""
    ema_decay: float = 0.999
    """of the averaged weights that are validated and kept, ramped as min(d, (1+n)/(10+n)); 0 is off"""
    amp: bool = True
    """bfloat16 in the backbone and heads, on CUDA and on CPUs that compute in it"""
    channels_last: bool = True
    """memory format of the convolutions, on CUDA and CPUs"""
    compile: bool = False
    """compile backbone and FPN; pays off on CUDA in trainings of more than a few minutes"""
    oversample: bool = True
    """show images with rare classes more often"""
    validate_every: int = 1
    """epochs between validations; the last epoch is always validated"""
    patience: int = 0
    """stop after so many epochs without a better AP50; 0 is off"""

    def __post_init__(self) -> None:
        require_ranges("train", self)


@dataclass(frozen=True)
class PredictConfig:
    """How images become results: in validation, in test scoring and in the submission alike."""

    zoom: float | None = None
    """network pixels per image pixel, in training and prediction; None takes the Plan's"""
    short_side: int = 0
    """when not 0, each image is scaled to this short side instead of by the zoom, as torchvision does"""
    long_side: int = 1333
    """limit of the long side that goes with short_side"""
    views: Literal[1, 2, 4, 8] = 1
    """ways to look at each tile, averaged: 1 as it is, 2 mirrored left-right too, 4 up-down too, 8 quarter turns too"""
    zooms: tuple[float, ...] = (1.0,)
    """factors on the zoom at which each tile is looked at, averaged"""
    tile: int = 1024
    """larger images are predicted in tiles of this side, network pixels; 0 takes every image whole"""
    overlap: int | None = None
    """network pixels that neighbouring tiles share; should exceed the largest cell; None takes the Plan's"""
    tile_batch: int = 8
    """tiles and views of tiles held at once on CUDA; elsewhere one tile, as more would cost memory and save no time"""
    proposals: int = 2000
    """proposals kept per level before, and per tile after NMS; of each network and view"""
    score_threshold: float = 0.05
    """detections below it are dropped, 0..1; the ap operating point"""
    box_nms: float = 0.5
    """IoU over which the weaker of two boxes of one class is dropped"""
    detections: int | None = None
    """most detections kept per tile, and so per image of one tile; None takes the Plan's"""
    mask_threshold: float = 0.5
    """probability over which a pixel belongs to its cell"""
    rescore: bool = True
    """multiply the score by the mean probability inside the mask"""
    mask_quality: bool = True
    """multiply the score by the mask's expected IoU, where the model has a head for it"""
    pq_threshold: float = 0.5
    """score below which a cell is not drawn at the pq operating point"""
    calibration: Annotated[tuple[tuple[float, ...], ...] | None, tyro.conf.Suppress] = None
    """coefficients per class, fitted out of fold; None leaves scores as they are"""

    def __post_init__(self) -> None:
        require_ranges("predict", self)
        if not self.zooms:
            raise ValueError("predict.zooms: expected at least one factor, got none; 1 is the zoom alone")
        if self.tile and self.overlap is not None and self.overlap >= self.tile:
            raise ValueError(
                f"predict.overlap: expected less than predict.tile, {self.tile}, got {self.overlap}; lower it"
            )
        for label, row in enumerate(self.calibration or (), start=1):
            if len(row) != 4 or not row[0] > 0:  # a score that rises must stay one
                raise ValueError(
                    f"predict.calibration: class {label}: expected 4 numbers, the first above 0, got {list(row)}"
                )

    @property
    def shared(self) -> int:
        """The overlap, also of a config that no Plan was applied to."""
        return min(OVERLAP, self.tile // 2) if self.overlap is None else self.overlap

    def scale_of(self, size_hw: Sequence[int]) -> float:
        """Network pixels per pixel of an image of this size."""
        if self.short_side:
            return min(self.short_side / min(size_hw), self.long_side / max(size_hw))
        return 1.0 if self.zoom is None else self.zoom

    def zoomed(self, factor: float) -> "PredictConfig":
        """The same with the zoom times the factor; a fixed short side asks nothing of the scale and stays."""
        return self if self.short_side else replace(self, zoom=factor * (1.0 if self.zoom is None else self.zoom))


@dataclass(frozen=True)
class RunConfig:
    """One training run, whole."""

    recipe: Recipe = "best"
    """name of the recipe that the run started from"""
    seed: int = 0
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)

    def __post_init__(self) -> None:
        require_ranges("", self)
