"""Claim: a training step that does not grow with the number of cells, against torchvision's own Mask R-CNN.

Both train the same modules with the same weights: backbone, FPN, RPN head, box and mask branches. What differs is the
path of the truth: a Target with label maps, or N full-size masks through torchvision's transform, at scale 1.
"""

from collections.abc import Sequence
from functools import partial

from measure import Case, main

import torch
from rows import Notes
from scenes import masks_of, tissue
from torch import Tensor
from torchvision.models.detection import MaskRCNN
from torchvision.ops import MultiScaleRoIAlign

from cellseg.config import ModelConfig
from cellseg.label_maps import Target, target
from cellseg.model import CellRCNN, build_model
from cellseg.recipes import demo

CELLS = (70, 240, 700)
SIDE = 1024
ANCHORS = (12.0, 24.0, 48.0)
RATE = 1e-4


def cases(quick: bool) -> list[Case]:
    """One image of more and more cells."""
    sizes, side = ((6,), 96) if quick else (CELLS, SIDE)
    config = demo().model
    model = build_model(ModelConfig(**{**vars(config), "anchor_sizes": ANCHORS, "aspect_ratios": (1.0,)}))
    torch.manual_seed(0)
    others = torchvision_model(model, side)
    return [case_of(cells, side, model, others) for cells in sizes]


def torchvision_model(model: CellRCNN, side: int) -> MaskRCNN:
    """torchvision's Mask R-CNN around the modules of ours, with the same thresholds and samples."""
    rpn, heads = model.rpn, model.roi_heads
    return MaskRCNN(
        model.backbone,
        min_size=side,
        max_size=side,
        image_mean=model.transform.mean.flatten().tolist(),
        image_std=model.transform.std.flatten().tolist(),
        rpn_anchor_generator=rpn.anchor_generator,
        rpn_head=rpn.head,
        rpn_pre_nms_top_n_train=rpn._pre_nms_top_n["training"],
        rpn_post_nms_top_n_train=rpn._post_nms_top_n["training"],
        rpn_batch_size_per_image=rpn.fg_bg_sampler.batch_size_per_image,
        rpn_positive_fraction=rpn.fg_bg_sampler.positive_fraction,
        box_batch_size_per_image=heads.fg_bg_sampler.batch_size_per_image,
        box_positive_fraction=heads.fg_bg_sampler.positive_fraction,
        box_roi_pool=pool_of(heads.box_roi_pool),
        box_head=heads.box_head,
        box_predictor=heads.box_predictor,
        mask_roi_pool=pool_of(heads.mask_roi_pool),
        mask_head=heads.mask_head,
        mask_predictor=heads.mask_predictor,
    ).train()


def pool_of(pool: MultiScaleRoIAlign) -> MultiScaleRoIAlign:
    """torchvision's own pooling with the settings of ours, which has no weights."""
    return MultiScaleRoIAlign(pool.featmap_names, pool.output_size, pool.sampling_ratio)


def case_of(cells: int, side: int, model: CellRCNN, others: MaskRCNN) -> Case:
    """A step on one image: forward, backward, and SGD."""
    pixels, label_maps = tissue(cells, (side, side))
    image, truth = torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), target(label_maps)
    masks, labels = (torch.from_numpy(each) for each in masks_of(label_maps))
    theirs = {"boxes": truth["boxes"], "labels": labels, "masks": masks}
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    model.train()
    return Case(
        cells,
        lambda: trained(our_losses(model, [image], [truth]), optimizer),
        lambda: trained(their_losses(others, image, theirs), optimizer),
        partial(compared, model, others, image, truth, theirs),
        {"image": f"{side} x {side}"},
    )


def our_losses(model: CellRCNN, images: Sequence[Tensor], truths: Sequence[Target]) -> dict[str, Tensor]:
    """The five losses of images (3, H, W) uint8: the one place that knows how ours is called."""
    losses = model(images, truths)
    assert isinstance(losses, dict)
    return losses


def their_losses(others: MaskRCNN, image: Tensor, truth: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same of torchvision's, which takes floats, and changes the dict that it is given."""
    losses: dict[str, Tensor] = others([image.float() / 255], [dict(truth)])
    return losses


def trained(losses: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Change the weights by one step."""
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(torch.stack(list(losses.values())).sum())
    optimizer.step()


@torch.no_grad()
def compared(model: CellRCNN, others: MaskRCNN, image: Tensor, truth: Target, theirs: dict[str, Tensor]) -> Notes:
    """Both see the same batch, and make the same proposals of the same features; what they draw at random is noted."""
    batch, cells = model.transform([image], [truth])
    their_batch, their_cells = others.transform([image.float() / 255], [dict(theirs)])
    assert torch.allclose(batch.tensors, their_batch.tensors, atol=1e-5), "step: another batch"
    features = model.backbone(batch.tensors)
    found = []
    for rpn, targets in ((model.rpn, cells), (others.rpn, their_cells)):
        torch.manual_seed(0)  # of the anchors that are drawn for the loss
        found.append(rpn(batch, features, targets))
    (ours, our_loss), (others_own, their_loss) = found
    assert torch.equal(ours[0], others_own[0]), "step: other proposals"
    for losses in (our_losses(model, [image], [truth]), their_losses(others, image, theirs)):
        assert all(torch.isfinite(loss) for loss in losses.values()), f"step: {losses}"
    return {"rpn_loss_difference": max(abs(float(our_loss[name] - their_loss[name])) for name in our_loss)}


if __name__ == "__main__":
    main("step", cases)
