"""Changes to a host's config: our backbone in the place of any other."""

from swin_dense.config.backbone import with_backbone

__all__ = ['with_backbone']
