"""Cell instance segmentation in histology with Mask R-CNN."""
