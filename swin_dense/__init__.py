"""Swin Transformers for detection and segmentation on the OpenMMLab packages."""

__version__ = '0.1.0'
